"""Whole pictures that are drawn by us and by the hosts on one model: recipes, the model, A1111's fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sampling_cases
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_core import host_names
from lora_core.architecture import architecture_of
from lora_core.engine.generate import generate
from lora_core.events import Finished
from lora_core.jobs.generate import GenerateJob, Hires, Randomness
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.shapes import Architecture

RECORDED = ("ddim", "euler_ancestral", "dpmpp_2m_sde", "unipc", "long-prompt", "editing", "variation")
RECORDED += ("hires-lanczos", "lora")
RECORDED_SDXL = ("sdxl no negative", "sdxl lora")
PROMPT = "masterpiece, (a red cat:1.3) on [a] table, ((bright)) light"
NEGATIVE = "blurry, (dark:1.2)"
LORA_DIR, LORA = "Lora", "style"
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
        plain |= {"lora_dirs": (str(base.parent / LORA_DIR),)}
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
        Recipe("lora", {"prompt": f"{PROMPT} <lora:{LORA}:0.8>", "sampler": "euler"}),
        Recipe("lora-strengths", {"prompt": f"{PROMPT} <lora:{LORA}:-0.5:1.2>"}),
    ]
    return found


def a1111_recipes() -> list[Recipe]:
    return [
        *recipes(),
        Recipe("uniform", {"sampler": "dpmpp_2m", "scheduler": "uniform"}),
        Recipe("editing", {"prompt": "a [cat:red dog:0.5] AND a tree:0.6", "sampler": "dpmpp_sde"}),
        Recipe("padded", {"prompt": LONG, "pad_prompts": "empty", "sampler": "dpmpp_2m"}),
        Recipe("padded-v0", {"prompt": LONG, "pad_prompts": "last"}),
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


def sdxl_recipes() -> list[Recipe]:
    small = {"width": 64, "height": 64, "steps": 4}
    found = {
        "sdxl ddim": {},
        "sdxl long prompt": {"prompt": LONG, "sampler": "euler_ancestral"},
        "sdxl no negative": {"negative_prompt": "", "sampler": "dpmpp_2m", "scheduler": "karras"},
        "sdxl wide batch": {"width": 128, "batch_size": 2, "sampler": "dpmpp_2m_sde"},
        "sdxl lora": {"prompt": f"{PROMPT} <lora:{LORA}:0.8>", "sampler": "euler"},
    }
    return [Recipe(name, {**small, **values}) for name, values in found.items()]


def ours(job: GenerateJob) -> list[np.ndarray]:
    finished = list(generate(job))[-1]
    assert isinstance(finished, Finished)
    return [np.asarray(Image.open(path)) for path in finished.outputs]


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
            "pad_cond_uncond": job.pad_prompts == "empty", "pad_cond_uncond_v0": job.pad_prompts == "last",
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


def with_a_mean(path: Path, to: Path | None = None) -> Path:
    """Random text encoders give vectors of mean 0, and A1111's emphasis divides by that mean: give them another.

    The checkpoint is changed in its place, or a copy is written `to`; a LoRA for it lies in LORA_DIR beside it.
    """
    tensors, to = load_file(path), to or path
    for name in _last_biases(architecture_of(path)):
        tensors[name] = torch.full_like(tensors[name], 0.3)
    save_file(tensors, to)
    write_style(to)
    return to


def _last_biases(arch: Architecture) -> list[str]:
    """The last biases before the UNet: SDXL reads the layer before the last, without a norm."""
    if arch.family != "sdxl":
        return ["cond_stage_model.transformer.text_model.final_layer_norm.bias"]
    first, second = (encoder.layers - 2 for encoder in arch.text_encoders)
    return [
        f"conditioner.embedders.0.transformer.text_model.encoder.layers.{first}.mlp.fc2.bias",
        f"conditioner.embedders.1.model.transformer.resblocks.{second}.mlp.c_proj.bias",
    ]


def write_style(base: Path) -> Path:
    """A random LoRA for everything that one can change in `base`: attention, convolutions, text encoders."""
    arch = architecture_of(base)
    targets = lora_targets(arch, conv=True, text_encoders=True)
    generator, modules = torch.Generator().manual_seed(7), {}
    for key in targets:
        sizes = (4, *key.shape[1:]), (key.shape[0], 4, *(1,) * (len(key.shape) - 2))
        down, up = (torch.randn(size, generator=generator) / math.sqrt(math.prod(size[1:])) for size in sizes)
        modules[key.canonical] = LoraModule(down, up * 0.2, 4.0)
    path = base.parent / LORA_DIR / f"{LORA}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_lora(path, Lora(modules, {}, arch.family), targets, torch.float16, {"ss_output_name": LORA})
    return path
