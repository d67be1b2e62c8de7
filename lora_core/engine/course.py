"""Where a training stands: the few things that change while it runs."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from lora_core.recommend import CellScore

WINDOW = 100


@dataclass
class Course:
    """`step` optimizer steps are done; `losses` has one value for each; `looks` are the judged saves,
    `ended` says why it ends early; the rest is for curves, metadata and guards."""

    session: int
    started_at: float
    step: int = 0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)
    files: list[tuple[int, list[str]]] = field(default_factory=list)
    looks: list[CellScore] = field(default_factory=list)
    ended: str = ""
    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0
    began: float = field(default_factory=time.monotonic)
    began_step: int = 0

    @property
    def average(self) -> float:
        """Mean of the last 100 finite losses: comparable across resumes, because the list is kept."""
        recent = [x for x in self.losses[-WINDOW:] if math.isfinite(x)]
        return sum(recent) / len(recent) if recent else float("nan")

    def seconds_per_step(self) -> float | None:
        done = self.step - self.began_step
        return (time.monotonic() - self.began) / done if done else None

    def to_json(self) -> dict[str, Any]:
        names = ("session", "started_at", "held_out", "saves", "files", "skipped", "in_a_row", "rollbacks")
        looks = [asdict(look) for look in self.looks]
        return {n: getattr(self, n) for n in names} | {"losses": [repr(x) for x in self.losses], "looks": looks}

    @classmethod
    def from_json(cls, data: dict[str, Any], step: int) -> Course:
        held_out = [(int(s), float(v)) for s, v in data["held_out"]]
        losses = [float(x) for x in data["losses"]]
        files = [(int(s), [str(p) for p in paths]) for s, paths in data.get("files", ())]
        rest = {name: data[name] for name in ("session", "started_at", "saves", "skipped", "in_a_row", "rollbacks")}
        looks = [CellScore(**look) for look in data.get("looks", ())]
        return cls(step=step, began_step=step, losses=losses, held_out=held_out, files=files, looks=looks, **rest)


def finite(value: float | None) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not know."""
    return value if value is not None and math.isfinite(value) else None
