"""The generate and inpaint jobs from files to files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_core.commands import Commands
from lora_core.engine.generate import generate
from lora_core.engine.inpaint import inpaint
from lora_core.errors import ConfigError, FileError, KeyMismatch
from lora_core.events import Event, Finished, Note, Preview, Progress, Saved, Stage
from lora_core.jobs.generate import GenerateJob, InpaintJob, LoraUse
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.recipes import match_files, recipe_of

SMALL = {"width": 64, "height": 48, "steps": 3, "dtype": "fp32", "device": "cpu", "seed": 5, "prompt": "a cat"}


def lora_file(folder: Path, kind: str, name: str) -> Path:
    arch, g = tiny.architecture(kind), torch.Generator().manual_seed(0)
    modules = {
        t.canonical: LoraModule(
            torch.randn((2, *t.shape[1:]), generator=g),
            torch.randn((t.shape[0], 2, *([1] * (len(t.shape) - 2))), generator=g),
            2.0,
        )
        for t in lora_targets(arch)
    }
    write_lora(
        folder / f"{name}.safetensors",
        Lora(modules, {}, arch.family),
        arch,
        torch.float32,
        {"ss_output_name": f"{name}_alias"},
    )
    return folder / f"{name}.safetensors"


def job(folder: Path, **values: object) -> GenerateJob:
    return GenerateJob(**{"base": str(tiny.checkpoint("sd15")), "output_dir": str(folder), **SMALL, **values})


def picture(events: list[Event]) -> np.ndarray:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return np.asarray(Image.open(finished.outputs[0]))


def test_events_and_files(tmp_path: Path) -> None:
    events = list(generate(job(tmp_path, batch_count=2, negative_prompt="blurry", name="cat")))
    kinds = [type(event) for event in events]
    assert kinds == [Stage, Stage, *[Progress] * 3, Saved, Preview, *[Progress] * 3, Saved, Preview, Finished]
    assert [e.done for e in events if isinstance(e, Progress)] == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat-00001.png", "cat-00002.png"]
    with Image.open(tmp_path / "cat-00002.png") as image:
        assert image.size == (64, 48)
        text = image.info["parameters"]
    assert text.startswith("a cat\nNegative prompt: blurry\nSteps: 3, Sampler: DDIM, Schedule type: Automatic, ")
    assert "Seed: 6, Size: 64x48" in text


def test_same_job_same_picture_and_no_overwriting(tmp_path: Path) -> None:
    first, second = list(generate(job(tmp_path))), list(generate(job(tmp_path)))
    assert first[-1].outputs != second[-1].outputs
    assert (picture(first) == picture(second)).all()
    assert (picture(list(generate(job(tmp_path, seed=6)))) != picture(first)).any()


def test_loras_by_file_tag_and_alias_are_the_same(tmp_path: Path) -> None:
    path = lora_file(tmp_path, "sd15", "style")
    by_file = picture(list(generate(job(tmp_path, loras=(LoraUse(str(path), 0.8),)))))
    for tag in ("<lora:style:0.8>", "<lora:style_alias:0.8>", "<lora:style:te=0.8:unet=0.8>"):
        tagged = job(tmp_path, prompt=f"a cat{tag}", lora_dirs=(str(tmp_path),))
        assert (picture(list(generate(tagged))) == by_file).all()
    assert (picture(list(generate(job(tmp_path)))) != by_file).any()


def test_infotext_names_the_loras(tmp_path: Path) -> None:
    path = lora_file(tmp_path, "sd15", "style")
    events = list(generate(job(tmp_path, loras=(LoraUse(str(path), 0.8),))))
    text = Image.open(events[-1].outputs[0]).info["parameters"]
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert text.splitlines()[0] == "a cat<lora:style:0.8>"
    assert f'Lora hashes: "style: {header["__metadata__"]["sshs_model_hash"][:12]}"' in text


def test_a_vae_of_its_own_is_told_and_found_again(tmp_path: Path) -> None:
    weights = {k: v for k, v in load_file(tiny.checkpoint("sd15")).items() if k.startswith("first_stage_model.")}
    weights["first_stage_model.decoder.conv_out.bias"] += 0.5
    path = tmp_path / "bright.safetensors"
    save_file(weights, path)
    finished = list(generate(job(tmp_path, vae=str(path))))[-1]
    assert picture([finished]).mean() > picture(list(generate(job(tmp_path)))).mean() + 10
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
    assert f", VAE hash: {digest}, VAE: bright.safetensors, " in Image.open(finished.outputs[0]).info["parameters"]
    recipe = recipe_of(finished.outputs[0])
    assert recipe.wanted.vae == ("bright.safetensors", digest)
    renamed = path.rename(tmp_path / "renamed.safetensors")
    assert match_files(recipe, [tmp_path]).job.vae == str(renamed)


def test_sdxl_with_a_lora(tmp_path: Path) -> None:
    base = str(tiny.checkpoint("sdxl"))
    path = lora_file(tmp_path, "sdxl", "style")
    plain = picture(list(generate(job(tmp_path, base=base))))
    assert (picture(list(generate(job(tmp_path, base=base, loras=(LoraUse(str(path), 1.0),))))) != plain).any()


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"prompt": "a <lora:stile:1>"}, ConfigError, "Did you mean style"),
        ({"prompt": "a <lora:style:much>"}, ConfigError, "no number"),
        ({"prompt": "a (b:1.2.3)"}, ConfigError, "weight that is no number: '1.2.3' in"),
        ({"loras": (LoraUse("/nowhere/x.safetensors"),)}, ConfigError, "x.safetensors"),
        ({"prompt": "a <lora:large:1>"}, KeyMismatch, "sdxl|SDXL"),
        ({"base": "/nowhere/base.safetensors"}, FileError, "base.safetensors"),
    ],
)
def test_faults_are_sentences(tmp_path: Path, values: dict[str, object], error: type[Exception], words: str) -> None:
    loras = tmp_path / "loras"
    loras.mkdir()
    lora_file(loras, "sd15", "style")
    lora_file(loras, "sdxl", "large")
    with pytest.raises(error, match=words):
        list(generate(job(tmp_path / "out", lora_dirs=(str(loras),), **values)))
    assert not list(tmp_path.rglob("*.png"))


def test_stop_keeps_finished_pictures(tmp_path: Path) -> None:
    commands, events = Commands(), []
    for event in generate(job(tmp_path, batch_count=5), commands):
        events.append(event)
        commands.stop = any(isinstance(e, Saved) for e in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].stopped
    assert len(events[-1].outputs) == 1


def inpaint_job(folder: Path, **values: object) -> InpaintJob:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (75, 101, 4), np.uint8)
    pixels[20:40, 30:60, 3] = 0
    Image.fromarray(pixels).save(folder / "picture.png")
    mask = np.zeros((75, 101), np.uint8)
    mask[30:50, 40:60] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    paths = {"image": str(folder / "picture.png"), "mask": str(folder / "mask.png"), "output_dir": str(folder / "out")}
    return InpaintJob(**{"base": str(tiny.checkpoint("sd15")), "mask_blur": 2, **paths, **SMALL, **values})


@pytest.mark.parametrize("area", ["whole picture", "only masked"])
@pytest.mark.parametrize("content", ["fill", "original", "latent noise", "latent nothing"])
def test_inpainting_changes_the_blurred_mask_alone(tmp_path: Path, area: str, content: str) -> None:
    work = inpaint_job(tmp_path, inpaint_area=area, masked_content=content)
    result, source = picture(list(inpaint(work))), np.asarray(Image.open(work.image))
    rows, columns = (result != source).any(axis=-1).nonzero()
    assert result.shape == source.shape
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (25, 54, 35, 64)


def test_inpainting_modes_differ(tmp_path: Path) -> None:
    contents = ("fill", "original", "latent noise", "latent nothing")
    results = [picture(list(inpaint(inpaint_job(tmp_path, masked_content=c)))) for c in contents]
    assert len({r.tobytes() for r in results}) == 4


def test_the_pictures_own_alpha_is_the_mask(tmp_path: Path) -> None:
    work = inpaint_job(tmp_path)
    result = picture(list(inpaint(replace(work, mask="", mask_blur=0))))
    source = np.asarray(Image.open(work.image))
    assert (result[source[..., 3] == 255] == source[source[..., 3] == 255]).all()
    assert (result[20:40, 30:60, 3] == 255).all()


def test_inpainting_checkpoint_with_9_channels(tmp_path: Path) -> None:
    work = inpaint_job(tmp_path, base=str(tiny.checkpoint("sd15-inpaint")), denoising_strength=1.0)
    result, source = picture(list(inpaint(work))), np.asarray(Image.open(work.image))
    assert (result[:25] == source[:25]).all()
    assert (result[35:45, 45:55] != source[35:45, 45:55]).any()


def test_blank_mask_is_noted(tmp_path: Path) -> None:
    work = inpaint_job(tmp_path, inpaint_area="only masked")
    Image.new("L", (101, 75)).save(work.mask)
    events = list(inpaint(work))
    assert any(isinstance(e, Note) and "blank" in e.text for e in events)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"image": "/nowhere/x.png"}, FileError, "x.png"),
        ({"mask": __file__}, FileError, "test_generate.py cannot be read"),
    ],
)
def test_bad_pictures_are_sentences(
    tmp_path: Path, values: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        list(inpaint(inpaint_job(tmp_path, **values)))
