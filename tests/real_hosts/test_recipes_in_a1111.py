"""The real A1111 reads our infotext as we mean it, and we read what it writes, in text and in pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from a1111_live import A1111, encoded, pictures_of, running_a1111
from host_programs import LoraFile
from inpaint_cases import likeness
from picture_recipes import LORA, with_a_mean
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file
from small_models import CONTEXT, write_small_hub, write_small_model

from lora_core import host_names
from lora_core.engine.generate import generate
from lora_core.events import Finished
from lora_core.infotext import read_infotext
from lora_core.infotext_fields import Drawn, parameters
from lora_core.jobs.generate import GenerateJob, Hires, Img2ImgJob, InpaintJob, Randomness, SoftInpainting
from lora_core.picture_text import exif_of
from lora_core.recipe_a1111 import recipe_a1111
from lora_core.recipes import match_files, recipe_of

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

PROMPT = 'a "cat", (big:1.2) <lora:one:0.8>\nline two: here, Käfer 猫 \\(x\\)'
BASE = GenerateJob(base="m.safetensors", prompt=PROMPT, negative_prompt="bad,\nworse: 1")
JOBS = {
    **{f"sampler {s}": replace(BASE, sampler=s, prompt="a") for s in host_names.SAMPLER},
    **{f"schedule {s}": replace(BASE, sampler="euler", scheduler=s) for s in host_names.SCHEDULE},
    "plain": BASE,
    "values": replace(BASE, steps=33, cfg_scale=6.5, width=640, height=384, clip_skip=2, emphasis="no norm"),
    "random": replace(BASE, randomness=Randomness("nv", 77, 0.25, 0.5, 31337), zero_terminal_snr="on"),
    "hires": replace(BASE, hires=Hires(1.5, 0, 0, "latent (bicubic)", 7, 0.45)),
    "hires size": replace(BASE, hires=Hires(1.0, 1024, 768, "latent (nearest-exact)", 0, 0.4)),
    "img2img": Img2ImgJob(base="m", prompt="a", denoising_strength=0.3, noise_multiplier=1.1),
    "inpaint": InpaintJob(base="m", prompt="a", mask_blur=9, mask_invert=True, masked_content="latent noise"),
    "only masked": InpaintJob(base="m", inpaint_area="only masked", only_masked_padding=48, masked_content="fill"),
    "soft": InpaintJob(base="m", prompt="a", soft=SoftInpainting(True, 2.0, 0.25, 5.0, 0.5, 1.0, 3.0)),
}
DRAWN = Drawn(2**40 + 3, 77, (("one", "ab" * 32),), (("bad, one", "cd" * 32),), "12" * 32)


@pytest.fixture(scope="module")
def answers(a1111, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("texts")
    files = {}
    for place, (name, job) in enumerate(JOBS.items()):
        text, path = parameters(job, DRAWN), folder / f"{place}.txt"
        path.write_text(text, "utf-8")
        picture, chunks = Image.new("RGB", (8, 8)), PngInfo()
        chunks.add_itxt("parameters", text)
        picture.save(folder / f"{place}.ours.png", pnginfo=chunks)
        for ending in ("jpg", "webp"):
            picture.save(folder / f"{place}.ours.{ending}", exif=exif_of(text))
        files[name] = LoraFile(path, 0)
    host = replace(a1111, probe=a1111.probe.with_name("a1111_infotext.py"))
    yield {name: (files[name].path, answer) for name, answer in host.load("", files).items()}


@pytest.mark.parametrize("name", JOBS)
def test_a1111_reads_what_we_write(answers: dict[str, Any], name: str) -> None:
    job, (path, answer) = JOBS[name], answers[name]
    found = answer["values"]
    assert (found["Prompt"], found["Negative prompt"]) == (job.prompt, job.negative_prompt)
    expected = {"Steps": job.steps, "CFG scale": job.cfg_scale, "Seed": DRAWN.seed, "Clip skip": job.clip_skip}
    expected |= {"Size-1": job.width, "Size-2": job.height, "ENSD": job.randomness.eta_noise_seed_delta}
    if job.randomness.subseed_strength:
        expected |= {"Variation seed": 77, "Variation seed strength": job.randomness.subseed_strength}
    if isinstance(job, Img2ImgJob):
        expected |= {"Denoising strength": job.denoising_strength, "Noise multiplier": job.noise_multiplier}
    if isinstance(job, InpaintJob):
        expected |= {"Mask blur": job.mask_blur, "Masked area padding": job.only_masked_padding}
    for key, value in expected.items():
        assert float(found.get(key, {"ENSD": 0, "Noise multiplier": 1}.get(key, "nan"))) == value, key
    automatic = host_names.SAMPLER[job.sampler].automatic == job.scheduler
    schedule = "Automatic" if automatic and job.sampler != "euler" else host_names.SCHEDULE[job.scheduler].a1111
    assert (answer["sampler"], answer["schedule"]) == (host_names.SAMPLER[job.sampler].a1111, schedule)
    texts = {"RNG": host_names.RNG[job.randomness.noise_source], "Model hash": "1212121212", "Model": "m"}
    texts |= {"Lora hashes": "one: abababababab", "TI hashes": "bad one: cdcdcdcdcdcd"}
    assert {key: found.get(key) for key in texts} == texts
    assert set(answer["ours"].values()) == {path.read_text("utf-8")} and len(answer["ours"]) == 3


def test_a1111s_own_fields(answers: dict[str, Any]) -> None:
    """Keys that its paste fields and settings know by name."""
    inpaint, masked, soft = (answers[name][1]["values"] for name in ("inpaint", "only masked", "soft"))
    assert (inpaint["Mask mode"], inpaint["Masked content"]) == ("Inpaint not masked", "latent noise")
    assert (masked["Inpaint area"], masked["Masked content"]) == ("Only masked", "fill")
    assert soft["Soft inpainting enabled"] == "True" and soft["Soft inpainting difference contrast"] == "3"
    hires, size = (answers[name][1]["values"] for name in ("hires", "hires size"))
    assert (hires["Hires upscale"], hires["Hires steps"], hires["Hires upscaler"]) == ("1.5", "7", "Latent (bicubic)")
    assert (size["Hires resize-1"], size["Hires resize-2"], size["Denoising strength"]) == ("1024", "768", "0.4")
    overrides = answers["random"][1]["overrides"]
    assert overrides["randn_source"] == "NV" and overrides["eta_noise_seed_delta"] == 31337
    assert overrides["sd_noise_schedule"] == "Zero Terminal SNR" and overrides["eta_ancestral"] == 0.5
    assert answers["values"][1]["overrides"]["emphasis"] == "No norm"


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_we_read_pictures_that_a1111_saved(answers: dict[str, Any], ending: str) -> None:
    for name, (path, _) in answers.items():
        job = replace(JOBS[name], base=Path(JOBS[name].base).stem, seed=DRAWN.seed)
        if not job.randomness.subseed_strength:
            job = replace(job, randomness=replace(job.randomness, subseed=0))
        assert recipe_of(path.with_suffix(ending)).job == job, name


LIVE = {"steps": 4, "width": 64, "height": 64, "cfg_scale": 6.5, "seed": 2**33, "negative_prompt": "bad (worse:1.3)"}
TXT2IMG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"sampler_name": "DDIM"}, {"sampler": "ddim", "scheduler": "automatic"}),
    "karras": ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, {"sampler": "dpmpp_2m", "scheduler": "karras"}),
    "old name": ({"sampler_name": "DPM2 a Karras"}, {"sampler": "dpm2_ancestral", "scheduler": "karras"}),
    "subseed": (
        {"sampler_name": "Euler a", "subseed": 9, "subseed_strength": 0.5},
        {"sampler": "euler_ancestral", "randomness": Randomness("cpu", 9, 0.5, 1.0, 5)},
    ),
    "hires": (
        {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent (nearest)", "hr_second_pass_steps": 3}
        | {"denoising_strength": 0.75},
        {"hires": Hires(1.5, 0, 0, "latent (nearest)", 3, 0.75)},
    ),
}
INPAINT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fill": ({"inpainting_fill": 0, "mask_blur": 3}, {"masked_content": "fill", "mask_blur": 3}),
    "masked": (
        {"inpaint_full_res": True, "inpaint_full_res_padding": 8, "inpainting_fill": 2, "inpainting_mask_invert": 1},
        {
            "inpaint_area": "only masked",
            "only_masked_padding": 8,
            "masked_content": "latent noise",
            "mask_invert": True,
        },
    ),
}
SETTINGS = {"randn_source": "CPU", "eta_noise_seed_delta": 5, "CLIP_stop_at_last_layers": 2, "emphasis": "No norm"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a LoRA, an embedding ("badone") and a VAE ("bright")."""
    folder = tmp_path_factory.mktemp("live")
    checkpoint = with_a_mean(write_small_model(folder / "models"))
    vae = {k[18:]: v for k, v in load_file(checkpoint).items() if k.startswith("first_stage_model.")}
    vae["decoder.conv_out.bias"] += 0.3
    for name, tensors in (
        ("data/models/VAE/bright", vae),
        ("data/embeddings/badone", {"emb_params": torch.ones(2, CONTEXT)}),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / f"{name}.safetensors")
    write_small_hub(folder / "home")
    return folder


@pytest.fixture(scope="module")
def live(files: Path) -> Iterator[A1111]:
    with running_a1111(files / "models" / "small.safetensors", files / "home", files / "data", hashing=True) as host:
        yield host


def infotext_of(answer: dict[str, Any]) -> str:
    return json.loads(answer["info"])["infotexts"][0]


def test_we_read_what_the_running_a1111_writes(live: A1111) -> None:
    for name, (fields, expected) in TXT2IMG.items():
        prompt = f"{name} {PROMPT}".replace("<lora:one:0.8>", "")  # another each time: A1111 keeps conditionings
        asked = {**LIVE, "prompt": prompt, "override_settings": SETTINGS, **fields}
        found = recipe_a1111(infotext_of(live.ask("txt2img", asked)))
        assert found.kind == "generate" and found.unmapped == (), name
        job = found.job
        assert (job.steps, job.width, job.height, job.cfg_scale, job.seed) == (4, 64, 64, 6.5, 2**33), name
        assert (job.clip_skip, job.emphasis, job.randomness.noise_source) == (2, "no norm", "cpu"), name
        assert (job.prompt, job.negative_prompt) == (asked["prompt"].replace(" \n", "\n"), LIVE["negative_prompt"]), (
            name
        )
        for setting, value in expected.items():
            assert getattr(job, setting) == value, (name, setting)


HASHES = ("Model hash", "Model", "VAE hash", "VAE", "Lora hashes", "TI hashes")


def test_files_have_the_hashes_that_the_running_a1111_gives_them(live: A1111, files: Path, tmp_path: Path) -> None:
    """Its picture names our files; the job that we make of it draws the same picture and names them alike."""
    asked = {**LIVE, "prompt": f"a (cat:1.2) badone <lora:{LORA}:0.8>", "sampler_name": "Euler", "seed": 5}
    asked["override_settings"] = {**SETTINGS, "sd_vae": "bright.safetensors"}
    answer = live.ask("txt2img", asked)
    recipe = match_files(recipe_a1111(infotext_of(answer)), [files])
    assert recipe.unmapped == ()
    assert [name for name, _ in (recipe.wanted.vae, *recipe.wanted.embeddings)] == ["bright.safetensors", "badone"]
    job = replace(recipe.job, output_dir=str(tmp_path), device="cpu", dtype="fp32")
    finished = list(generate(job))[-1]
    assert isinstance(finished, Finished)
    with Image.open(finished.outputs[0]) as picture:
        theirs, ours = (read_infotext(text) for text in (infotext_of(answer), picture.info["parameters"]))
        ratio, furthest = likeness(np.asarray(picture), pictures_of(answer)[0])
    assert theirs and ours
    assert {key: ours.values.get(key) for key in HASHES} == {key: theirs.values[key] for key in HASHES}
    assert ratio >= 45 and furthest <= 2


def test_we_read_what_the_running_a1111_writes_when_inpainting(live: A1111) -> None:
    picture, mask = Image.new("RGB", (64, 64), "green"), Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 40, 40))
    for name, (fields, expected) in INPAINT.items():
        asked = {**LIVE, "prompt": "a", "override_settings": SETTINGS, "denoising_strength": 0.5, **fields}
        asked |= {"init_images": [encoded(picture)], "mask": encoded(mask), "sampler_name": "DDIM"}
        found = recipe_a1111(infotext_of(live.ask("img2img", asked)))
        assert found.kind == "inpaint" and len(found.unmapped) == 2, name
        assert found.job.denoising_strength == 0.5, name  # type: ignore[attr-defined]
        for setting, value in expected.items():
            assert getattr(found.job, setting) == value, (name, setting)
