"""A time budget: the steps that fit, measured once, the same after an interruption; nothing else changes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_train import drained, job_for, losses

from lora_core.commands import Commands
from lora_core.engine import pace
from lora_core.engine.setup import prepare
from lora_core.errors import ConfigError
from lora_core.events import Finished, Loss, Note
from lora_core.run import run


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (60 * i, 255 - 60 * i, 128)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"tag {i}")
    return folder


def small(folder: Path, pictures: Path, **values):
    fixed = {"steps": 40, "time_budget": 1.0, "train_text_encoder": False, "state_every_steps": 0, "warmup": 0.0}
    return job_for(folder, pictures, **{**fixed, **values})


@pytest.fixture
def clock(monkeypatch):
    """A machine on which a step takes eight seconds, and the preparation no time."""
    monkeypatch.setattr(pace, "seconds_per_step", lambda run: 8.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr("lora_core.engine.setup.time.monotonic", lambda: 0.0)


def test_as_many_steps_as_fit_with_the_schedule_of_so_many(tmp_path, pictures, clock):
    events = list(run(small(tmp_path / "a", pictures, save_every_steps=20)))
    assert events[-1].report["steps"] == 7  # 7 x 8 s of 57 s
    told = [e for e in events if isinstance(e, Note) and "7 of the 40 steps fit into 60 seconds" in e.text]
    assert len(told) == 1 and told[0].level == "warning"
    assert events[-1].report["saves"] == [4]  # half of the way, as asked for
    plain = list(run(small(tmp_path / "b", pictures, time_budget=0.0, steps=7)))
    assert losses(events) == losses(plain)
    rates = [[e.learning_rate for e in found if isinstance(e, Loss)] for found in (events, plain)]
    assert rates[0] == pytest.approx(rates[1]) and rates[0][-1] < rates[0][0]


def test_all_steps_where_they_fit(tmp_path, pictures, clock):
    events = list(run(small(tmp_path, pictures, steps=5)))
    assert events[-1].report["steps"] == 5
    assert any(isinstance(e, Note) and "all 5 steps fit" in e.text for e in events)


def test_a_run_that_goes_on_keeps_its_length(tmp_path, pictures, clock, monkeypatch):
    commands = Commands()
    first = []
    for event in run(small(tmp_path, pictures), commands):
        first.append(event)
        commands.stop = commands.stop or (isinstance(event, Loss) and event.step == 3)
    assert first[-1].stopped and json.loads((tmp_path / "tiny.loom" / "pace.json").read_text())["steps"] == 7
    monkeypatch.setattr(pace, "seconds_per_step", lambda run: 1.0)
    second = list(run(small(tmp_path, pictures)))
    assert any(isinstance(e, Note) and "Resuming from step 3 of 7" in e.text for e in second)
    assert isinstance(second[-1], Finished) and second[-1].report["steps"] == 7
    assert not (tmp_path / "tiny.loom" / "pace.json").exists()


def test_too_little_time_is_a_sentence(tmp_path, pictures, clock):
    with pytest.raises(ConfigError, match=r"one takes 8\.0 seconds"):
        list(run(small(tmp_path, pictures, time_budget=0.1)))


def test_previews_that_would_take_most_of_the_time_are_left_out(tmp_path, pictures, clock):
    events = list(run(small(tmp_path, pictures, preview_every_steps=1, preview_steps=20)))
    assert events[-1].report["steps"] == 7 and not list(tmp_path.glob("tiny.loom/previews/*"))
    assert any(isinstance(e, Note) and "previews are left out" in e.text for e in events)


def test_measuring_leaves_the_parameters_alone(tmp_path, pictures):
    prepared, _ = drained(prepare(small(tmp_path, pictures, time_budget=0.0)))
    before = {name: tensor.clone() for name, tensor in prepared.network.tensors().items()}
    assert pace.seconds_per_step(prepared) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in prepared.network.tensors().items())
    assert all(p.grad is None for p in prepared.parameters)
