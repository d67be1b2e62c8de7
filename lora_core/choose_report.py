"""The report of a comparison: grid.png, scores.json and a page that stands alone."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lora_core.drawing import GridText, fitted, picture_grid
from lora_core.jobs.choose import ChooseJob
from lora_core.recommend import CellScore, Field, Recommendation
from lora_core.settings import to_json

CELL = (192, 192)
CHOSEN = (24, 128, 72)
GRID_ROWS = 60
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
body{color:#1f232b;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #e2e5ea}
th:first-child,td:first-child{text-align:left}tr.chosen{background:#e3f4ea;font-weight:600}img{max-width:100%;height:auto}
.warning{border-left:4px solid #c77700;padding-left:.8rem}small{color:#68707d}"""
HEADS = (
    "Save",
    "Steps",
    "Strength",
    "Likeness",
    "Held-out loss",
    "Change without trigger",
    "Nearest",
    "Copies",
    "Score",
)
EXPLAINED = (
    "Likeness: 0 as the base draws the same prompts, 1 as the subject's own pictures, along the line between the two "
    "in what the base's UNet holds of a picture. Held-out loss: on pictures that were not trained on, fixed noise. "
    "Leak: how far the LoRA moves pictures that do not ask for the subject, in parts of what another seed does. "
    "Nearest: how near the pictures come to a training picture (1 = the same); copies: the share that repeats one. "
    "Score: likeness - leak / 2 - copies - lost held-out gain / 2."
)


@dataclass(frozen=True)
class Sheet:
    """The pictures of one save at one strength, by shot (prompt, seed, kind), and its score."""

    label: str
    score: CellScore
    pictures: Mapping[Any, Image.Image]


@dataclass(frozen=True)
class Comparison:
    """The base's pictures, the cells' in order of saves and strengths, and the base's held-out loss."""

    base: Mapping[Any, Image.Image]
    sheets: tuple[Sheet, ...]
    base_held_out: float | None = None


def write_report(
    job: ChooseJob, comparison: Comparison, field: Field, found: Recommendation
) -> tuple[Path, Path, Path]:
    """Write index.html, scores.json and grid.png into the job's folder, each of them whole or not at all."""
    folder = Path(job.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    grid = draw_grid(comparison, found)
    png = io.BytesIO()
    grid.save(png, "PNG")
    scores = {
        "recommendation": to_json(found),
        "base_held_out": comparison.base_held_out,
        "cells": [{**to_json(cell), "score": round(field.total(cell), 4)} for cell in field.cells],
        "job": to_json(job),
    }
    texts = {
        "index.html": page(comparison, field, found, grid).encode(),
        "scores.json": json.dumps(scores, indent=2).encode(),
        "grid.png": png.getvalue(),
    }
    return tuple(_written(folder / name, data) for name, data in texts.items())  # type: ignore[return-value]


def _written(path: Path, data: bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
    return path


def draw_grid(comparison: Comparison, found: Recommendation) -> Image.Image:
    """Rows: each save for each prompt (first seed); columns: without LoRA, then the strengths; the chosen is framed."""
    by_save: dict[str, list[Sheet]] = {}
    for sheet in comparison.sheets:
        by_save.setdefault(sheet.label, []).append(sheet)
    rows: list[list[Image.Image | None]] = []
    captions: list[str] = []
    for shot in _shown_shots(comparison):
        for label, sheets in by_save.items():
            cells = [_framed(s, shot, found) for s in sheets]
            rows.append([comparison.base.get(shot), *cells])
            captions.append(f"{label}: {shot.prompt}")
    strengths = list(dict.fromkeys(f"strength {s.score.strength:g}" for s in comparison.sheets))
    title = f"{Path(found.file).stem} at strength {found.strength:g}"
    text = GridText(("without LoRA", *strengths), captions[:GRID_ROWS], f"Recommended: {title}", "Framed in green.")
    return picture_grid(rows[:GRID_ROWS], text, CELL)


def _shown_shots(comparison: Comparison) -> list[Any]:
    """One shot for each prompt, of those that every cell drew."""
    first: dict[str, Any] = {}
    for shot in comparison.sheets[0].pictures:
        first.setdefault(shot.prompt, shot)
    return list(first.values())


def _framed(sheet: Sheet, shot: Any, found: Recommendation) -> Image.Image | None:
    picture = sheet.pictures.get(shot)
    if picture is None or (sheet.score.file, sheet.score.strength) != (found.file, found.strength):
        return picture
    shown = fitted(picture, (CELL[0] - 12, CELL[1] - 12))
    return ImageOps.expand(shown, 6, CHOSEN)


def page(comparison: Comparison, field: Field, found: Recommendation, grid: Image.Image) -> str:
    """One HTML file without links to others."""
    data = io.BytesIO()
    grid.save(data, "JPEG", quality=85)
    picture = base64.b64encode(data.getvalue()).decode("ascii")
    name = Path(found.file).name
    rows = "\n".join(_row(sheet, field, found) for sheet in comparison.sheets)
    heads = "".join(f"<th>{escape(head)}</th>" for head in HEADS)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(name)}</title><style>{STYLE}</style></head><body>
<h1>Use {escape(name)} at strength {found.strength:g}</h1>
{"".join(_items(found.warnings, "warning"))}
<ul>{"".join(f"<li>{escape(reason)}</li>" for reason in found.reasons)}</ul>
<table><thead><tr>{heads}</tr></thead><tbody>
{_base_row(comparison)}
{rows}
</tbody></table>
<p><small>{escape(EXPLAINED)}</small></p>
<img src="data:image/jpeg;base64,{picture}" width="{grid.width}" height="{grid.height}" alt="Pictures of every save">
</body></html>
"""


def _items(sentences: Sequence[str], css: str) -> Iterator[str]:
    return (f'<p class="{css}">{escape(sentence)}</p>\n' for sentence in sentences)


def _base_row(comparison: Comparison) -> str:
    values = ["without LoRA", "", "", "0", _number(comparison.base_held_out, 4), "0", "", "", ""]
    return "<tr>" + "".join(f"<td>{value}</td>" for value in values) + "</tr>"


def _row(sheet: Sheet, field: Field, found: Recommendation) -> str:
    c = sheet.score
    css = ' class="chosen"' if (c.file, c.strength) == (found.file, found.strength) else ""
    values = [escape(Path(c.file).name), str(c.step), f"{c.strength:g}", _number(c.likeness, 2), _number(c.held_out, 4)]
    values += [_number(c.leak, 2), _number(c.nearest, 2), "" if c.copies is None else f"{c.copies:.0%}"]
    values.append(_number(field.total(c), 2))
    return f"<tr{css}>" + "".join(f"<td>{value}</td>" for value in values) + "</tr>"


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"
