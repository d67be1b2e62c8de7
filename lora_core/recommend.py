"""From scores of saves and strengths to the one to use, with reasons that a person can check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAK_WEIGHT = 0.5
OVERFIT_WEIGHT = 0.5
CLOSE = 0.03  # scores this near each other count as equal


@dataclass(frozen=True)
class CellScore:
    """One save at one strength; None where the pictures or prompts for a figure were not given.

    `held_out`: loss on held-out pictures. `likeness`: 0 as the base draws, 1 as the subject's pictures are.
    `leak`: how much pictures without the trigger change, 1 = as much as by another seed. `nearest`: how near the
    drawn pictures come to a training picture (correlation, mean); `copies`: the share of them that repeat one.
    """

    file: str
    step: int
    strength: float
    held_out: float | None = None
    likeness: float | None = None
    leak: float | None = None
    nearest: float | None = None
    copies: float | None = None


@dataclass(frozen=True)
class Recommendation:
    """`score` is that of the cell (see `total`); `reasons` and `warnings` are sentences."""

    file: str
    strength: float
    score: float
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """All cells of a comparison, and the base's own held-out loss."""

    cells: tuple[CellScore, ...]
    base_held_out: float | None = None

    @property
    def best_loss(self) -> float | None:
        losses = [c.held_out for c in self.cells if c.held_out is not None]
        return min(losses) if losses else None

    def overfit(self, cell: CellScore) -> float:
        """How much of what was gained on held-out pictures this cell has lost: 0 = the best cell, 1 = the base."""
        best, base = self.best_loss, self.base_held_out
        if cell.held_out is None or best is None or base is None:
            return 0.0
        gained = base - best
        lost = cell.held_out - best
        return lost / gained if gained > 1e-9 else float(lost > 1e-9)

    def total(self, cell: CellScore) -> float:
        """likeness - leak / 2 - copies - overfit / 2, each of them between 0 and 1 at most."""
        likeness = 0.0 if cell.likeness is None else min(max(cell.likeness, 0.0), 1.0)
        costs = LEAK_WEIGHT * min(cell.leak or 0.0, 1.0) + (cell.copies or 0.0)
        return likeness - costs - OVERFIT_WEIGHT * min(self.overfit(cell), 1.0)


def recommend(field: Field) -> Recommendation:
    """The best cell; of those that are about as good, the earliest save, and then the strength nearest to 1."""
    totals = {cell: field.total(cell) for cell in field.cells}
    best = max(totals.values())
    close = [cell for cell in field.cells if totals[cell] >= best - CLOSE]
    chosen = min(close, key=lambda cell: (cell.step, abs(cell.strength - 1), -totals[cell]))
    return Recommendation(
        chosen.file, chosen.strength, round(totals[chosen], 4), tuple(_reasons(field, chosen)), _warnings(field, chosen)
    )


def _reasons(field: Field, chosen: CellScore) -> list[str]:
    found: list[str] = []
    if chosen.likeness is not None:
        found.append(f"With the trigger its pictures have come {chosen.likeness:.0%} of the way to the subject's.")
    if chosen.held_out is not None and field.base_held_out is not None:
        found.append(
            f"The loss on held-out pictures is {chosen.held_out:.4f}; without the LoRA {field.base_held_out:.4f}, "
            f"at best {field.best_loss:.4f}."
        )
    if chosen.leak is not None:
        found.append(f"Without the trigger pictures change by {chosen.leak:.0%} of what another seed changes.")
    if chosen.nearest is not None and not chosen.copies:
        found.append(f"None of its pictures repeats a training picture (nearest: {chosen.nearest:.2f}).")
    return found + _against_others(field, chosen)


def _against_others(field: Field, chosen: CellScore) -> list[str]:
    """Why not an earlier, a later, a weaker or a stronger one."""
    found: list[str] = []
    same_strength = [c for c in field.cells if c.strength == chosen.strength]
    for word, others in (
        ("Earlier", [c for c in same_strength if c.step < chosen.step]),
        ("Later", [c for c in same_strength if c.step > chosen.step]),
    ):
        why = _worse(field, chosen, others)
        if why:
            found.append(f"{word} saves {why}.")
    same_save = [c for c in field.cells if c.file == chosen.file]
    for word, others in (
        ("Weaker", [c for c in same_save if c.strength < chosen.strength]),
        ("Stronger", [c for c in same_save if c.strength > chosen.strength]),
    ):
        why = _worse(field, chosen, others)
        if why:
            found.append(f"{word}, it {why}.")
    return found


def _worse(field: Field, chosen: CellScore, others: Sequence[CellScore]) -> str:
    """What most distinguishes the best of the others from the chosen one, in words."""
    if not others:
        return ""
    other = max(others, key=field.total)
    gaps = {
        "does less for the likeness": _capped(chosen.likeness) - _capped(other.likeness),
        "changes more where the trigger is missing": LEAK_WEIGHT * ((other.leak or 0) - (chosen.leak or 0)),
        "repeats training pictures": (other.copies or 0) - (chosen.copies or 0),
        "fits the held-out pictures less": OVERFIT_WEIGHT * (field.overfit(other) - field.overfit(chosen)),
    }
    word, gap = max(gaps.items(), key=lambda item: item[1])
    if gap <= CLOSE / 2:
        return "is about as good" if others[0].file == chosen.file else "are about as good"
    return word if others[0].file == chosen.file else _plural(word)


def _plural(word: str) -> str:
    first, _, rest = word.partition(" ")
    return f"{ {'does': 'do'}.get(first, first.removesuffix('s')) } {rest}"


def _capped(likeness: float | None) -> float:
    return 0.0 if likeness is None else min(max(likeness, 0.0), 1.0)


def _warnings(field: Field, chosen: CellScore) -> tuple[str, ...]:
    found: list[str] = []
    if chosen.likeness is not None and chosen.likeness < 0.3:
        found.append("None of the saves makes the subject appear clearly: train longer or with a higher rate.")
    if chosen.copies:
        found.append(
            f"{chosen.copies:.0%} of its pictures repeat a training picture: train shorter or on more pictures."
        )
    last = max(cell.step for cell in field.cells)
    if chosen.step == last and chosen.likeness is not None and 0.3 <= chosen.likeness < 0.8:
        found.append("It is the last save, and the likeness still grew: more steps may do better.")
    if chosen.leak is not None and chosen.leak > 0.7:
        found.append("Pictures without the trigger change about as much as by another seed: the subject leaks.")
    if chosen.likeness is None and chosen.held_out is None:
        found.append("Without held-out or training pictures only the changes could be measured: look at the grid.")
    return tuple(found)
