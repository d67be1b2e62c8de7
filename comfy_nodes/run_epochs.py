"""Epoch Grid and Dataset Report at work."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lora_core.engine.dataset import open_dataset
from lora_core.jobs import ChooseJob, TrainJob
from lora_core.keep_one import saves_with, training_of
from lora_core.pictures import SUFFIXES
from lora_core.settings import replace_by_name

from . import host, places
from .declare import Context, Result
from .epochs import NOT_ASKED
from .pictures import image_of, read_picture
from .run_tools import shown
from .widgets import chosen_file, setting, settings, values_of
from .work import perform

THUMBNAIL, MOST = 192, 64
SAVE_NUMBER = re.compile(r"-\d{6,}$")


def run_grid(context: Context, values: dict[str, Any]) -> Result:
    path = Path(chosen_file("loras", values.get("lora_name") or values["lora"]))
    pictures = values.get("dataset")
    folder = host.output_folder() / host.OWN_FOLDER / "grids" / uuid.uuid4().hex[:12]
    folder.mkdir(parents=True)
    chosen = values_of(settings(ChooseJob, leave_out=NOT_ASKED), values)
    chosen |= same_training(path) | {"output_dir": str(folder)}
    if pictures is not None:
        chosen |= {"held_out": pictures.held_out, "training_pictures": pictures.folder}
    done = perform(context, replace_by_name(ChooseJob(), chosen), f"grid of {path.stem}")
    return chosen_result(done, folder, path)


def same_training(path: Path) -> dict[str, Any]:
    """Which saves to compare: those of the file's training, as their metadata say, else those of its name."""
    if training_of(path):
        return {"loras": tuple(map(str, saves_with(path)))}
    return {"folder": str(path.parent), "name": SAVE_NUMBER.sub("", path.stem)}


def chosen_result(done: Any, folder: Path, path: Path) -> Result:
    """The grid, the recommended save and strength, and why."""
    best = done.finished.report.get("recommendation") or {}
    file = Path(str(best.get("file") or path))
    strength = float(best.get("strength") or 1.0)
    said = [*best.get("reasons", ()), *best.get("warnings", ())]
    text = "\n".join([f"{file.name} at {strength:g}", *said, *done.notes])
    grid = image_of([read_picture(folder / "grid.png")])
    return Result((grid, places.listed_name("loras", file), strength, text), {"text": [text]})


def run_report(context: Context, values: dict[str, Any]) -> Result:
    """What the trainer would see, and the pictures with their numbers."""
    own = values_of([setting(TrainJob, name) for name in ("width", "height", "batch_size", "trigger")], values)
    pictures = values["dataset"]
    report = open_dataset(replace_by_name(TrainJob(), {**pictures.values, **own})).report
    text = "\n".join(report.text())
    found = sorted(p for p in Path(pictures.folder).rglob("*") if p.suffix.lower() in SUFFIXES)[:MOST]
    sheet = contact_sheet(found)
    path = places.temp_folder() / f"dataset-{uuid.uuid4().hex[:12]}.png"
    sheet.save(path)
    return Result((text, image_of([sheet])), {"text": [text], "images": [shown(path)]})


def contact_sheet(paths: list[Path]) -> Image.Image:
    """Small pictures in rows of eight; what cannot be read is left grey."""
    columns = min(8, max(1, len(paths)))
    rows = max(1, -(-len(paths) // columns))
    sheet = Image.new("RGB", (columns * THUMBNAIL, rows * THUMBNAIL), (40, 40, 40))
    for number, path in enumerate(paths):
        try:
            small = ImageOps.contain(read_picture(path).convert("RGB"), (THUMBNAIL - 6, THUMBNAIL - 6))
        except OSError:
            small = Image.new("RGB", (THUMBNAIL - 6, THUMBNAIL - 6), (128, 128, 128))
        corner = (number % columns * THUMBNAIL + 3, number // columns * THUMBNAIL + 3)
        sheet.paste(small, (corner[0] + (THUMBNAIL - 6 - small.width) // 2, corner[1]))
    return sheet
