"""Recipe from Picture at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_core.host_names import SAMPLER, SCHEDULE
from lora_core.jobs import GenerateJob
from lora_core.recipes import Recipe, match_files, recipe_of

from . import host, places
from .declare import Context, Result
from .lists import DEMO
from .recipe import path_of


def run(context: Context, values: dict[str, Any]) -> Result:
    folders = [folder for kind in places.MODEL_KINDS for folder in host.folders(kind)]
    recipe = match_files(recipe_of(path_of(values)), [*folders, DEMO, host.input_folder()])
    job: Any = recipe.job
    text = told(recipe)
    sampler, schedule = SAMPLER[job.sampler].comfyui, SCHEDULE[job.scheduler].comfyui
    denoise = getattr(job, "denoising_strength", 1.0)
    drawn = (job.prompt, job.negative_prompt, job.width, job.height, job.seed, job.steps, job.cfg_scale, denoise)
    named = (sampler, schedule or "normal", job.loras, text)
    return Result((recipe, *drawn, *named), {"text": [text]})


def told(recipe: Recipe) -> str:
    """The recipe for a person."""
    job: GenerateJob = recipe.job
    base = Path(job.base).name or "unknown"
    lines = [f"{recipe.source}: {recipe.kind}", f"Base: {base}", f"Prompt: {job.prompt}"]
    lines += [f"Negative: {job.negative_prompt}"] if job.negative_prompt else []
    lines.append(
        f"{job.width} x {job.height}, {job.steps} steps of {job.sampler}, CFG {job.cfg_scale:g}, seed {job.seed}"
    )
    lines += [f"LoRA: {Path(use.path).name} at {use.strength:g}" for use in job.loras]
    lines += [f"Not taken over: {line}" for line in recipe.unmapped]
    return "\n".join([*lines, *(f"Assumed: {line}" for line in recipe.assumed)])
