"""Steps with a loss or gradient that is not finite are skipped; repeated ones roll back with a lower rate."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from lora_core.engine.course import Course
from lora_core.engine.network import Network
from lora_core.errors import NotFinite
from lora_core.events import Event, Note

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

IN_A_ROW = 3
MOST_ROLLBACKS = 4
SNAPSHOT_EVERY = 20


class Guard:
    """Applies good steps and remembers the last good state in memory."""

    def __init__(self, network: Network, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self.factors: dict[str, torch.Tensor] = {}
        self.buffers: dict[str, Any] = {}
        self.remember()

    def remember(self) -> None:
        self.factors = {k: t.detach().clone() for k, t in self.network.tensors().items()}
        self.buffers = copy.deepcopy(self.optimizer.state_dict())

    def judge(self, run: Run, course: Course, loss: float, norm: float) -> Iterator[Event]:
        """Move the parameters when `loss` and `norm` are finite, else skip; the schedule goes on either way.

        Raises NotFinite when rolling back several times did not help.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            course.in_a_row = 0
            step_optimizer(run)
            if course.step % SNAPSHOT_EVERY == 0:
                self.remember_if_finite()
        else:
            course.skipped += 1
            course.in_a_row += 1
            if run.scaler:
                run.scaler.update()
            yield Note(f"Step {course.step + 1} gave a loss or gradient that is not finite and was skipped.", "warning")
            if course.in_a_row >= IN_A_ROW:
                yield from self.roll_back(run, course)
        run.schedule.step()

    def remember_if_finite(self) -> None:
        if all(torch.isfinite(t).all() for t in self.network.tensors().values()):
            self.remember()

    def roll_back(self, run: Run, course: Course) -> Iterator[Event]:
        course.in_a_row = 0
        course.rollbacks += 1
        with torch.no_grad():
            for name, tensor in self.network.tensors().items():
                tensor.copy_(self.factors[name])
        self.optimizer.load_state_dict(copy.deepcopy(self.buffers))
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
