"""Tables of the bake-off, for a terminal and for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.preset_rows import Row

COLUMNS = (
    "settings", "from", "rank / alpha", "effective rate", "hits", "leaks", "obeyed", "change", "held-out",
    "converged at", "CPU s", "MB",
)  # fmt: skip


def tables(everything: Mapping[str, Sequence[Row]], results: Mapping[str, Any]) -> dict[str, str]:
    """A Markdown table by goal, of the rows that have results."""
    return {goal: table(goal, chosen, results) for goal, chosen in everything.items()}


def table(goal: str, chosen: Sequence[Row], results: Mapping[str, Any]) -> str:
    found = [(row, results[f"{goal}: {row.name}"]) for row in chosen if f"{goal}: {row.name}" in results]
    head = f"| {' | '.join(COLUMNS)} |\n|---|---|---|---|{'---:|' * (len(COLUMNS) - 4)}"
    return "\n".join([head, *(f"| {' | '.join(cells(row, figures))} |" for row, figures in found)])


def cells(row: Row, figures: Mapping[str, Any]) -> list[str]:
    v, n = row.values, figures["samples"]
    first, last = figures["held_out"][0][1], figures["held_out"][-1][1]
    rate = v["learning_rate"] * v["alpha"] / v["rank"]
    at = figures["converged"]
    return [
        row.name,
        row.source,
        f"{v['rank']} / {v['alpha']:g}" + (f" + {v['conv_rank']}" if v.get("conv_rank") else ""),
        "its own" if v["optimizer"] == "prodigy" else f"{rate:.1e}",
        f"{figures['hits']} / {n}",
        f"{figures['leaks']} / {n}",
        f"{figures['obeyed']} / {n}",
        f"{figures['change']:.1%}",
        f"{last:.4f} ({last / first - 1:+.0%})",
        f"{at} of {figures['steps']}" if at is not None else "-",
        f"{figures['cpu_seconds']:.0f}",
        f"{figures['size'] / 1e6:.1f}",
    ]


def written(page: Path, found: Mapping[str, str]) -> None:
    """Replace what stands between <!-- GOAL --> and <!-- end -->. Raises ValueError where a mark is missing."""
    text = page.read_text(encoding="utf-8")
    for goal, lines in found.items():
        pattern = re.compile(rf"(<!-- {goal} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page} has no place for the table of the goal {goal}.")
        text = pattern.sub(lambda match, lines=lines: f"{match[1]}{lines}\n{match[2]}", text)
    page.write_text(text, encoding="utf-8")
