"""Jobs that make pictures."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.jobs.train import name_problems
from lora_core.settings import problems, setting

SAMPLERS = ("ddim", "euler")
SCHEDULERS = ("normal", "karras", "ddim_uniform")


@dataclass(frozen=True)
class LoraUse:
    """One LoRA applied while generating; `text_encoder_strength` None means as `strength`."""

    path: str
    strength: float = 1.0
    text_encoder_strength: float | None = None


@dataclass(frozen=True)
class GenerateJob:
    """txt2img: `batch_count` pictures, seeds counting up from `seed`."""

    base: str = setting("", "Base model", "Checkpoint or diffusers folder.", widget="checkpoint")
    prompt: str = setting("", "Prompt", "<lora:name:0.8> applies a LoRA of lora_dirs.", widget="text")
    negative_prompt: str = setting("", "Negative prompt", widget="text")
    output_dir: str = setting("", "Output folder", widget="save_folder")
    name: str = setting("picture", "File name", "Pictures are numbered: name-00001.png")
    loras: tuple[LoraUse, ...] = ()
    lora_dirs: tuple[str, ...] = setting(
        (), "LoRA folders", "Where <lora:name:1> looks.", widget="lines", advanced=True
    )
    width: int = setting(512, "Width", min=64, max=8192, step=8)
    height: int = setting(512, "Height", min=64, max=8192, step=8)
    steps: int = setting(20, "Steps", min=1, max=1000)
    cfg_scale: float = setting(7.0, "CFG scale", min=0, max=100)
    sampler: str = setting("ddim", "Sampler", choices=SAMPLERS)
    scheduler: str = setting("normal", "Schedule type", choices=SCHEDULERS)
    seed: int = setting(0, "Seed", min=0, max=2**64 - 1)
    batch_count: int = setting(1, "Pictures", min=1, max=1000)
    clip_skip: int = setting(1, "Clip skip", min=1, max=12)
    vae: str = setting("", "VAE", widget="file", advanced=True)
    device: str = setting("auto", "Device", advanced=True)
    dtype: str = setting("auto", "Precision", choices=("auto", "fp32", "bf16", "fp16"), advanced=True)

    def problems(self) -> list[str]:
        found = problems(self)
        if not self.base:
            found.append("No base model is named: set base to a checkpoint file or a diffusers folder.")
        if not self.output_dir:
            found.append("No output folder is named: set output_dir.")
        return found + name_problems(self.name)


@dataclass(frozen=True)
class InpaintJob(GenerateJob):
    """Repaint the white part of `mask` in `image`, A1111's order of operations."""

    image: str = setting("", "Picture", widget="file")
    mask: str = setting("", "Mask", "White is repainted. Empty: the picture's alpha.", widget="file")
    denoising_strength: float = setting(0.75, "Denoising strength", min=0, max=1)
    mask_blur: int = setting(4, "Mask blur", "In pixels.", min=0, max=64)
    masked_content: str = setting(
        "original", "Masked content", choices=("fill", "original", "latent noise", "latent nothing")
    )
    inpaint_area: str = setting("whole picture", "Inpaint area", choices=("whole picture", "only masked"))
    only_masked_padding: int = setting(32, "Only masked padding", "In pixels.", min=0, max=1024)

    def problems(self) -> list[str]:
        return super().problems() + ([] if self.image else ["No picture is named: set image."])
