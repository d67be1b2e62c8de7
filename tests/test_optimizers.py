"""Optimizers and schedules: what is asked for is what runs, or a sentence says why not."""

import dataclasses
import math

import pytest
import torch

from lora_core.engine.learning_rates import build_schedule
from lora_core.engine.optimizers import RECIPES, advance, build_optimizer, rate_of
from lora_core.errors import ConfigError
from lora_core.jobs import TrainJob
from lora_core.jobs.optimization import OPTIMIZERS, SCHEDULES, SELF_TUNING, Optimization
from lora_core.known_classes import class_faults


def group(value: float = 1.0) -> list:
    return [{"params": [torch.nn.Parameter(torch.full((4, 4), value))], "lr": 0.01}]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic_or_says_why_not(name):
    groups = group(3.0)
    groups[0]["lr"] = 1.0 if name in SELF_TUNING else 0.05
    try:
        optimizer, sentence = build_optimizer(Optimization(optimizer=name, warmup=0), groups, 100)
    except ConfigError as error:
        assert name in SELF_TUNING and "Install" in str(error)
        return
    p = optimizer.param_groups[0]["params"][0]
    for _ in range(100):
        optimizer.zero_grad()
        (p**2).sum().backward()
        optimizer.step()
    assert float(p.detach().abs().max()) < 3.0
    assert type(optimizer).__name__.lower() == name or f"{name} cannot be used here" in sentence


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_runs_and_warms_up(name):
    rules = ("step_rules = 1:10,0.1:20,0.01",) if name == "piecewise_constant" else ()
    settings = Optimization(schedule=name, warmup=0.2, schedule_args=rules)
    optimizer, _ = build_optimizer(settings, group(), 50)
    schedule = build_schedule(settings, optimizer, 50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        advance(schedule, 1.0)
    assert all(math.isfinite(r) and 0 <= r <= 0.01 + 1e-9 for r in rates)
    if name not in ("constant", "piecewise_constant", "reduce_lr_on_plateau"):
        assert rates[0] == 0 and rates[5] == pytest.approx(0.005, rel=0.01)


def test_cosine_is_the_closed_form():
    settings = Optimization(schedule="cosine", warmup=4)
    optimizer, _ = build_optimizer(settings, group(), 50)
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
    optimizer, sentence = build_optimizer(settings, group(), 50)
    assert type(optimizer).__name__ in ("AdamW", "AdamW8bit")
    assert (type(optimizer).__name__ == "AdamW8bit") == (sentence == "")


def test_every_named_optimizer_has_a_recipe():
    assert set(OPTIMIZERS) == set(RECIPES)
    assert all(recipe.fallback in {*OPTIMIZERS, ""} for recipe in RECIPES.values())


def test_a_class_by_name_with_arguments_is_that_class_with_those_arguments():
    settings = Optimization(optimizer_class="ASGD", optimizer_args=("t0 = 10", "lambd=0.5"), weight_decay=0.3)
    optimizer, sentence = build_optimizer(settings, group(), 50)
    assert type(optimizer) is torch.optim.ASGD and sentence == ""
    held = optimizer.param_groups[0]
    assert (held["t0"], held["lambd"], held["weight_decay"], held["lr"]) == (10, 0.5, 0.3, 0.01)


def named(**values):
    return class_faults(dataclasses.replace(TrainJob(), optimization=Optimization(**values)))


def test_pages_and_requests_name_only_classes_of_known_packages():
    """Importing a module runs it: what a stranger names must be known before."""
    for path in [recipe.path for recipe in RECIPES.values()] + ["ASGD", "pytorch_optimizer.Ranger21", ""]:
        assert named(optimizer_class=path) == []
    for path in ("CosineAnnealingWarmRestarts", "torch.optim.lr_scheduler.StepLR", "pytorch_optimizer.REXScheduler"):
        assert named(schedule_class=path) == []
    strange = ["os.system", "antigravity.X", "torch.hub.X", "torch.optimal.X", "pytorch_optimizers.X", "torch.optim..X"]
    for path in (*strange, "bitsandbytes.optim.__main__.X", "a b", "torch.optim.\n", "x/y.z", "."):
        assert "optimizer_class" in named(optimizer_class=path)[0], path
        assert "schedule_class" in named(schedule_class=path)[0], path


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer_args": ("colour = red",)}, "AdamW takes no colour"),
        ({"optimizer_class": "torch.optim.Nothing"}, "Nothing"),
        ({"optimizer_class": "torch.nn.Linear"}, "is no Optimizer class"),
    ],
)
def test_wrong_optimizers_are_errors(values, words):
    with pytest.raises(ConfigError, match=words):
        build_optimizer(Optimization(**values), group(), 50)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schedule_class": "NoSuchSchedule"}, "There is no schedule class"),
        ({"schedule_class": "StepLR", "schedule_args": ("size = 3",)}, "takes no size"),
        ({"schedule_class": "StepLR"}, "cannot be made"),
        ({"schedule": "piecewise_constant"}, "step_rules"),
        ({"schedule": "cosine", "schedule_args": ("a = 1",)}, "takes no arguments"),
    ],
)
def test_wrong_schedules_are_errors(values, words):
    settings = Optimization(**values)
    optimizer, _ = build_optimizer(settings, group(), 50)
    with pytest.raises(ConfigError, match=words):
        build_schedule(settings, optimizer, 50)


def test_a_schedule_of_torch_by_name_is_torchs():
    settings = Optimization(schedule_class="StepLR", schedule_args=("step_size = 2", "gamma = 0.5"))
    optimizer, _ = build_optimizer(settings, group(), 50)
    schedule = build_schedule(settings, optimizer, 50)
    rates = []
    for _ in range(6):
        rates.append(rate_of(optimizer))
        optimizer.step()
        advance(schedule, 0.0)
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025])


def test_a_plateau_of_the_loss_lowers_the_rate_and_progress_does_not():
    settings = Optimization(schedule="reduce_lr_on_plateau", schedule_args=("patience = 3", "factor = 0.1"))
    for losses, expected in (([1.0 / (i + 1) for i in range(8)], 0.01), ([1.0] * 6, 0.001)):
        optimizer, _ = build_optimizer(settings, group(), 50)
        schedule = build_schedule(settings, optimizer, 50)
        for loss in losses:
            optimizer.step()
            advance(schedule, loss)
        assert rate_of(optimizer) == pytest.approx(expected)


def test_the_last_part_of_warmup_stable_decay_is_as_long_as_asked():
    settings = Optimization(schedule="warmup_stable_decay", warmup=10, decay_steps=0.25)
    optimizer, _ = build_optimizer(settings, group(), 100)
    schedule = build_schedule(settings, optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(rate_of(optimizer))
        optimizer.step()
        schedule.step()
    whole = [i for i, rate in enumerate(rates) if rate == pytest.approx(0.01)]
    assert (whole[0], whole[-1]) == (10, 75)


def test_adafactor_finds_its_own_rate_when_asked():
    settings = Optimization(optimizer="adafactor", optimizer_args=("relative_step = True", "warmup_init = True"))
    optimizer, sentence = build_optimizer(settings, group(3.0), 50)
    schedule = build_schedule(settings, optimizer, 50)
    rates = []
    for _ in range(3):
        (optimizer.param_groups[0]["params"][0] ** 2).sum().backward()
        optimizer.step()
        advance(schedule, 0.0)
        rates.append(rate_of(optimizer))
    assert sentence == "" and rates == pytest.approx([1e-6 * n for n in (1, 2, 3)], rel=1e-6)
