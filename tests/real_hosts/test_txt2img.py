"""Our pictures beside the real hosts' own, on narrow models: A1111 through its API, ComfyUI through its nodes.

A1111: A1111_DIR, A1111_PYTHON. ComfyUI: COMFYUI_DIR, COMFYUI_PYTHON. SD15_CHECKPOINT names a full-size SD1.5 file that
takes the narrow models' place (tools/random_checkpoint.py makes one; -k runs a part of the recipes). PARITY_TABLE names
a file that the figures are appended to.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from a1111_live import A1111, running_a1111
from host_programs import Host
from picture_recipes import LORA_DIR, Recipe, a1111_fields, a1111_recipes, ours, recipes, with_a_mean
from safetensors.torch import load_file
from small_models import write_small_hub, write_small_model

from lora_core import host_names
from lora_core.architecture import architecture_of
from lora_core.families import reference
from lora_core.jobs.generate import GenerateJob
from lora_core.lora_tags import split_lora_tags

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

NARROW = 32


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


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A copy of SD15_CHECKPOINT."""
    if "SD15_CHECKPOINT" not in os.environ:
        return None
    return with_a_mean(Path(os.environ["SD15_CHECKPOINT"]), tmp_path_factory.mktemp("full") / "full.safetensors")


@pytest.fixture(scope="module")
def base(full: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What A1111 draws with."""
    return full or with_a_mean(write_small_model(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def webui(full: Path | None, base: Path, hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111]:
    home = hub if full else tmp_path_factory.mktemp("home")
    if full is None:
        write_small_hub(home)
    with running_a1111(base, home, tmp_path_factory.mktemp("a1111")) as host:
        yield host


@pytest.mark.parametrize("recipe", a1111_recipes(), ids=lambda recipe: recipe.name)
def test_a1111_draws_the_same_picture(webui: A1111, base: Path, tmp_path: Path, recipe: Recipe) -> None:
    job = recipe.job(base, tmp_path, "a1111")
    psnr, most = compare("a1111", recipe.name, ours(job), webui.txt2img(**a1111_fields(job)))
    assert psnr >= 45
    assert most <= 2


def comfyui_fields(job: GenerateJob) -> dict[str, Any]:
    names, schedule = host_names.SAMPLER[job.sampler], host_names.SCHEDULE[job.scheduler]
    prompt, tags = split_lora_tags(job.prompt)
    return {
        "loras": [(f"{t.name}.safetensors", t.strength, t.text_encoder_strength) for t in tags],
        "positive": prompt, "negative": job.negative_prompt, "width": job.width, "height": job.height,
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
def sd15(full: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size file, or random weights with a UNet a tenth as wide: ComfyUI fixes the other parts' widths."""
    if full:
        return full
    from random_checkpoint import write_architecture

    released = reference("sd1")
    unet = replace(released.unet, block_out_channels=tuple(NARROW * m for m in (1, 2, 4, 4)))
    path = tmp_path_factory.mktemp("narrow") / "narrow.safetensors"
    write_architecture(replace(released, unet=unet), path, 0, "narrow")
    return with_a_mean(path)


@pytest.fixture(scope="module")
def comfyui_pictures(comfyui: Host, sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("comfyui_pictures")
    asked = {
        "host": str(comfyui.folder),
        "checkpoint": str(sd15),
        "channels": channels(sd15),
        "loras": str(sd15.parent / LORA_DIR),
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
