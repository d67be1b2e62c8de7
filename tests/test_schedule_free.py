"""Optimizers with an average of their own: saved, drawn and measured as the average, trained as the other."""

import shutil

import averaging_sgd
import pytest
import torch
from averaging_sgd import modes
from safetensors.torch import load_file
from test_train import drained, job_for, losses, pictures  # noqa: F401

from lora_core.engine import preview, validation
from lora_core.engine.setup import prepare
from lora_core.events import Finished, Loss, Saved
from lora_core.run import run
from lora_core.tensors import data_hash


@pytest.fixture
def job(tmp_path, pictures):  # noqa: F811
    values = {"optimizer_class": "averaging_sgd.AveragingSGD", "learning_rate": 0.5, "train_text_encoder": False}
    values |= {"steps": 4, "save_every_steps": 2, "state_every_steps": 1, "validate_every_steps": 2}
    return lambda name: job_for(tmp_path / name, pictures, **values, validation_split=0.4)


def test_a_killed_training_goes_on_to_the_same_bytes(job, tmp_path):
    whole = list(run(job("whole")))
    parts = []
    for event in run(job("killed")):  # what kill -9 leaves: the files of this moment
        parts.append(event)
        if isinstance(event, Saved) and event.kind == "state" and event.step == 2:
            shutil.copytree(tmp_path / "killed", tmp_path / "left")
            break
    shutil.rmtree(tmp_path / "killed")
    (tmp_path / "left").rename(tmp_path / "killed")
    rest = list(run(job("killed")))
    assert isinstance(rest[-1], Finished) and losses(parts)[:2] + losses(rest) == losses(whole)
    held_out = [[e.held_out for e in events if isinstance(e, Loss)] for events in (whole, rest)]
    assert held_out[1] == held_out[0][-len(held_out[1]) :]
    assert data_hash(rest[-1].outputs[0]) == data_hash(whole[-1].outputs[0])


def test_files_and_measurements_are_of_the_average_and_steps_of_the_other(job, monkeypatch):
    made, measured, init = [], [], averaging_sgd.AveragingSGD.__init__
    spy = validation.held_out_loss
    monkeypatch.setattr("lora_core.engine.train.held_out_loss", lambda run: measured.append(run) or spy(run))
    monkeypatch.setattr(averaging_sgd.AveragingSGD, "__init__", lambda o, *a, **k: made.append(o) or init(o, *a, **k))
    modes.clear()
    events = list(run(job("a")))
    assert modes.count("step") == 4 + 1 and modes[-1] == "train"  # one step is a trial
    turned = [mode for mode in modes if mode != "step"]
    assert "evaleval" not in "".join(turned) and turned[-2:] == ["eval", "train"]
    saves = [e for e in events if isinstance(e, Saved) and e.kind == "lora"]
    assert len(saves) == 2 and turned.count("eval") >= len(saves) + len(measured) >= 5
    average = sorted(float(state["x"].norm()) for state in made[-1].state.values())
    live = sorted(float(p.detach().norm()) for p in made[-1].state)
    saved = sorted(float(t.norm()) for name, t in load_file(saves[-1].path).items() if not name.endswith("alpha"))
    assert saved == pytest.approx(average, rel=1e-5) and saved != pytest.approx(live, rel=1e-4)


def test_previews_are_drawn_with_the_average(job, monkeypatch):
    prepared, course = drained(prepare(job("a")))
    from lora_core.engine.guard import Guard
    from lora_core.engine.step import one_step

    guard = Guard(prepared.network)
    for step in range(2):
        list(guard.judge(prepared, course, *one_step(prepared, step)))
        course.step += 1
    average = {id(p): state["x"].clone() for p, state in prepared.optimizer.state.items()}
    live = [p.detach().clone() for p in prepared.parameters]
    drawn = []

    def draw(loaded, request):
        drawn.append(all(torch.equal(p, average[id(p)]) for p in prepared.parameters if id(p) in average))
        raise RuntimeError("enough")

    monkeypatch.setattr(preview, "sample_pictures", draw)
    monkeypatch.setattr(preview, "models_of", lambda run: None)
    list(preview.draw_previews(prepared, 2))
    assert drawn == [True] and all(torch.equal(p, before) for p, before in zip(prepared.parameters, live))
