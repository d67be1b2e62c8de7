"""Steps with a loss or gradient that is not finite are skipped; repeated ones roll back with a lower rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from lora_core.engine.averages import after_update
from lora_core.engine.course import Course
from lora_core.engine.network import Network
from lora_core.engine.optimizers import advance
from lora_core.errors import NotFinite
from lora_core.events import Event, Note

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

IN_A_ROW = 3
MOST_ROLLBACKS = 4
SNAPSHOT_EVERY = 20


class Guard:
    """Applies good steps and remembers the last good factors (the optimizer's buffers are twice as large)."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.factors = {k: t.detach().clone() for k, t in network.tensors().items()}

    def remember(self) -> None:
        for name, tensor in self.network.tensors().items():
            self.factors[name].copy_(tensor)

    def judge(self, run: Run, course: Course, loss: float, norm: float) -> Iterator[Event]:
        """Move the parameters when `loss` and `norm` are finite, else skip; the schedule goes on either way.

        Raises NotFinite when rolling back several times did not help.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            course.in_a_row = 0
            step_optimizer(run)
            after_update(run)
            if (course.step + 1) % SNAPSHOT_EVERY == 0:
                self.remember_if_finite()
        else:
            yield from self.skip(run, course, loss)
        advance(run.schedule, course.average if course.losses else loss)

    def skip(self, run: Run, course: Course, loss: float) -> Iterator[Event]:
        """Leave a step out. A gradient scaled for fp16 may overflow, above all in the first steps: the scale falls."""
        course.skipped += 1
        overflow = run.scaler is not None and math.isfinite(loss) and run.scaler.get_scale() > 1
        if run.scaler:
            run.scaler.update()
        if overflow:
            yield Note(f"Step {course.step + 1} was skipped: the gradient overflowed in fp16; its scale was lowered.")
            return
        course.in_a_row += 1
        yield Note(f"Step {course.step + 1} gave a loss or gradient that is not finite and was skipped.", "warning")
        if course.in_a_row >= IN_A_ROW:
            yield from self.roll_back(run, course)

    def remember_if_finite(self) -> None:
        if all(torch.isfinite(t).all() for t in self.network.tensors().values()):
            self.remember()

    def roll_back(self, run: Run, course: Course) -> Iterator[Event]:
        course.in_a_row = 0
        course.rollbacks += 1
        with torch.no_grad():
            for name, tensor in self.network.tensors().items():
                tensor.copy_(self.factors[name])
        run.optimizer.state.clear()
        if course.rollbacks > MOST_ROLLBACKS:
            raise NotFinite(
                f"The loss is still not finite after {MOST_ROLLBACKS} returns to the last good state, each with half "
                "the learning rate. Lower the learning rate, or train in fp32 or bf16 instead of fp16."
            )
        run.schedule.base_lrs = [rate / 2 for rate in run.schedule.base_lrs]
        yield Note(
            f"{IN_A_ROW} steps in a row were not finite: went back to the last good state, halved the learning rate.",
            "warning",
        )


def step_optimizer(run: Run) -> None:
    if run.scaler:
        run.scaler.step(run.optimizer)
        run.scaler.update()
    else:
        run.optimizer.step()
