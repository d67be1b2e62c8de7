"""The recipe end to end on tiny models of the true topology."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_core.commands import Commands
from lora_core.engine import saving
from lora_core.engine.setup import prepare
from lora_core.engine.step import batch_loss, batches_of, one_step
from lora_core.errors import DiskFull, LoomError
from lora_core.events import Finished, Loss, Note, Preview, Saved
from lora_core.jobs import TrainJob
from lora_core.run import run
from lora_core.settings import replace_by_name
from lora_core.tensors import data_hash, read_header

MODULES = {"sd15": (192, 264), "sdxl": (722, 986)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        Image.new("RGB", (64 + 32 * (i % 2), 64), (60 * i, 255 - 60 * i, 128)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"one, two, tag {i}")
    return folder


def job_for(folder: Path, pictures: Path, kind: str = "sd15", **values) -> TrainJob:
    job = TrainJob(base=str(tiny.checkpoint(kind)), name="tiny", output_dir=str(folder))
    small = {
        "folder": str(pictures), "width": 64, "height": 64, "bucket_step": 32, "min_bucket": 64, "rank": 4,
        "alpha": 4.0, "learning_rate": 1e-3, "steps": 6, "dtype": "fp32", "save_precision": "fp32", "trigger": "armin",
    }  # fmt: skip
    return replace_by_name(job, small | values)


def drained(generator):
    """What a generator returns, its events thrown away."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def losses(events: list) -> list[float]:
    return [e.loss for e in events if isinstance(e, Loss) and e.loss is not None]


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("text", [False, True])
def test_a_training_writes_every_module_and_says_so(kind, text, tmp_path, pictures):
    job = job_for(tmp_path, pictures, kind, train_text_encoder=text, shuffle=text, steps=2)
    events = list(run(job))
    end = events[-1]
    assert isinstance(end, Finished) and not end.stopped
    header = read_header(Path(end.outputs[0]))
    assert len(header.tensors) == 3 * MODULES[kind][text]
    assert header.metadata["ss_steps"] == "2" and header.metadata["ss_output_name"] == "tiny"
    assert header.metadata["sshs_model_hash"] == data_hash(end.outputs[0])
    assert str(tmp_path) not in json.dumps(header.metadata)
    tensors = load_file(end.outputs[0])
    assert all(float(t.abs().max()) > 0 for n, t in tensors.items() if n.endswith("lora_up.weight") and "unet" in n)


def test_convolutions_get_their_own_rank(tmp_path, pictures):
    job = job_for(tmp_path, pictures, conv_rank=2, conv_alpha=1.0, steps=1, train_text_encoder=False)
    tensors = load_file(list(run(job))[-1].outputs[0])
    assert len(tensors) == 3 * 278
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert tensors[f"{conv}.lora_down.weight"].shape[0] == 2 and float(tensors[f"{conv}.alpha"]) == 1
    assert tensors["lora_unet_down_blocks_0_resnets_0_time_emb_proj.lora_down.weight"].shape[0] == 4


def test_the_loss_falls_when_one_picture_is_learned_by_heart(tmp_path, pictures):
    for path in pictures.glob("*.png"):  # the same pictures in other bytes: what is learned by heart shows there
        Image.open(path).save(tmp_path / path.with_suffix(".bmp").name)
        (tmp_path / path.with_suffix(".txt").name).write_text(path.with_suffix(".txt").read_text())
    job = job_for(tmp_path / "out", pictures, steps=60, learning_rate=5e-3, min_snr_gamma=0.0, held_out=str(tmp_path))
    job = replace_by_name(job, {"schedule": "constant", "warmup": 0.0, "validate_every_steps": 60})
    events = list(run(job))
    measured = [e.held_out for e in events if isinstance(e, Loss) and e.held_out is not None]
    assert len(measured) == 2 and measured[-1] < 0.97 * measured[0]


def test_the_same_job_gives_the_same_bytes_and_another_seed_others(tmp_path, pictures):
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        job = job_for(tmp_path / name, pictures, seed=seed, steps=3, dropout=0.1)
        hashes.append(data_hash(list(run(job))[-1].outputs[0]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_accumulation_has_the_gradient_of_the_mean_loss(tmp_path, pictures):
    job = job_for(tmp_path, pictures, accumulation=2, max_grad_norm=0.0)
    prepared = drained(prepare(job))[0]
    loss, _ = one_step(prepared, 0)
    accumulated = [p.grad.clone() for p in prepared.parameters if p.grad is not None]
    prepared.optimizer.zero_grad()
    epoch, batches = batches_of(prepared, 0)
    each = [batch_loss(prepared, batch, epoch, 0, micro) for micro, batch in enumerate(batches)]
    mean = torch.stack(each).mean()
    expected = torch.autograd.grad(mean, prepared.parameters, allow_unused=True)
    assert len(batches) == 2 and loss == pytest.approx(float(mean.detach()), rel=1e-6)
    for a, b in zip(accumulated, (g for g in expected if g is not None), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_stop_keeps_the_lora_and_a_state_from_which_it_goes_on_bit_for_bit(tmp_path, pictures):
    whole = list(run(job_for(tmp_path / "whole", pictures)))
    job = job_for(tmp_path / "parts", pictures)
    parts: list[float] = []
    averages: list[float] = []
    for end in (2, 4, 6):
        commands = Commands()
        events = []
        for event in run(job, commands):
            events.append(event)
            if isinstance(event, Loss) and event.step == end and end < 6:
                commands.stop = True
        parts += losses(events)
        averages += [e.average for e in events if isinstance(e, Loss)]
        assert events[-1].stopped == (end < 6) and Path(events[-1].outputs[0]).exists()
    assert parts == losses(whole)
    assert averages == [e.average for e in whole if isinstance(e, Loss)]  # over all steps, across the resumes
    assert data_hash(events[-1].outputs[0]) == data_hash(whole[-1].outputs[0])
    assert not (tmp_path / "parts" / "tiny.loom" / "state.safetensors").exists()


def test_save_now_sample_now_and_periodic_saves_have_their_own_names(tmp_path, pictures):
    job = job_for(tmp_path, pictures, save_every_steps=2, preview_prompts=("armin",), preview_steps=2)
    commands, seen = Commands(), []
    for event in run(job, commands):
        seen.append(event)
        if isinstance(event, Loss) and event.step == 3:
            commands.save = commands.sample = True
    names = [Path(e.path).name for e in seen if isinstance(e, Saved) and e.kind == "lora"]
    assert names == [
        "tiny-000002.safetensors",
        "tiny-000003.safetensors",
        "tiny-000004.safetensors",
        "tiny.safetensors",
    ]
    previews = [e for e in seen if isinstance(e, Preview)]
    assert len(previews) == 1 and Image.open(previews[0].path).size == (64, 64)


def test_a_name_of_another_run_is_never_overwritten(tmp_path, pictures):
    first = list(run(job_for(tmp_path, pictures, steps=1)))[-1].outputs[0]
    before = Path(first).read_bytes()
    second = list(run(job_for(tmp_path, pictures, steps=1, seed=5)))[-1].outputs[0]
    assert Path(second).name == "tiny-2.safetensors" and Path(first).read_bytes() == before


def test_cached_text_gives_the_same_losses_as_live_text(tmp_path, pictures):
    fixed = {"train_text_encoder": False, "shuffle": False, "steps": 3}
    live = list(run(job_for(tmp_path / "live", pictures, cache_text=False, **fixed)))
    cached = list(run(job_for(tmp_path / "cached", pictures, **fixed)))
    again = list(run(replace_by_name(job_for(tmp_path / "cached", pictures, **fixed), {"name": "again"})))
    assert losses(live) == pytest.approx(losses(cached), abs=1e-6)
    assert losses(cached) == losses(again)


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path, pictures):
    plain = list(run(job_for(tmp_path / "a", pictures, steps=2)))
    saved = list(run(job_for(tmp_path / "b", pictures, steps=2, gradient_checkpointing=True)))
    assert losses(plain) == pytest.approx(losses(saved), rel=1e-5)


def test_start_from_continues_the_factors_of_a_file(tmp_path, pictures):
    first = list(run(job_for(tmp_path / "a", pictures, steps=2, rank=3, alpha=2.0)))[-1].outputs[0]
    job = job_for(tmp_path / "b", pictures, steps=1, start_from=first, learning_rate=1e-12, text_encoder_lr=1e-12)
    second = list(run(job))[-1].outputs[0]
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[k], b[k], atol=1e-7) for k in a)


def test_bad_steps_are_skipped_rolled_back_and_never_saved(tmp_path, pictures, monkeypatch):
    from lora_core.engine import step

    real = step.training_loss
    count = iter(range(1000))
    monkeypatch.setattr(step, "training_loss", lambda *a: real(*a) * (float("nan") if 2 <= next(count) < 6 else 1.0))
    events = list(run(job_for(tmp_path, pictures, steps=10)))
    notes = " ".join(e.text for e in events if isinstance(e, Note))
    assert "skipped" in notes and "went back" in notes
    assert events[-1].report["skipped_steps"] == 4 and events[-1].report["rollbacks"] == 1
    assert all(torch.isfinite(t).all() for t in load_file(events[-1].outputs[0]).values())


def test_a_crash_in_the_middle_keeps_what_was_trained(tmp_path, pictures, monkeypatch):
    from lora_core.engine import step

    real, count = step.training_loss, iter(range(1000))

    def failing(*a):
        if next(count) == 4:
            raise RuntimeError("the graphics driver went away")
        return real(*a)

    monkeypatch.setattr(step, "training_loss", failing)
    events = []
    with pytest.raises(RuntimeError, match="driver"):
        for event in run(job_for(tmp_path, pictures)):
            events.append(event)
    kept = [e for e in events if isinstance(e, Saved) and e.kind == "lora"]
    assert Path(kept[-1].path).name == "tiny-000004.safetensors" and Path(kept[-1].path).exists()
    assert (tmp_path / "tiny.loom" / "state.safetensors").exists()


def test_a_last_save_that_fails_keeps_a_state_from_which_it_is_made_up_for(tmp_path, pictures, monkeypatch):
    real, full = saving.write_kohya_tensors, iter((True, True))

    def failing(*a):
        if next(full, False):
            raise DiskFull("No room left.")
        real(*a)

    monkeypatch.setattr(saving, "write_kohya_tensors", failing)
    job = job_for(tmp_path, pictures, steps=2, state_every_steps=0, train_text_encoder=False)
    with pytest.raises(DiskFull):
        list(run(job))
    events = list(run(job))
    assert any("Resuming from step 2" in e.text for e in events if isinstance(e, Note))
    assert Path(events[-1].outputs[0]).name == "tiny.safetensors" and not losses(events)


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise on Windows")
def test_wrong_places_are_said_before_any_work(tmp_path, pictures):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for job, words in (
        (job_for(blocked / "below", pictures), "cannot be written to"),
        (replace_by_name(job_for(tmp_path, pictures), {"base": str(blocked)}), "file"),
        (
            replace_by_name(job_for(tmp_path, pictures), {"base": str(tmp_path / "none.safetensors")}),
            "none.safetensors",
        ),
        (replace_by_name(job_for(tmp_path, pictures), {"folder": str(tmp_path / "nowhere")}), "nowhere"),
        (job_for(tmp_path, pictures, "sd15-inpaint"), "inpainting model"),
        (job_for(tmp_path, pictures, "refiner"), "refiner"),
    ):
        with pytest.raises(LoomError, match=words):
            list(run(job))
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_a_full_disk_is_said_before_the_first_step(tmp_path, pictures, monkeypatch):
    from lora_core.engine import folders_check

    monkeypatch.setattr(folders_check.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskFull, match="MB left"):
        list(run(job_for(tmp_path, pictures)))


def test_half_written_files_of_a_killed_run_are_swept_away(tmp_path, pictures):
    old, new, other = (tmp_path / name for name in (".tiny.safetensors.aa.tmp", ".tiny.safetensors.bb.tmp", ".x.tmp"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    list(run(job_for(tmp_path, pictures, steps=1)))
    assert not old.exists() and new.exists() and other.exists()


def test_two_runs_of_one_job_do_not_share_a_working_folder(tmp_path, pictures):
    first = run(job_for(tmp_path, pictures, steps=1))
    next(first)
    with pytest.raises(LoomError, match="Another training"):
        list(run(job_for(tmp_path, pictures, steps=1)))
    assert isinstance(list(first)[-1], Finished)


def test_a_base_that_was_moved_still_resumes(tmp_path, pictures):
    job = job_for(tmp_path / "out", pictures, steps=4)
    commands = Commands()
    for event in run(job, commands):
        commands.stop = commands.stop or (isinstance(event, Loss) and event.step == 2)
    moved = tmp_path / "moved.safetensors"
    shutil.copy(job.base, moved)
    events = list(run(replace_by_name(job, {"base": str(moved), "gradient_checkpointing": True})))
    assert any("Resuming from step 2" in e.text for e in events if isinstance(e, Note))
