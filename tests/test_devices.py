"""Every job on a device that refuses tensors of another one, as a graphics card does; the results are the CPU's.

Small weights and small changes: a random model enlarges the last bit, which another order of sums moves."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretend_device
import pytest
import tiny
import torch
from PIL import Image
from test_choose import job as choose_job  # noqa: F401  (a fixture)
from test_choose import models, save_lora  # noqa: F401
from test_generate import inpaint_job, lora_file, picture
from test_generate import job as generate_job
from test_train import job_for, losses

from lora_core.events import Finished
from lora_core.jobs.choices import SAMPLERS
from lora_core.jobs.generate import Hires, SoftInpainting
from lora_core.run import run

pytestmark = pytest.mark.skipif(not pretend_device.available(), reason="this torch has no device written in Python")

NOISE = {
    "noise_offset": 0.1, "noise_offset_random": True, "adaptive_noise_scale": 0.1, "ip_noise_gamma": 0.1,
    "timestep_density": "logit_normal", "multires_iterations": 3, "min_snr_gamma": 5.0, "loss": "huber",
}  # fmt: skip
DROPS = {"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1, "max_norm": 1.0, "ema": 0.9}
MASKS = {"alpha_mask": True, "color_shift": True, "random_crop": True, "variants": 2}
SAVES = {"save_every_steps": 1, "state_every_steps": 1, "validation_split": 0.5, "validate_every_steps": 1}
PREVIEWS = {"preview_prompts": ("a cat",), "preview_every_steps": 2, "preview_steps": 1}
TRAININGS: dict[str, dict[str, object]] = {
    **{name: {"algorithm": name, "train_text_encoder": False, "steps": 1} for name in ("loha", "lokr", "ia3", "oft")},
    "sdxl": {"kind": "sdxl", "gradient_checkpointing": True, "steps": 1, "include": "*down_blocks*"},
    "noise": {"train_text_encoder": False, **NOISE, **MASKS, "optimizer": "adafactor"},
    "v": {"prediction": "v", "zero_terminal_snr": "on", "scale_v_like_epsilon": True, **DROPS, "algorithm": "dora"},
    "words": {"token_vectors": 2, "weighted": True, "max_tokens": 225, "clip_skip": 2, **SAVES, **PREVIEWS},
    "pissa": {"initialisation": "pissa", "lora_plus_ratio": 4.0, "class_target": "base", "cache_text": False},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64 + 32 * (i % 2), 4), np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"one, (two:1.2), tag {i}")
    return folder


@pytest.fixture(scope="module")
def child() -> Iterator[Executor]:
    """A process of its own: a registered device stays."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=pretend_device.start) as pool:
        yield pool


def ran(job) -> list:
    return list(run(job))


@pytest.mark.parametrize("name", TRAININGS)
def test_training(child: Executor, tmp_path: Path, pictures: Path, name: str) -> None:
    values = {"steps": 2, **TRAININGS[name]}
    if "class_target" in values:
        values["class_pictures"] = str(pictures)
    here, there = (
        child.submit(ran, job_for(tmp_path / device, pictures, device=device, **values)).result()
        for device in ("cpu", pretend_device.NAME)
    )
    assert losses(there) == pytest.approx(losses(here), rel=1e-3)
    assert len(losses(there)) == values["steps"] and isinstance(there[-1], Finished)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_drawing(child: Executor, tmp_path: Path, sampler: str) -> None:
    same(child, generate_job(tmp_path, height=64, sampler=sampler, steps=2, arithmetic="comfyui"))


DRAWINGS: dict[str, dict[str, object]] = {
    "low memory": {"low_memory": True, "hires": Hires(hires_scale=1.5, hires_steps=2)},
    "prompts": {"prompt": "a cat [dog:mouse:0.5] BREAK x AND y:0.5 <lora:style:0.01>", "cfg_rescale": 0.5},
    "batch": {"batch_size": 2, "preview_every_steps": 1, "prediction": "v", "zero_terminal_snr": "on"},
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_with(child: Executor, tmp_path: Path, name: str) -> None:
    (tmp_path / "loras").mkdir()
    lora_file(tmp_path / "loras", "sd15", "style")
    same(child, generate_job(tmp_path, height=64, lora_dirs=(str(tmp_path / "loras"),), **DRAWINGS[name]))


INPAINTINGS: dict[str, dict[str, object]] = {
    "soft": {"soft": SoftInpainting(soft_inpainting=True)},
    "only masked": {"inpaint_area": "only masked", "color_correction": True, "masked_content": "latent noise"},
    "upscale": {"resize_mode": "just resize (latent upscale)"},
    "comfyui": {"arithmetic": "comfyui"},
    "9 channels": {"base": str(tiny.checkpoint("sd15-inpaint"))},
}


@pytest.mark.parametrize("name", INPAINTINGS)
def test_inpainting(child: Executor, tmp_path: Path, name: str) -> None:
    same(child, inpaint_job(tmp_path, height=64, **INPAINTINGS[name]))


def same(child: Executor, job) -> None:
    here, there = (
        picture(child.submit(ran, replace(job, device=device)).result()).astype(int)
        for device in ("cpu", pretend_device.NAME)
    )
    assert np.abs(here - there).max() <= 1


def test_choosing(child: Executor, choose_job) -> None:  # noqa: F811
    events = child.submit(ran, replace(choose_job, device=pretend_device.NAME)).result()
    assert isinstance(events[-1], Finished) and events[-1].report["recommendation"]


def test_the_device_is_strict(child: Executor) -> None:
    assert child.submit(mixing).result() == ["add", "numpy()"]


def mixing() -> list[str]:
    """The operators that refuse what a graphics card refuses."""
    there, here, refused = torch.ones(2, device=pretend_device.NAME), torch.ones(2), []
    for act in (lambda: there + here, lambda: there.numpy(), lambda: there + here.sum(), lambda: there.cpu().numpy()):
        try:
            act()
        except pretend_device.Mixed as error:
            refused.append(str(error).split()[0].strip(":"))
    return refused
