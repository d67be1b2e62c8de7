"""The job that compares the saves of a training and recommends one."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.jobs.generate import ARITHMETICS, SAMPLERS, SCHEDULERS
from lora_core.settings import problems, setting


@dataclass(frozen=True)
class ChooseJob:
    """A grid of saves x strengths (and without LoRA) at fixed seeds, each scored, one recommended.

    Written to `output_dir`: grid.png, scores.json, index.html.
    """

    base: str = setting("", "Base model", "Checkpoint or diffusers folder.", widget="checkpoint")
    loras: tuple[str, ...] = setting((), "LoRA files", "The saves to compare.", widget="lines")
    folder: str = setting("", "Or all saves of a folder", "With a name: its saves only.", widget="folder")
    name: str = setting("", "Name of the LoRA", "name.safetensors and name-000123.safetensors.")
    output_dir: str = setting("", "Folder for the report", widget="save_folder")
    strengths: tuple[float, ...] = setting((0.6, 0.8, 1.0), "Strengths", min=-4, max=4)
    prompts: tuple[str, ...] = setting((), "Prompts", "With the trigger word; one row each.", widget="lines")
    neutral_prompts: tuple[str, ...] = setting(
        (), "Prompts without the trigger", "They should change little.", widget="lines"
    )
    negative_prompt: str = setting("", "Negative prompt", widget="text")
    seeds: tuple[int, ...] = setting((1,), "Seeds", min=0, max=2**63 - 1)
    held_out: str = setting("", "Held-out pictures", "Never trained on: held-out loss, likeness.", widget="folder")
    training_pictures: str = setting("", "Training pictures", "To notice copies of them.", widget="folder")
    width: int = setting(512, "Width", min=64, max=8192, step=8)
    height: int = setting(512, "Height", min=64, max=8192, step=8)
    steps: int = setting(20, "Steps", min=1, max=1000)
    cfg_scale: float = setting(7.0, "CFG scale", min=0, max=100)
    sampler: str = setting("ddim", "Sampler", choices=SAMPLERS)
    scheduler: str = setting("automatic", "Schedule type", choices=SCHEDULERS)
    clip_skip: int = setting(1, "Clip skip", min=1, max=12)
    arithmetic: str = setting("a1111", "Arithmetic of", "Whose picture to reproduce.", choices=ARITHMETICS)
    vae: str = setting("", "VAE", widget="file", advanced=True)
    device: str = setting("auto", "Device", advanced=True)
    dtype: str = setting("auto", "Precision", choices=("auto", "fp32", "bf16", "fp16"), advanced=True)

    def problems(self) -> list[str]:
        found = problems(self)
        if not self.base:
            found.append("No base model is named: set base to a checkpoint file or a diffusers folder.")
        if not self.loras and not self.folder:
            found.append("No LoRA is named: set loras or folder.")
        if not self.prompts:
            found.append("No prompt is named: set prompts, with the trigger word.")
        if not self.output_dir:
            found.append("No folder for the report is named: set output_dir.")
        return found


@dataclass(frozen=True)
class KeepJob:
    """Keep one save: its recommended strength goes into the file and into A1111's sidecar NAME.json."""

    lora: str = setting("", "LoRA to keep", "The save that was chosen.", widget="lora")
    strength: float = setting(1.0, "Recommended strength", min=0.01, max=4)
    trigger: str = setting("", "Trigger words", "Empty: those that the file names already.")
    remove: tuple[str, ...] = setting(
        (), "Remove these saves", "Other saves of the training, file by file.", widget="lines"
    )
    away: str = setting("", "Put them away into", "Empty: they are deleted.", widget="save_folder")

    def problems(self) -> list[str]:
        found = problems(self)
        if not self.lora:
            found.append("No LoRA is named: set lora.")
        if self.lora in self.remove:
            found.append("The save to keep is also among those to remove: take it out of remove.")
        return found
