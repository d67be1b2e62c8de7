"""Where a training stands: the few things that change while it runs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

WINDOW = 100


@dataclass
class Course:
    """`step` optimizer steps are done; `losses` has one value for each; the rest is for curves, metadata and guards."""

    session: int
    started_at: float
    step: int = 0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)
    files: list[tuple[int, list[str]]] = field(default_factory=list)
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
        return {name: getattr(self, name) for name in names} | {"losses": [repr(x) for x in self.losses]}

    @classmethod
    def from_json(cls, data: dict[str, Any], step: int) -> Course:
        held_out = [(int(s), float(v)) for s, v in data["held_out"]]
        losses = [float(x) for x in data["losses"]]
        files = [(int(s), [str(p) for p in paths]) for s, paths in data.get("files", ())]
        rest = {name: data[name] for name in ("session", "started_at", "saves", "skipped", "in_a_row", "rollbacks")}
        return cls(step=step, began_step=step, losses=losses, held_out=held_out, files=files, **rest)


def finite(value: float | None) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not know."""
    return value if value is not None and math.isfinite(value) else None
