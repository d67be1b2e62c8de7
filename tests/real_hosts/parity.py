"""Our pictures held against a host's: figures, their table, and what ComfyUI's probe is asked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from a1111_live import A1111, running_a1111
from comfy_inpaint_cases import Graph
from host_programs import Host
from inpaint_cases import Case, drawn_by_us, likeness, payload, picture
from picture_recipes import LORA_DIR, Recipe, with_a_mean
from safetensors.torch import load_file
from small_models import SDXL_LIKE_A1111, write_small_hub

from lora_core import host_names
from lora_core.architecture import architecture_of
from lora_core.families import reference
from lora_core.jobs.generate import GenerateJob
from lora_core.lora_tags import split_lora_tags

NARROW = 32


def compare(host: str, name: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> tuple[float, int]:
    """The worst PSNR in dB and the largest difference of a value, over all pictures; also into the table of figures."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    found = [likeness(a, b) for a, b in zip(ours, theirs)]
    worst = min(found)[0], max(levels for _, levels in found)
    if "PARITY_TABLE" in os.environ:
        with open(os.environ["PARITY_TABLE"], "a") as table:
            table.write(f"{host:8} {name:44} {worst[0]:6.1f} dB  max {worst[1]}\n")
    return worst


def channels(checkpoint: Path) -> int:
    return architecture_of(checkpoint).unet.block_out_channels[0]


def narrow_sd15(folder: Path) -> Path:
    """Random weights with a UNet a tenth as wide; its loader of checkpoints fixes the widths of the other parts."""
    from random_checkpoint import write_architecture

    released = reference("sd1")
    unet = replace(released.unet, block_out_channels=tuple(NARROW * m for m in (1, 2, 4, 4)))
    path = folder / "narrow.safetensors"
    write_architecture(replace(released, unet=unet), path, 0, "narrow")
    return with_a_mean(path)


@contextmanager
def running_sdxl(base: Path, folder: Path) -> Iterator[A1111]:
    """A1111 with the model of small_models.write_small_sdxl, told by a configuration beside it."""
    repository = Path(os.environ.get("A1111_DIR", ""), "repositories", "generative-models")
    config = repository / "configs" / "inference" / "sd_xl_base.yaml"
    if config.is_file():
        text = config.read_text("utf-8")
        for theirs, narrow in SDXL_LIKE_A1111.items():
            text = text.replace(theirs, narrow)
        base.with_suffix(".yaml").write_text(text, "utf-8")
    write_small_hub(folder / "home")
    with running_a1111(base, folder / "home", folder / "data") as host:
        yield host


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


def comfyui_draws(
    host: Host, base: Path, recipes: Sequence[Recipe], folder: Path, narrow: dict[str, Any] | None = None
) -> dict[str, list[np.ndarray]]:
    """Recipe's name -> pictures [h, w, 3] that ComfyUI's nodes draw. `narrow`: see the probes' module of that name."""
    asked = {
        "narrow": narrow,
        "host": str(host.folder),
        "checkpoint": str(base),
        "channels": channels(base),
        "loras": str(base.parent / LORA_DIR),
        "out": str(folder / "pictures.safetensors"),
        "recipes": {r.name: comfyui_fields(r.job(base, folder, "comfyui")) for r in recipes},
    }
    command = [host.python, str(host.probe.with_name("comfyui_pictures.py")), json.dumps(asked)]
    done = subprocess.run(command, env={**os.environ, **host.environment}, capture_output=True, text=True)
    assert "RESULT" in done.stdout, done.stderr[-5000:]
    return {name: list(pictures.numpy()) for name, pictures in load_file(asked["out"]).items()}


def apart(host: A1111, checkpoint: Path, case: Case, folder: Path) -> str:
    """What is wrong with our picture of a case; "" where nothing is. A1111 is asked twice: see record_inpainting."""
    mask = picture(case.mask) if case.mask else None
    for _ in range(2):
        theirs = host.img2img(picture(case.image), mask, **payload(case))
    folder.mkdir(exist_ok=True)
    ours = drawn_by_us(case, checkpoint, folder)
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return f"{case.name}: {[one.shape for one in ours]}, A1111 {[one.shape for one in theirs]}"
    ratio, furthest = compare("a1111", f"{checkpoint.stem}: {case.name}", ours, theirs)
    return "" if ratio >= 45 and furthest <= 2 else f"{case.name}: {ratio} dB, {furthest} levels"


def graphs_apart(
    graphs: Sequence[Graph], theirs: dict[str, np.ndarray], folder: Path, base: Callable[[Graph], Path]
) -> list[str]:
    """What is wrong with our pictures of ComfyUI's graphs."""
    wrong = []
    for i, graph in enumerate(graphs):
        (folder / str(i)).mkdir()
        ours = drawn_by_us(graph.case, base(graph), folder / str(i))
        ratio, furthest = compare("comfyui", f"{base(graph).stem}: {graph.name}", ours, theirs[graph.name])
        if ratio < 45 or furthest > 2:
            wrong.append(f"{graph.name}: {ratio} dB, {furthest} levels")
    return wrong
