"""Optimizers and schedules: what is asked for is what runs, or a sentence says why not."""

import dataclasses
import math

import pytest
import torch

from lora_core.engine.optimizers import build_optimizer, build_schedule
from lora_core.errors import ConfigError
from lora_core.jobs.train import OPTIMIZERS, SCHEDULES, Optimization


def group(value: float = 1.0) -> list:
    return [{"params": [torch.nn.Parameter(torch.full((4, 4), value))], "lr": 0.01}]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic_or_says_why_not(name):
    groups = group(3.0)
    groups[0]["lr"] = 1.0 if name == "prodigy" else 0.05
    try:
        optimizer, sentence = build_optimizer(Optimization(optimizer=name), groups)
    except ConfigError as error:
        assert name == "prodigy" and "Install prodigyopt" in str(error)
        return
    p = optimizer.param_groups[0]["params"][0]
    for _ in range(40):
        optimizer.zero_grad()
        (p**2).sum().backward()
        optimizer.step()
    assert float(p.detach().abs().max()) < 3.0
    if type(optimizer).__name__.lower() != name:
        assert name in sentence and "AdamW" in sentence


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_runs_and_warms_up(name):
    settings = Optimization(schedule=name, warmup=0.2)
    optimizer, _ = build_optimizer(settings, group())
    schedule = build_schedule(settings, optimizer, 50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert all(math.isfinite(r) and 0 <= r <= 0.01 + 1e-9 for r in rates)
    if name != "constant":
        assert rates[0] == 0 and rates[5] == pytest.approx(0.005, rel=0.01)


def test_cosine_is_the_closed_form():
    settings = Optimization(schedule="cosine", warmup=4)
    optimizer, _ = build_optimizer(settings, group())
    schedule = build_schedule(settings, optimizer, 24)
    rates = []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [0.01 * min(s / 4, 0.5 * (1 + math.cos(math.pi * max(s - 4, 0) / 20))) for s in range(24)]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_an_optimizer_that_is_not_installed_is_replaced_with_a_sentence():
    settings = dataclasses.replace(Optimization(), optimizer="adamw8bit")
    optimizer, sentence = build_optimizer(settings, group())
    assert type(optimizer).__name__ in ("AdamW", "AdamW8bit")
    assert (type(optimizer).__name__ == "AdamW8bit") == (sentence == "")
