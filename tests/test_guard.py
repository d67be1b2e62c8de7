"""Bad steps: what counts as one, and that dropout is off where it must be."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lora_core.engine.branch import lora_layer
from lora_core.engine.course import Course
from lora_core.engine.guard import Guard
from lora_core.engine.network import Network, Size, without_dropout
from lora_core.jobs.network import Network as Settings


class Scaler:
    """Stands for torch's GradScaler, which needs a GPU."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale

    def update(self) -> None:
        self.scale /= 2


def run_with(scaler: Scaler | None) -> SimpleNamespace:
    branch = lora_layer(nn.Linear(3, 4), Size(2, 2.0), Settings())
    branch.begin(torch.Generator())
    network = Network({"unet.a": branch})
    optimizer = torch.optim.SGD([branch.down, branch.up], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    return SimpleNamespace(network=network, optimizer=optimizer, schedule=schedule, scaler=scaler)


@pytest.mark.parametrize(
    ("scaler", "loss", "rollbacks"),
    [(Scaler(65536.0), 0.1, 0), (Scaler(65536.0), float("nan"), 1), (Scaler(1.0), 0.1, 1), (None, 0.1, 1)],
    ids=["fp16 overflow", "fp16 NaN loss", "fp16 at the least scale", "fp32"],
)
def test_an_overflow_of_scaled_gradients_lowers_the_scale_and_not_the_rate(scaler, loss, rollbacks):
    run, course = run_with(scaler), Course(session=0, started_at=0.0)
    guard = Guard(run.network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of a schedule that goes on before the first step
        for _ in range(3):
            list(guard.judge(run, course, loss, float("inf")))
    assert course.skipped == 3 and course.rollbacks == rollbacks
    assert run.schedule.base_lrs == [0.5**rollbacks] * len(run.schedule.base_lrs)


def test_nothing_is_dropped_inside_and_the_modes_come_back():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Dropout(0.5)).eval()
    model[1].train()
    with without_dropout([model]):
        assert not model[1].training
    assert [m.training for m in model] == [False, True, False]
