"""How far the weights have moved, while training: nothing learned, or burnt, is said early."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from lora_core.algorithms import change
from lora_core.block_weights import block_of
from lora_core.engine.averages import as_saved
from lora_core.engine.branch import LoraBranch
from lora_core.engine.course import Course
from lora_core.engine.optimizers import warmup_steps
from lora_core.events import Change, Event, Note

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

LOOKS = 20
LEAST_STEPS = 10
SAMPLED = 8
MEASURED = ("loha", "lokr", "ia3", "oft")
NOT_LEARNING = 1e-4
BURNING = 0.5
TENTH = 0.1


class Watch:
    """Measures |dW| / |W| by block some twenty times in a run; says once what is wrong."""

    def __init__(self, run: Run) -> None:
        self.every = max(LEAST_STEPS, run.total_steps // LOOKS)
        self.warm = max(TENTH * run.total_steps, 2 * warmup_steps(run.job.optimization, run.total_steps))
        self.base: dict[str, float] = {}
        self.said: set[str] = set()

    def look(self, run: Run, course: Course) -> Iterator[Event]:
        """The change so far, when it is due, and a sentence where it is far too little or too much."""
        step = course.step
        if not step or (step % self.every and step != run.total_steps):
            return
        with as_saved(run):
            shares = self.shares(run)
        if not shares:
            return
        mean = sum(shares.values()) / len(shares)
        yield Change(step, mean, by_block(shares, run.architecture.family))
        if step >= self.warm and mean * run.total_steps / step < NOT_LEARNING:
            yield from self.say(
                "not learning",
                f"After {step} steps the weights have moved by {mean:.1e} of their size: at this pace it hardly "
                "learns. Raise the learning rate, or alpha.",
            )
        if mean > BURNING:
            yield from self.say(
                "burning",
                f"After {step} steps the LoRA is {mean:.0%} as large as the weights themselves: it burns. Lower the "
                "learning rate or alpha, or use an earlier save.",
            )

    def say(self, kind: str, sentence: str) -> Iterator[Event]:
        if kind not in self.said:
            self.said.add(kind)
            yield Note(sentence, "warning")

    @torch.no_grad()
    def shares(self, run: Run) -> dict[str, float]:
        """|dW| / |W| by canonical name; of other algorithms than LoRA every eighth module."""
        found: dict[str, float] = {}
        for place, (name, branch) in enumerate(run.network.branches.items()):
            length = length_of(branch, place)
            if length is not None and math.isfinite(length):
                if name not in self.base:
                    self.base[name] = float(torch.linalg.vector_norm(branch.base_layer.weight.float()))
                found[name] = length / max(self.base[name], 1e-12)
        return found


def length_of(branch: Any, place: int) -> float | None:
    """|dW| of a branch: of a LoRA from its factors alone; None where it is not measured."""
    if isinstance(branch, LoraBranch):
        down, up, scale = branch.factors(torch.float32)
        down, up = down.flatten(1), up.flatten(1)
        return float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()) * scale
    if place % SAMPLED or algorithm_of(branch) not in MEASURED:
        return None
    weight = branch.base_layer.weight
    delta = change(algorithm_of(branch), branch.saved(), tuple(weight.shape), weight.float())
    return None if delta is None else float(torch.linalg.vector_norm(delta))


def algorithm_of(branch: Any) -> str:
    """The name under which `algorithms.change` knows a branch."""
    return type(branch).__name__.removesuffix("Branch").lower()


def by_block(shares: Mapping[str, float], family: str) -> dict[str, float]:
    """Mean share of each block ("IN01", "M00", "OUT05", "text_encoder")."""
    groups: dict[str, list[float]] = {}
    for name, share in shares.items():
        label = block_of(name, family)
        groups.setdefault(name.partition(".")[0] if label == "TE" else label, []).append(share)
    return {label: sum(values) / len(values) for label, values in sorted(groups.items())}
