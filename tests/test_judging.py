"""Judged saves: when a training ends early, which save becomes the LoRA, and what is written down about it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_train import drained, job_for

from lora_core.engine import judging, verdict
from lora_core.engine.course import Course
from lora_core.engine.judging import Judge, best_save, subject_prompts
from lora_core.engine.setup import prepare
from lora_core.errors import DiskFull
from lora_core.events import Finished, Note
from lora_core.jobs import TrainJob
from lora_core.recommend import CellScore
from lora_core.run import run
from lora_core.tensors import data_hash, read_header


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (60 * i, 255 - 60 * i, 128)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"armin, tag {i}")
    return folder


def course_of(folder: Path, *figures: tuple[float | None, float | None]) -> Course:
    """A course with a save every ten steps of these likenesses and held-out losses; the base's loss is 0.5."""
    course = Course(1, 0.0, held_out=[(0, 0.5)])
    for number, (likeness, loss) in enumerate(figures, 1):
        path = folder / f"me-{number:06d}.safetensors"
        path.touch()
        course.looks.append(CellScore(str(path), 10 * number, 1.0, loss, likeness))
        course.step = 10 * number
    return course


def ending(course: Course, patience: int, total: int = 1000) -> str:
    job = SimpleNamespace(saves=SimpleNamespace(early_stop=patience))
    return judging.verdict(SimpleNamespace(job=job, total_steps=total), course)


def test_it_ends_when_saves_no_longer_get_better(tmp_path):
    rising = [(0.2, 0.4), (0.6, 0.3), (0.9, 0.2)]
    assert ending(course_of(tmp_path, *rising), 2) == ""
    worse = [*rising, (0.9, 0.22), (0.91, 0.25)]
    told = ending(course_of(tmp_path, *worse), 2)
    assert "ends after 50 of 1000 steps" in told and "that of step 30" in told and "likeness 90%" in told
    assert ending(course_of(tmp_path, *worse), 3) == ending(course_of(tmp_path, *worse), 0) == ""
    assert ending(course_of(tmp_path, *worse), 2, total=50) == ""


def test_a_growing_likeness_goes_on_though_the_loss_rises_a_little(tmp_path):
    assert ending(course_of(tmp_path, (0.4, 0.20), (0.6, 0.21), (0.8, 0.22)), 1) == ""


def test_nothing_ends_before_something_is_learned(tmp_path):
    flat = course_of(tmp_path, (0.05, 0.45), (0.04, 0.45), (0.05, 0.45), (0.06, 0.45))
    assert ending(flat, 1) == ""
    assert best_save(flat).step == 40


def test_without_likeness_the_loss_decides_and_without_loss_the_likeness(tmp_path):
    assert "step 20" in ending(course_of(tmp_path, (None, 0.3), (None, 0.2), (None, 0.25), (None, 0.3)), 2)
    assert "step 20" in ending(course_of(tmp_path, (0.5, None), (0.9, None), (0.7, None), (0.6, None)), 2)


def test_a_save_that_was_deleted_is_not_the_best(tmp_path):
    course = course_of(tmp_path, (0.4, 0.3), (0.9, 0.2), (0.7, 0.3))
    Path(course.looks[1].file).unlink()
    assert best_save(course).step == 30


def test_judged_saves_survive_a_resume(tmp_path):
    course = course_of(tmp_path, (0.4, 0.3), (None, 0.2))
    again = Course.from_json(json.loads(json.dumps(course.to_json())), course.step)
    assert again.looks == course.looks


@pytest.fixture
def strength(monkeypatch):
    """The comparison of strengths stands still; it has tests of its own."""
    chosen = {"strength": 0.8}
    seen = []

    def choose(job, commands):
        seen.append(job)
        yield Finished((), {"recommendation": chosen} if chosen else {})

    monkeypatch.setattr(verdict, "choose", choose)
    return SimpleNamespace(chosen=chosen, seen=seen)


def judged_run(folder: Path, pictures: Path, monkeypatch, likenesses: list[float], **values):
    """A training of tiny steps whose saves look as told, in turn."""
    told = iter(likenesses)
    monkeypatch.setattr(Judge, "likeness", lambda self, run: next(told))
    small = {"steps": 8, "save_every_steps": 1, "train_text_encoder": False, "state_every_steps": 0, "preview_steps": 1}
    return list(run(job_for(folder, pictures, **{**small, **values})))


def test_the_best_save_becomes_the_lora_with_its_strength(tmp_path, pictures, monkeypatch, strength):
    out = tmp_path / "out"
    events = judged_run(out, pictures, monkeypatch, [0.3, 0.9, 0.5, 0.4, 0.4], early_stop=2)
    end = events[-1]
    assert any(isinstance(e, Note) and "ends after 4 of 8 steps" in e.text for e in events)
    assert not end.stopped and [Path(p).name for p in end.outputs] == ["tiny.safetensors"]
    assert end.report["recommended"] == {"step": 2, "likeness": 0.9, "held_out": None, "strength": 0.8}
    assert sorted(p.name for p in out.glob("*.safetensors")) == [
        *(f"tiny-{n:06d}.safetensors" for n in (1, 2, 3, 4)), "tiny.safetensors",
    ]  # fmt: skip
    best, second = load_file(out / "tiny.safetensors"), load_file(out / "tiny-000002.safetensors")
    assert all(torch.equal(best[name], second[name]) for name in second)
    metadata = read_header(out / "tiny.safetensors").metadata
    assert (metadata["ss_output_name"], metadata["ss_steps"]) == ("tiny", "2")
    assert metadata["loraloom.likeness"] == "0.9000" and metadata["loraloom.recommended_strength"] == "0.8"
    assert "ends after 4 of 8 steps" in metadata["loraloom.ended_early"]
    assert metadata["sshs_model_hash"] == data_hash(out / "tiny.safetensors")
    sidecar = json.loads((out / "tiny.json").read_text())
    assert sidecar["preferred weight"] == 0.8 and sidecar["activation text"] == "armin"
    assert not (out / "tiny.loom" / "state.safetensors").exists()
    assert strength.seen[0].loras == end.outputs and "armin" in strength.seen[0].prompts[0]


def test_the_last_save_stays_where_it_is_the_best(tmp_path, pictures, monkeypatch, strength):
    out = tmp_path / "out"
    events = judged_run(out, pictures, monkeypatch, [0.1, 0.5, 0.9], steps=3, judge_saves=True)
    assert events[-1].report["recommended"]["step"] == 3 and events[-1].report["ended_early"] == ""
    assert sorted(p.name for p in out.glob("*.safetensors")) == [
        "tiny-000001.safetensors", "tiny-000002.safetensors", "tiny.safetensors",
    ]  # fmt: skip


def test_the_best_save_takes_no_name_of_another_training(tmp_path):
    """The second training of a name: its files have a -2, and the first one's stay what they were."""
    for folder, word in ((tmp_path, "me"), (tmp_path / "embeddings", "armin")):
        folder.mkdir(exist_ok=True)
        for name, value, session in (("", 1, "1"), ("-000001", 1, "1"), ("-000003", 1, "1"), ("-2", 2, "2")):
            tensors = {"lora_unet_x.lora_down.weight": torch.full((2, 2), float(value))}
            save_file(tensors, folder / f"{word}{name}.safetensors", {"ss_session_id": session})
        best = {"lora_unet_x.lora_down.weight": torch.full((2, 2), 7.0)}
        save_file(best, folder / f"{word}-000001-2.safetensors", {"ss_session_id": "2"})
    job = TrainJob(base="b", name="me", captions=replace(TrainJob().captions, trigger="armin"))
    end = Finished((str(tmp_path / "me-2.safetensors"),), {"steps": 3})
    list(verdict.best_in_place(job, CellScore(str(tmp_path / "me-000001-2.safetensors"), 1, 1.0, 0.1, 0.9), end))
    expected = {"": 1, "-000001": 1, "-000003": 1, "-2": 7, "-000001-2": 7, "-000003-2": 2}
    for folder, word in ((tmp_path, "me"), (tmp_path / "embeddings", "armin")):
        held = {p.stem.removeprefix(word): float(load_file(p).popitem()[1][0, 0]) for p in folder.glob("*.safetensors")}
        assert held == expected


def test_a_failure_to_recommend_costs_nothing(tmp_path, pictures, monkeypatch):
    def broken(job, commands):
        raise RuntimeError("CUDA out of memory")
        yield

    monkeypatch.setattr(verdict, "choose", broken)
    events = judged_run(tmp_path, pictures, monkeypatch, [0.1, 0.5], steps=2, judge_saves=True)
    assert any(isinstance(e, Note) and "No strength is recommended: CUDA out" in e.text for e in events)
    assert isinstance(events[-1], Finished) and Path(events[-1].outputs[0]).is_file()


def test_a_best_save_that_cannot_be_written_leaves_the_last_one(tmp_path, pictures, monkeypatch, strength):
    def full(source, output, header, metadata):
        raise DiskFull("The disk is full.")

    monkeypatch.setattr(verdict, "rewrite", full)
    end = (events := judged_run(tmp_path, pictures, monkeypatch, [0.9, 0.1], steps=2, judge_saves=True))[-1]
    assert any(isinstance(e, Note) and "The disk is full." in e.text for e in events)
    assert read_header(Path(end.outputs[0])).metadata["ss_steps"] == "2" and end.report["recommended"] == {}
    assert not strength.seen and not (tmp_path / "tiny-000002.safetensors").exists()


def test_no_strength_is_looked_for_on_another_base(tmp_path, pictures, monkeypatch, strength):
    other = judged_run(tmp_path / "other", pictures, monkeypatch, [0.5], steps=1, judge_saves=True)[-1].outputs[0]
    merged = {"steps": 1, "judge_saves": True, "base_loras": (f"{other} = 1",)}
    events = judged_run(tmp_path / "out", pictures, monkeypatch, [0.5], **merged)
    assert any(isinstance(e, Note) and "merged into the base" in e.text for e in events)
    assert "strength" not in events[-1].report["recommended"] and len(strength.seen) == 1


def test_early_stop_without_saves_is_refused(tmp_path, pictures):
    assert "set save_every_steps" in " ".join(job_for(tmp_path, pictures, early_stop=2).problems())


def test_likeness_is_0_for_what_the_base_draws_and_1_for_the_pictures_themselves(tmp_path, pictures, monkeypatch):
    """Drawn pictures are replaced by the training pictures' latents; the untrained LoRA draws as the base does."""
    run_, _ = drained(prepare(job_for(tmp_path, pictures, preview_steps=1, judge_saves=True)))
    judge = Judge(run_)
    assert judge.likeness(run_) == pytest.approx(0, abs=0.35)
    assert len(subject_prompts(run_)) == 3 and all("armin" in prompt for prompt in subject_prompts(run_))
    before = {name: t.clone() for name, t in run_.network.tensors().items()}
    references = torch.cat(list(judging.reference_latents(run_)))
    monkeypatch.setattr(judging, "latents", lambda *_: references)
    assert judge.likeness(run_) == pytest.approx(1, abs=1e-3)
    assert all(torch.equal(t, before[name]) for name, t in run_.network.tensors().items())


def test_the_words_of_the_best_save_follow_it(tmp_path):
    for name in ("me-000002", "me-000004", "me"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    verdict.embedding_in_place(tmp_path, "me", (2, 8), verdict.NO_SESSION)
    found = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"me": "me-000002", "me-000002": "me-000002", "me-000004": "me-000004", "me-000008": "me"}
