"""Jobs that make pictures: from a prompt, from a picture, inside a mask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_core.jobs.choices import SAMPLERS
from lora_core.jobs.train import name_problems
from lora_core.settings import group, problems, setting

ARITHMETICS = ("a1111", "comfyui")
SCHEDULERS = ("automatic", "normal", "uniform", "karras", "exponential", "simple", "ddim_uniform", "sgm_uniform")
NOISE_SOURCES = ("cpu", "gpu", "nv")
EMPHASES = ("original", "no norm", "ignore", "none")
PADDINGS = ("none", "empty", "last")
RESIZE_MODES = ("just resize", "crop and resize", "resize and fill", "just resize (latent upscale)")
MASKED_CONTENTS = ("fill", "original", "latent noise", "latent nothing", "grey")
INPAINT_AREAS = ("whole picture", "only masked")
HIRES_UPSCALERS = (
    "latent",
    "latent (antialiased)",
    "latent (bicubic)",
    "latent (bicubic antialiased)",
    "latent (nearest)",
    "latent (nearest-exact)",
    "lanczos",
    "nearest",
)
PICTURE_FORMATS = ("png", "jpeg", "webp")
SEED_MAX = 2**64 - 1


@dataclass(frozen=True)
class LoraUse:
    """One LoRA applied while generating; `text_encoder_strength` None means as `strength`.

    `blocks` weighs its blocks, see `lora_core.block_weights`; "" means all alike.
    """

    path: str
    strength: float = 1.0
    text_encoder_strength: float | None = None
    blocks: str = ""


@dataclass(frozen=True)
class Randomness:
    """Where noise comes from, beside the seed."""

    noise_source: str = setting(
        "cpu",
        "Noise from",
        "cpu: the same picture on every machine; gpu: as A1111 on that card; nv: A1111's imitation of NVIDIA's.",
        choices=NOISE_SOURCES,
        advanced=True,
    )
    subseed: int = setting(0, "Variation seed", min=0, max=SEED_MAX, advanced=True)
    subseed_strength: float = setting(
        0.0, "Variation strength", "0: none; 1: all of the variation seed.", min=0, max=1, advanced=True
    )
    eta: float = setting(1.0, "Eta", "Noise that ancestral and SDE samplers add back.", min=0, max=2, advanced=True)
    eta_noise_seed_delta: int = setting(
        0, "Eta noise seed delta", "A1111's ENSD; 31337 repeats NovelAI.", min=0, max=SEED_MAX, advanced=True
    )


@dataclass(frozen=True)
class Hires:
    """A second pass at a larger size, A1111's "Hires. fix"."""

    hires_scale: float = setting(1.0, "Hires. scale", "1: no second pass.", min=1, max=8)
    hires_width: int = setting(0, "Hires. width", "0: by the scale.", min=0, max=8192, step=8, advanced=True)
    hires_height: int = setting(0, "Hires. height", "0: by the scale.", min=0, max=8192, step=8, advanced=True)
    hires_upscaler: str = setting("latent", "Hires. upscaler", choices=HIRES_UPSCALERS)
    hires_steps: int = setting(0, "Hires. steps", "0: as the first pass.", min=0, max=1000)
    hires_denoising: float = setting(0.7, "Hires. denoising strength", min=0, max=1)


@dataclass(frozen=True)
class GenerateJob:
    """txt2img: `batch_count` batches of `batch_size` pictures, seeds counting up from `seed`."""

    base: str = setting("", "Base model", "Checkpoint or diffusers folder.", widget="checkpoint")
    prompt: str = setting("", "Prompt", "<lora:name:0.8> applies a LoRA of lora_dirs.", widget="text")
    negative_prompt: str = setting("", "Negative prompt", widget="text")
    output_dir: str = setting("", "Output folder", widget="save_folder")
    name: str = setting("picture", "File name", "Pictures are numbered: name-00001.png")
    loras: tuple[LoraUse, ...] = ()
    lora_dirs: tuple[str, ...] = setting(
        (), "LoRA folders", "Where <lora:name:1> looks.", widget="lines", advanced=True
    )
    embedding_dirs: tuple[str, ...] = setting(
        (), "Embedding folders", "Textual inversions, used by their file name.", widget="lines", advanced=True
    )
    width: int = setting(512, "Width", min=64, max=8192, step=8)
    height: int = setting(512, "Height", min=64, max=8192, step=8)
    steps: int = setting(20, "Steps", min=1, max=1000)
    cfg_scale: float = setting(7.0, "CFG scale", min=0, max=100)
    sampler: str = setting("ddim", "Sampler", choices=SAMPLERS)
    scheduler: str = setting("automatic", "Schedule type", choices=SCHEDULERS)
    seed: int = setting(0, "Seed", min=0, max=SEED_MAX)
    batch_count: int = setting(1, "Batch count", "Batches, one after another.", min=1, max=1000)
    batch_size: int = setting(1, "Batch size", "Pictures at a time.", min=1, max=64)
    clip_skip: int = setting(1, "Clip skip", "1 = last layer; 2 is usual for anime models.", min=1, max=12)
    arithmetic: str = setting(
        "a1111",
        "Arithmetic of",
        "Whose picture to reproduce: prompt syntax, noise, DDIM and masks differ between the hosts.",
        choices=ARITHMETICS,
    )
    emphasis: str = setting("original", "Emphasis", "How A1111 weighs (words:1.2).", choices=EMPHASES, advanced=True)
    pad_prompts: str = setting(
        "none",
        "Pad prompts",
        "A1111's options that bring prompt and negative prompt to one length. empty: the shorter is filled with an "
        "empty prompt. last: with its last token, and a longer negative prompt is cut (v0, DDIM before 1.6).",
        choices=PADDINGS,
        advanced=True,
    )
    cfg_rescale: float = setting(0.0, "CFG rescale", "Lin et al. 2023; 0 = off.", min=0, max=1, advanced=True)
    prediction: str = setting(
        "auto", "Prediction type", "auto: read from the base.", choices=("auto", "epsilon", "v"), advanced=True
    )
    zero_terminal_snr: str = setting(
        "auto", "Zero terminal SNR", "auto: read from the base.", choices=("auto", "on", "off"), advanced=True
    )
    randomness: Randomness = group(Randomness, "Randomness")
    hires: Hires = group(Hires, "Hires. fix")
    picture_format: str = setting("png", "Picture format", choices=PICTURE_FORMATS, advanced=True)
    save_text: bool = setting(
        False, "Text beside pictures", "Each picture's parameters also as a .txt file of its name.", advanced=True
    )
    preview_every_steps: int = setting(0, "Preview every N steps", "0 = off.", min=0, max=1000, advanced=True)
    low_memory: bool = setting(
        False,
        "Low memory",
        "One part of the model at a time on the GPU, one prompt at a time, the VAE in tiles; slower.",
        advanced=True,
    )
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

    @staticmethod
    def from_picture(path: str | Path, folders: Sequence[str | Path] = ()) -> GenerateJob:
        """The job that drew a picture of A1111, ComfyUI or LoRA Loom, of the class that fits; see `recipes.recipe_of`.

        Model and LoRA files are looked for in `folders`. What the job does not repeat comes as one UserWarning each.
        Raises FileError for a picture without a recipe.
        """
        from lora_core.recipes import match_files, recipe_of

        recipe = match_files(recipe_of(path), folders) if folders else recipe_of(path)
        for sentence in recipe.unmapped:
            warnings.warn(sentence, stacklevel=2)
        return recipe.job


@dataclass(frozen=True)
class Img2ImgJob(GenerateJob):
    """Draw over `image`, as far as `denoising_strength` says."""

    image: str = setting("", "Picture", widget="file")
    denoising_strength: float = setting(0.75, "Denoising strength", min=0, max=1)
    resize_mode: str = setting("just resize", "Resize mode", choices=RESIZE_MODES)
    color_correction: bool = setting(
        False, "Colour correction", "Match the result's colours to the picture's.", advanced=True
    )
    all_steps: bool = setting(
        False,
        "Do exactly the number of steps",
        "Otherwise steps x denoising strength; ComfyUI's arithmetic always does them all.",
        advanced=True,
    )
    noise_multiplier: float = setting(1.0, "Noise multiplier", min=0, max=1.5, advanced=True)

    def problems(self) -> list[str]:
        found = super().problems() + ([] if self.image else ["No picture is named: set image."])
        if self.hires.hires_scale > 1 or self.hires.hires_width or self.hires.hires_height:
            found.append(
                "Hires. fix is for pictures from nothing (generate): set hires_scale to 1, and width and height."
            )
        return found


@dataclass(frozen=True)
class SoftInpainting:
    """A1111's soft inpainting: grey mask values blend, and the border follows what changed."""

    soft_inpainting: bool = setting(
        False, "Soft inpainting", "Blends by the mask's greys; may change pixels some way outside the mask too."
    )
    mask_blend_power: float = setting(1.0, "Schedule bias", min=0, max=8, step=0.1, advanced=True)
    mask_blend_scale: float = setting(0.5, "Preservation strength", min=0, max=8, step=0.05, advanced=True)
    detail_preservation: float = setting(4.0, "Transition contrast boost", min=1, max=32, step=0.5, advanced=True)
    composite_mask_influence: float = setting(0.0, "Mask influence", min=0, max=1, step=0.05, advanced=True)
    composite_difference_threshold: float = setting(0.5, "Difference threshold", min=0, max=8, step=0.25, advanced=True)
    composite_difference_contrast: float = setting(2.0, "Difference contrast", min=0, max=8, step=0.25, advanced=True)


@dataclass(frozen=True)
class InpaintJob(Img2ImgJob):
    """Repaint the white part of `mask` in `image`, A1111's order of operations."""

    mask: str = setting("", "Mask", "White is repainted. Empty: the picture's alpha.", widget="file")
    mask_blur: int = setting(4, "Mask blur", "In pixels.", min=0, max=64)
    mask_invert: bool = setting(False, "Inpaint not masked", "Repaint the black part instead.")
    masked_content: str = setting(
        "original",
        "Masked content",
        "What the drawing starts from; grey is what ComfyUI's VAE Encode (for Inpainting) puts there.",
        choices=MASKED_CONTENTS,
    )
    mask_grow: int = setting(
        6,
        "Grow mask",
        "In pixels, with masked content grey only: ComfyUI's grow_mask_by.",
        min=0,
        max=64,
        advanced=True,
    )
    inpaint_area: str = setting("whole picture", "Inpaint area", choices=INPAINT_AREAS)
    only_masked_padding: int = setting(32, "Only masked padding", "In pixels.", min=0, max=1024)
    keep_size: bool = setting(
        True,
        "Keep the picture's size",
        "Off: whole pictures come out as width x height, without transparency, as from A1111.",
        advanced=True,
    )
    overlay_original: bool = setting(
        True,
        "Overlay the original",
        "What is not masked keeps its very pixels. Off: all that was drawn is the result.",
        advanced=True,
    )
    conditioning_mask_strength: float = setting(
        1.0,
        "Inpainting conditioning mask strength",
        "9-channel models only: how much of the picture below the mask is hidden from the model.",
        min=0,
        max=1,
        advanced=True,
    )
    soft: SoftInpainting = group(SoftInpainting, "Soft inpainting")
