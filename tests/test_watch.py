"""The change of the weights while training, against the deltas themselves; early warnings."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_train import drained, job_for

from lora_core.console import Console
from lora_core.engine.course import Course
from lora_core.engine.setup import prepare
from lora_core.engine.watch import Watch
from lora_core.events import Change, Note, event_from_json, event_to_json
from lora_core.run import run


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (60 * i, 255 - 60 * i, 128)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"tag {i}")
    return folder


def prepared(folder: Path, pictures: Path, **values):
    run, _ = drained(prepare(job_for(folder, pictures, **values)))
    for number, parameter in enumerate(run.parameters):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.02
    return run


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_shares_are_those_of_the_deltas(tmp_path, pictures, algorithm):
    run = prepared(tmp_path, pictures, algorithm=algorithm, conv_rank=2)
    shares = Watch(run).shares(run)
    assert len(shares) >= len(run.network.branches) // 8
    for name in list(shares)[::7]:
        branch = run.network.branches[name]
        weight = branch.base_layer.weight
        x = torch.randn(2, *weight.shape[1:2], *(6,) * (weight.dim() - 2))
        assert (branch(x) - branch.base_layer(x)).abs().max() > 0
        delta = delta_by_columns(branch)
        assert shares[name] == pytest.approx(float(delta.norm() / weight.norm()), rel=1e-3), name


def delta_by_columns(branch) -> torch.Tensor:
    """dW of a linear or 1x1 layer from its answers to unit inputs; of a 3x3 one numbers with the same norm."""
    weight, base = branch.base_layer.weight, branch.base_layer
    with torch.no_grad():
        if weight.dim() == 2:
            unit = torch.eye(weight.shape[1])
            return (branch(unit) - base(unit)).T
        spots = torch.zeros(weight.shape[1], weight.shape[1], 9, 9)
        spots[range(len(spots)), range(len(spots)), 4, 4] = 1
        if base.stride[0] == 1:
            return branch(spots) - base(spots)
        shifted = [torch.roll(spots, (dy, dx), (2, 3)) for dy in (0, 1) for dx in (0, 1)]
        return torch.cat([branch(x) - base(x) for x in shifted])


def test_it_looks_some_twenty_times_and_names_blocks(tmp_path, pictures):
    events = list(run(job_for(tmp_path, pictures, steps=20, train_text_encoder=True)))
    found = [e for e in events if isinstance(e, Change)]
    assert [e.step for e in found] == [10, 20] and found[1].mean > found[0].mean > 0
    assert {"text_encoder", "M00", "IN01", "OUT11"} <= found[-1].blocks.keys()
    assert event_from_json(event_to_json(found[0])) == found[0]


@pytest.mark.parametrize(("scale", "words"), [(1e-4, "hardly learns"), (1.0, ""), (100.0, "it burns")])
def test_what_is_wrong_is_said_once(tmp_path, pictures, scale, words):
    run = prepared(tmp_path, pictures, steps=40, train_text_encoder=False)
    for parameter in run.parameters:
        parameter.data.mul_(scale)
    watch = Watch(run)
    notes = [e.text for step in (20, 30, 40) for e in watch.look(run, Course(0, 0.0, step)) if isinstance(e, Note)]
    assert len(notes) == bool(words) and all(words in note for note in notes)


def test_too_little_is_told_after_a_tenth_of_the_steps_and_not_in_the_warm_up(tmp_path, pictures):
    run = prepared(tmp_path, pictures, steps=400, train_text_encoder=False, warmup=0.1)
    for parameter in run.parameters:
        parameter.data.mul_(1e-5)
    watch = Watch(run)
    told = [step for step in range(20, 401, 20) for e in watch.look(run, Course(0, 0.0, step)) if isinstance(e, Note)]
    assert told == [80]


def test_a_slow_start_that_leads_somewhere_is_no_alarm(tmp_path, pictures):
    """At a tenth of the steps a tenth of a small change that is still worth having."""
    run = prepared(tmp_path, pictures, steps=400, train_text_encoder=False)
    shares = Watch(run).shares(run)
    mean = sum(shares.values()) / len(shares)
    for parameter in run.parameters:
        parameter.data.mul_((3e-5 / mean) ** 0.5)
    assert not [e for e in Watch(run).look(run, Course(0, 0.0, 40)) if isinstance(e, Note)]


def test_the_command_line_shows_it(tmp_path):
    stream = io.StringIO()
    Console(stream).show(Change(40, 0.0412, {"IN01": 0.02, "OUT05": 0.081}))
    assert stream.getvalue() == "  step 40: the weights have moved by 4.12%, most in OUT05 (8.10%)\n"
