"""Our pictures beside the real hosts' own, on narrow models: A1111 through its API, ComfyUI through its nodes.

A1111: A1111_DIR, A1111_PYTHON. ComfyUI: COMFYUI_DIR, COMFYUI_PYTHON; SD15_CHECKPOINT may name a full-size SD1.5 file
(tools/random_checkpoint.py makes one). PARITY_TABLE names a file that the figures are appended to.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sampling_cases
import torch
from a1111_live import A1111, running_a1111
from host_programs import Host
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import write_small_hub, write_small_model

from lora_core import host_names
from lora_core.architecture import architecture_of
from lora_core.engine.generate import generate
from lora_core.events import Finished
from lora_core.families import reference
from lora_core.jobs.generate import GenerateJob, Hires, Randomness

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

PROMPT = "masterpiece, (a red cat:1.3) on [a] table, ((bright)) light"
NARROW = 32
NEGATIVE = "blurry, (dark:1.2)"
LONG = ", ".join(f"a thing number {i} of many" for i in range(16))


@dataclass(frozen=True)
class Recipe:
    """A job's fields that differ from the plain recipe."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    random: Randomness = Randomness()
    hires: Hires = Hires()

    def job(self, base: Path, folder: Path, arithmetic: str) -> GenerateJob:
        plain: dict[str, Any] = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "width": 96, "height": 64, "steps": 6}
        plain |= {"cfg_scale": 7.0, "seed": 123, "device": "cpu", "dtype": "fp32", "arithmetic": arithmetic}
        plain |= {"base": str(base), "output_dir": str(folder), "randomness": self.random, "hires": self.hires}
        return GenerateJob(**{**plain, **self.values})


def recipes() -> list[Recipe]:
    """Every sampler with its own schedule and another; then prompts, clip skip, batches, noise, the second pass."""
    found = [Recipe(s, {"sampler": s}) for s in sampling_cases.SAMPLERS]
    found += [Recipe(f"euler-{s}", {"sampler": "euler", "scheduler": s}) for s in sampling_cases.SCHEDULES]
    found += [Recipe(f"dpmpp_2m-{s}", {"sampler": "dpmpp_2m", "scheduler": s}) for s in ("normal", "exponential")]
    found += [Recipe(f"ddim-{n}-steps", {"steps": n}) for n in (4, 7, 20)]
    found += [
        Recipe("cfg-1", {"cfg_scale": 1.0, "sampler": "euler"}),
        Recipe("cfg-15", {"cfg_scale": 15.0}),
        Recipe("clip-skip-2", {"clip_skip": 2, "sampler": "heun"}),
        Recipe("long-prompt", {"prompt": LONG, "sampler": "dpmpp_2m"}),
        Recipe("no-negative", {"negative_prompt": ""}),
        Recipe("batch", {"batch_size": 2, "batch_count": 2, "sampler": "euler_ancestral"}),
        Recipe("sde-batch", {"batch_size": 2, "sampler": "dpmpp_2m_sde"}),
    ]
    return found


def a1111_recipes() -> list[Recipe]:
    return [
        *recipes(),
        Recipe("uniform", {"sampler": "dpmpp_2m", "scheduler": "uniform"}),
        Recipe("editing", {"prompt": "a [cat:red dog:0.5] AND a tree:0.6", "sampler": "dpmpp_sde"}),
        Recipe("no-norm", {"emphasis": "no norm", "sampler": "euler"}),
        Recipe("nv", {"sampler": "euler_ancestral"}, Randomness(noise_source="nv")),
        Recipe("ensd", {"sampler": "dpm2_ancestral"}, Randomness(eta_noise_seed_delta=31337)),
        Recipe("variation", {"batch_size": 2}, Randomness(subseed=9, subseed_strength=0.3)),
        Recipe("eta", {"sampler": "euler_ancestral"}, Randomness(eta=0.6)),
        Recipe("hires-latent", {"sampler": "euler"}, hires=Hires(1.5, hires_steps=5, hires_denoising=0.6)),
        Recipe("hires-bicubic-ddim", {}, hires=Hires(2.0, hires_upscaler="latent (bicubic antialiased)")),
        Recipe("hires-lanczos", {"sampler": "dpmpp_2m"}, hires=Hires(1.5, hires_upscaler="lanczos")),
        Recipe("hires-nearest-sde", {"sampler": "dpmpp_sde"}, hires=Hires(2.0, hires_upscaler="nearest")),
        Recipe("hires-cut", {"sampler": "euler_ancestral"}, hires=Hires(hires_width=128, hires_height=128)),
    ]


def ours(job: GenerateJob) -> list[np.ndarray]:
    finished = list(generate(job))[-1]
    assert isinstance(finished, Finished)
    return [np.asarray(Image.open(path)) for path in finished.outputs]


def compare(host: str, name: str, ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[float, int]:
    """The worst PSNR in dB and the largest difference of a value, over all pictures."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    apart = [np.abs(a.astype(int) - b) for a, b in zip(ours, theirs)]
    error = max(float((d.astype(float) ** 2).mean()) for d in apart)
    psnr, most = 10 * math.log10(255**2 / error) if error else math.inf, max(int(d.max()) for d in apart)
    if "PARITY_TABLE" in os.environ:
        with open(os.environ["PARITY_TABLE"], "a") as table:
            table.write(f"{host:8} {name:24} {psnr:6.1f} dB  max {most}\n")
    return psnr, most


def a1111_fields(job: GenerateJob) -> dict[str, Any]:
    random, hires = job.randomness, job.hires
    fields: dict[str, Any] = {
        "prompt": job.prompt, "negative_prompt": job.negative_prompt, "width": job.width, "height": job.height,
        "steps": job.steps, "cfg_scale": job.cfg_scale, "seed": job.seed, "batch_size": job.batch_size,
        "n_iter": job.batch_count, "sampler_name": host_names.SAMPLER[job.sampler].a1111,
        "scheduler": host_names.SCHEDULE[job.scheduler].a1111, "eta": random.eta if random.eta != 1 else None,
        "subseed": random.subseed, "subseed_strength": random.subseed_strength,
        "override_settings": {
            "randn_source": random.noise_source.upper(), "CLIP_stop_at_last_layers": job.clip_skip,
            "eta_noise_seed_delta": random.eta_noise_seed_delta, "emphasis": host_names.EMPHASIS[job.emphasis],
            "show_progress_type": "Approx cheap", "return_grid": False,
        },
    }  # fmt: skip
    if hires.hires_scale > 1 or hires.hires_width:
        fields |= {
            "enable_hr": True, "hr_scale": hires.hires_scale, "hr_resize_x": hires.hires_width,
            "hr_resize_y": hires.hires_height, "hr_second_pass_steps": hires.hires_steps,
            "denoising_strength": hires.hires_denoising,
            "hr_upscaler": host_names.HIRES_UPSCALER[hires.hires_upscaler],
        }  # fmt: skip
    return fields


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_a_mean(write_small_model(tmp_path_factory.mktemp("small")))


def with_a_mean(path: Path) -> Path:
    """Random text encoders give vectors of mean 0, and A1111's emphasis divides by that mean: give them another."""
    tensors = load_file(path)
    name = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    tensors[name] = torch.full_like(tensors[name], 0.3)
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def webui(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111]:
    hub = tmp_path_factory.mktemp("hub")
    write_small_hub(hub)
    with running_a1111(small, hub, tmp_path_factory.mktemp("a1111")) as host:
        yield host


@pytest.mark.parametrize("recipe", a1111_recipes(), ids=lambda recipe: recipe.name)
def test_a1111_draws_the_same_picture(webui: A1111, small: Path, tmp_path: Path, recipe: Recipe) -> None:
    job = recipe.job(small, tmp_path, "a1111")
    psnr, most = compare("a1111", recipe.name, ours(job), webui.txt2img(**a1111_fields(job)))
    assert psnr >= 45
    assert most <= 2


def comfyui_fields(job: GenerateJob) -> dict[str, Any]:
    names, schedule = host_names.SAMPLER[job.sampler], host_names.SCHEDULE[job.scheduler]
    return {
        "positive": job.prompt, "negative": job.negative_prompt, "width": job.width, "height": job.height,
        "batch_size": job.batch_size, "seeds": [job.seed + i for i in range(job.batch_count)], "steps": job.steps,
        "cfg": job.cfg_scale, "sampler": names.comfyui, "scheduler": schedule.comfyui or "normal",
        "clip_skip": job.clip_skip,
    }  # fmt: skip


def channels(checkpoint: Path) -> int:
    return architecture_of(checkpoint).unet.block_out_channels[0]


def comfyui_recipes() -> list[Recipe]:
    steps = {"steps": 4, "width": 64, "height": 64}
    return [Recipe(r.name, {**steps, **r.values}) for r in recipes() if r.name != "ddim-20-steps"]


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SD15_CHECKPOINT, or random weights with a UNet a tenth as wide: ComfyUI fixes the other parts' widths."""
    if "SD15_CHECKPOINT" in os.environ:
        return Path(os.environ["SD15_CHECKPOINT"])
    from random_checkpoint import write_architecture

    released = reference("sd1")
    unet = replace(released.unet, block_out_channels=tuple(NARROW * m for m in (1, 2, 4, 4)))
    path = tmp_path_factory.mktemp("narrow") / "narrow.safetensors"
    write_architecture(replace(released, unet=unet), path, 0, "narrow")
    return path


@pytest.fixture(scope="module")
def comfyui_pictures(comfyui: Host, sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("comfyui_pictures")
    asked = {
        "host": str(comfyui.folder),
        "checkpoint": str(sd15),
        "channels": channels(sd15),
        "out": str(folder / "pictures.safetensors"),
    }
    asked["recipes"] = {r.name: comfyui_fields(r.job(sd15, folder, "comfyui")) for r in comfyui_recipes()}
    subprocess.run(
        [comfyui.python, str(comfyui.probe.with_name("comfyui_pictures.py")), json.dumps(asked)],
        env={**os.environ, **comfyui.environment},
        check=True,
        capture_output=True,
    )
    return load_file(asked["out"])


@pytest.mark.parametrize("recipe", comfyui_recipes(), ids=lambda recipe: recipe.name)
def test_comfyui_draws_the_same_picture(
    comfyui_pictures: dict[str, torch.Tensor], sd15: Path, tmp_path: Path, recipe: Recipe
) -> None:
    theirs = list(comfyui_pictures[recipe.name].numpy())
    psnr, most = compare("comfyui", recipe.name, ours(recipe.job(sd15, tmp_path, "comfyui")), theirs)
    assert psnr >= 45
    assert most <= 2
