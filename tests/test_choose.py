"""The comparison of saves: what is drawn, what is measured, and what it says on the demo world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from test_train import job_for

from lora_core.commands import Commands
from lora_core.demo.plan import ASSETS, NAME
from lora_core.engine.choose import choose, neutral_prompts, without_trigger
from lora_core.engine.choose_cells import (
    Drawing,
    Shot,
    Yardsticks,
    draw,
    held_out_loss,
    request_for,
    shots_again,
    shots_of,
)
from lora_core.engine.likeness import describe, direction, nearest
from lora_core.engine.models import load_models
from lora_core.engine.prompt import encode_prompts
from lora_core.engine.randomness import generator
from lora_core.engine.reference_pictures import read_references
from lora_core.engine.sampling import encode
from lora_core.errors import ConfigError, DatasetError
from lora_core.events import Event, Finished, Note, Progress
from lora_core.jobs.choose import ChooseJob
from lora_core.jobs.generate import GenerateJob
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.run import run
from lora_core.saves import Save


@pytest.fixture(scope="module")
def models():
    return load_models(tiny.checkpoint("sd15"), torch.float32, "cpu")


def save_lora(path: Path, models, size: float, step: int, **metadata: str) -> Path:
    targets = lora_targets(models.architecture, conv=False, text_encoders=True)
    generator = torch.Generator().manual_seed(step)
    modules = {
        key.canonical: LoraModule(
            torch.randn((2, *key.shape[1:]), generator=generator),
            torch.randn((key.shape[0], 2, *(1,) * (len(key.shape) - 2)), generator=generator) * size,
            2.0,
        )
        for key in targets
    }
    told = {"ss_steps": str(step), "ss_session_id": "5", **metadata}
    write_lora(path, Lora(modules, {}, "sd1"), targets, torch.float32, told)
    return path


def folder_of(path: Path, count: int, seed: int) -> Path:
    path.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (72, 64, 3), dtype=np.uint8)).save(path / f"{i}.png")
        (path / f"{i}.txt").write_text(f"me, picture {i}")
    return path


@pytest.fixture
def job(tmp_path: Path, models) -> ChooseJob:
    saves = tmp_path / "saves"
    saves.mkdir()
    save_lora(saves / "me-000010.safetensors", models, 0.05, 10, **{"modelspec.trigger_phrase": "me"})
    save_lora(saves / "me.safetensors", models, 0.3, 20)
    save_lora(saves / "other.safetensors", models, 0.3, 20)
    return ChooseJob(
        base=str(tiny.checkpoint("sd15")), folder=str(saves), name="me", output_dir=str(tmp_path / "out"),
        strengths=(0.0, 1.0), prompts=("me, a cat",), seeds=(3, 4), held_out=str(folder_of(tmp_path / "held", 2, 1)),
        training_pictures=str(folder_of(tmp_path / "train", 3, 2)), width=64, height=64, steps=2, cfg_scale=2.0,
    )  # fmt: skip


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_a_comparison(job: ChooseJob) -> None:
    events = list(run(job))
    end = finished(events)
    folder = Path(job.output_dir)
    assert [Path(p).name for p in end.outputs] == ["index.html", "scores.json", "grid.png"]
    assert any(isinstance(e, Note) and "less 'me'" in e.text for e in events)
    progress = [e for e in events if isinstance(e, Progress)]
    assert progress[-1].done == progress[-1].total and [e.done for e in progress] == sorted(e.done for e in progress)
    scores = json.loads((folder / "scores.json").read_text())
    cells = scores["cells"]
    assert [(Path(c["file"]).name, c["step"], c["strength"]) for c in cells] == [
        ("me-000010.safetensors", 10, 0.0), ("me-000010.safetensors", 10, 1.0),
        ("me.safetensors", 20, 0.0), ("me.safetensors", 20, 1.0),
    ]  # fmt: skip
    for cell in (cells[0], cells[2]):  # strength 0 is the base, to the last bit, also after another LoRA
        assert cell["held_out"] == scores["base_held_out"] and cell["leak"] == 0.0
    assert cells[0]["likeness"] == cells[2]["likeness"] and cells[3]["leak"] > cells[1]["leak"] > 0
    best = max(cells, key=lambda c: c["score"])
    assert scores["recommendation"]["score"] >= best["score"] - 0.031
    assert end.report["recommendation"]["file"] == scores["recommendation"]["file"]
    with Image.open(folder / "grid.png") as grid:
        assert grid.width > 3 * 64 and grid.height > 4 * 64
    page = (folder / "index.html").read_text()
    assert "data:image/jpeg;base64," in page and "http" not in page.partition("<img")[0] and "me.safetensors" in page


def test_the_first_column_is_what_the_base_draws(job: ChooseJob, models, tmp_path: Path) -> None:
    job = replace(job, seeds=(3,))
    drawing = list(draw(models, request_for(job), shots_of(job, ()), Commands()))[-1]
    alone = GenerateJob(
        base=job.base,
        prompt="me, a cat",
        seed=3,
        output_dir=str(tmp_path / "g"),
        width=64,
        height=64,
        steps=2,
        cfg_scale=2.0,
    )
    path = finished(list(run(alone))).outputs[0]
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(next(iter(drawing.pictures.values()))))


@pytest.mark.parametrize("algorithm", ["dora", "loha", "lokr", "ia3", "oft"])
def test_every_algorithm_that_we_train_is_compared(job: ChooseJob, tmp_path: Path, algorithm: str) -> None:
    pictures = folder_of(tmp_path / "pictures", 1, 5)
    size = {"algorithm": algorithm, "rank": 2, "learning_rate": 0.1}
    trained = job_for(tmp_path / "run", pictures, steps=1, train_text_encoder=False, **size)
    lora = finished(list(run(trained))).outputs[0]
    shots = {
        "prompts": ("armin, a cat",),
        "seeds": (3,),
        "held_out": "",
        "training_pictures": "",
        "strengths": (0.0, 4.0),
    }
    end = finished(list(run(replace(job, folder=str(Path(lora).parent), name=Path(lora).stem, **shots))))
    cells = json.loads((Path(job.output_dir) / "scores.json").read_text())["cells"]
    assert [cell["leak"] > 1e-3 for cell in cells] == [False, True], [cell["leak"] for cell in cells]
    assert end.outputs


def test_stopping_keeps_what_was_compared(job: ChooseJob) -> None:
    commands = Commands()
    events: list[Event] = []
    for event in choose(replace(job, strengths=(1.0,)), commands):
        events.append(event)
        drawn = [e for e in events if isinstance(e, Progress)]
        if drawn and drawn[-1].done >= drawn[-1].total - 4:
            commands.stop = True
    end = finished(events)
    assert end.stopped and len(end.report["cells"]) == 1
    commands.stop = True
    assert finished(list(choose(job, commands))) == Finished((), stopped=True)


def test_what_is_wrong_is_said(job: ChooseJob, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for wrong, error, sentence in (
        ({"name": "nobody"}, ConfigError, "No LoRA named nobody"),
        ({"loras": ("missing.safetensors",)}, ConfigError, "no LoRA file"),
        ({"prompts": ("me <lora:x:1>",)}, ConfigError, "take the <lora"),
        ({"held_out": str(tmp_path / "empty")}, DatasetError, "No picture"),
        ({"prompts": ()}, ConfigError, "No prompt"),
    ):
        with pytest.raises(error, match=sentence):
            list(run(replace(job, **wrong)))


def test_prompts_without_the_trigger(job: ChooseJob) -> None:
    assert without_trigger("armin, a (armin) cat, red", "armin") == "a () cat, red"
    named = (Save(Path("a"), 1, "me"),)
    assert neutral_prompts(job, named)[0] == ("a cat",)
    assert neutral_prompts(job, (Save(Path("a"), 1),))[0] == ()
    assert neutral_prompts(replace(job, neutral_prompts=("x",)), named) == (("x",), "")
    shots = (*shots_of(job, ("n",)), *shots_again(job, ("n",)))
    assert len(set(shots)) == len(shots) and sum(s.kind == "neutral again" for s in shots) == 2


def test_held_out_loss_is_the_plain_formula(models, tmp_path: Path) -> None:
    references = read_references(models, str(folder_of(tmp_path / "h", 2, 5)), (64, 64), "")
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    bars = np.cumprod(1 - betas)
    errors = []
    for place, caption in enumerate(references.captions):
        assert caption == f"me, picture {place}"
        context = encode_prompts(models.text_encoders, models.architecture, [caption], 1, 225).context
        for t in (200, 400, 600, 800):
            noise = torch.randn(references.latents.shape[1:], generator=generator(0, "choose", place, t))[None]
            x = float(bars[t] ** 0.5) * references.latents[place][None] + float((1 - bars[t]) ** 0.5) * noise
            with torch.no_grad():
                out = models.unet(x, t, encoder_hidden_states=context).sample
            errors.append(float((out - noise).square().mean()))
    assert held_out_loss(models, references, 1) == pytest.approx(np.mean(errors), rel=1e-4)


def test_nearest_finds_copies() -> None:
    g = torch.Generator().manual_seed(1)
    others = torch.randn((6, 4, 8, 8), generator=g)
    fresh = torch.randn((5, 4, 8, 8), generator=g)
    places, near = nearest(torch.cat([others[2:3] + 0.1 * fresh[:1], fresh]), others)
    assert places[0] == 2 and near[0] > 0.9 and near[1:].max() < 0.5


def test_a_picture_that_repeats_a_training_picture_is_a_copy(models, tmp_path: Path) -> None:
    training = read_references(models, str(folder_of(tmp_path / "t", 4, 6)), (64, 64), "")
    measures = Yardsticks(Drawing({}, {}), None, training, 0.2, 0.0)
    one, two = Shot("a", 1, "subject"), Shot("a", 2, "subject")
    near, copies = measures.copying(Drawing({}, {one: training.latents[0], two: -training.latents[1]}))
    assert copies == 0.5 and near is not None and near < 1


def encoded(models, folder: Path) -> torch.Tensor:
    paths = sorted(folder.glob("*.png"))
    pixels = [torch.from_numpy(np.array(Image.open(p).convert("RGB"))).float() / 255 for p in paths]
    return encode(models, torch.stack(pixels).permute(0, 3, 1, 2))


def test_likeness_tells_the_character_from_others_on_the_demo_world() -> None:
    """From two held-out pictures and twelve of others, every other picture of both is told apart."""
    demo = load_models(ASSETS / "demo_base.safetensors", torch.float32, "cpu")
    training, held_out, others = (
        describe(demo, encoded(demo, ASSETS / name)) for name in (NAME, "held_out", "ordinary")
    )
    way = direction(others[:12], held_out[:2])
    like = torch.cat([way.of(training), way.of(held_out[2:])])
    unlike = way.of(others[12:])
    assert like.min() > unlike.max() and like.mean() > 0.7 and unlike.mean() < 0.3


def test_describing_leaves_the_model_alone(models) -> None:
    latents = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(2))
    first = describe(models, latents)
    assert torch.equal(first, describe(models, latents)) and first.shape[0] == 3
    assert torch.allclose(first[1:2], describe(models, latents[1:2]), atol=1e-4)
    assert not any(block._forward_hooks for block in (models.unet.mid_block, *models.unet.up_blocks))


@pytest.mark.parametrize("kind", ["sdxl", "sd15-inpaint", "sd2"])
def test_other_families_are_described(kind: str) -> None:
    other = load_models(tiny.checkpoint(kind), torch.float32, "cpu")
    assert torch.isfinite(describe(other, torch.randn(2, 4, 8, 8))).all()
