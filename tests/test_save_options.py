"""Previews, saves and what the file says, as kohya's users know them."""

import base64
import io
from pathlib import Path

import pytest
import tiny
from PIL import Image

from lora_core.engine.saving import drop_old
from lora_core.events import Finished, Loss, Preview
from lora_core.jobs import Subset, TrainJob
from lora_core.preview_prompt import PreviewPrompt, prompt_faults, read_preview
from lora_core.run import run
from lora_core.settings import from_json, replace_by_name, to_json
from lora_core.tensors import read_header


def job_for(tmp_path, **values):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (90 * i, 200, 40)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text("one, two")
    job = TrainJob(base=str(tiny.checkpoint("sd15")), name="t", output_dir=str(tmp_path / "out"))
    small = {"folder": str(pictures), "width": 64, "height": 64, "rank": 2, "learning_rate": 1e-3, "dtype": "fp32"}
    return replace_by_name(job, small | {"train_text_encoder": False, "shuffle": False, "buckets": False} | values)


def test_a_run_draws_saves_and_describes_itself_as_asked(tmp_path):
    cover = tmp_path / "cover.png"
    Image.new("RGB", (900, 300), "red").save(cover)
    job = job_for(
        tmp_path, epochs=4, steps=0, save_parts=4, keep_last=2, preview_first=True, preview_every_epochs=2,
        preview_prompts=("a cat --w 128 --h 72 --s 1 --d 5 --n dog --ss euler", "a dog --s 1"), preview_sampler="lms",
        validate_every_steps=0, validate_every_epochs=3, held_out=str(tmp_path / "held"), title="My LoRA", author="me",
        description="d", license="CC0", tags="a,b", usage_hint="u", trigger_phrase="tp", merged_from="x", trigger="w",
        thumbnail=str(cover),
    )  # fmt: skip
    (tmp_path / "held").mkdir()
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "held" / "h.png")
    out = Path(job.output_dir)
    out.mkdir()
    (out / "t-000002.safetensors").write_bytes(b"a file of somebody else")
    events = list(run(job))
    assert isinstance(events[-1], Finished)
    drawn = [e for e in events if isinstance(e, Preview)]
    assert [(e.step, e.prompt) for e in drawn] == [(s, p) for s in (0, 4, 8) for p in ("a cat", "a dog")]
    assert [Image.open(e.path).size for e in drawn[:2]] == [(128, 72), (64, 64)]
    assert [e.step for e in events if isinstance(e, Loss) and e.held_out is not None] == [0, 6, 8]
    names = {p.name for p in out.glob("*.safetensors")}
    assert names == {"t.safetensors", "t-000002.safetensors", "t-000004.safetensors", "t-000006.safetensors"}
    assert (out / "t-000002.safetensors").read_bytes() == b"a file of somebody else"
    said = read_header(out / "t.safetensors").metadata
    expected = {"title": "My LoRA", "author": "me", "description": "d", "license": "CC0", "tags": "a,b"}
    expected |= {"usage_hint": "u", "trigger_phrase": "tp", "merged_from": "x"}
    assert {k: said[f"modelspec.{k}"] for k in expected} == expected and said["ss_output_name"] == "t"
    picture = Image.open(io.BytesIO(base64.b64decode(said["modelspec.thumbnail"].partition(",")[2])))
    assert max(picture.size) == 256


def test_only_files_of_this_run_are_deleted(tmp_path):
    from types import SimpleNamespace

    for name in "abc":
        tiny_file(tmp_path / f"{name}.safetensors", "7" if name != "a" else "8")
    course = SimpleNamespace(session=7, saves=[1, 2, 3], files=[(i, [str(tmp_path / f"{n}.safetensors")])
             for i, n in enumerate("abc", 1)])  # fmt: skip
    run_ = SimpleNamespace(job=replace_by_name(TrainJob(), {"keep_last": 1}))
    assert drop_old(run_, course) == ["b.safetensors"]
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["a", "c"] and course.saves == [3]


def tiny_file(path, session):
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path, {"ss_session_id": session})


def test_pictures_that_keep_the_base_teach_nothing_new(tmp_path):
    """sd-scripts' differential output preservation: before the first step such a picture's loss is 0."""
    from lora_core.engine.setup import prepare
    from lora_core.engine.step import batch_loss

    data = to_json(job_for(tmp_path, steps=1, min_snr_gamma=0.0))
    folder = data["dataset"]["folder"]
    data["dataset"] |= {"folder": "", "subsets": [to_json(Subset(folder, keeps_base=True))]}
    work = prepare(from_json(TrainJob, data))
    while True:
        try:
            next(work)
        except StopIteration as end:
            found, _ = end.value
            break
    batch = found.dataset.epoch(0)[0]
    assert float(batch_loss(found, batch, 0, 0, 0).detach()) == pytest.approx(0, abs=1e-9)


def test_lines_of_prompts_with_flags():
    assert read_preview("a cat") == PreviewPrompt("a cat")
    line = "a -- b, well-known --n bad, worse --w 517 --h 30 --d 7 --s 12 --l 6.5 --ss k_euler_a"
    expected = PreviewPrompt("a -- b, well-known", "bad, worse", 512, 64, 7, 12, 6.5, "euler_ancestral")
    assert read_preview(line) == expected and prompt_faults(line) == []


@pytest.mark.parametrize("line", ["x --w wide", "x --ss none", "x --cn a.png", "x --s -1", "x --l nan", "x --d"])
def test_flags_that_cannot_be_are_named(line):
    assert len(prompt_faults(line)) == 1
    assert any(line in p or "none" in p for p in replace_by_name(TrainJob(), {"preview_prompts": (line,)}).problems())
