"""Which of A1111's infotext keys holds which setting of a job, and the infotext of a picture that a job drew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lora_core import __version__, host_names
from lora_core.infotext import infotext, spell_number, written_hashes
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob, LoraUse
from lora_core.prompt_a1111 import without_comments
from lora_core.settings import describe

PROGRAM = "LoRA Loom"
_SCHEDULED = re.compile(r"\bSampler: ([^,\n]+), Schedule type: ([^,\n]+)")


class Field(NamedTuple):
    """`kind` is int, float, bool, str, or a table token -> label. `always`: also written with its default value."""

    key: str
    setting: str
    kind: Any
    always: bool = False


GENERATE = (
    Field("Steps", "steps", int, True),
    Field("CFG scale", "cfg_scale", float, True),
    Field("Clip skip", "clip_skip", int),
    Field("Eta", "eta", float),
    Field("ENSD", "eta_noise_seed_delta", int),
    Field("RNG", "noise_source", host_names.RNG, True),
    Field("Emphasis", "emphasis", host_names.EMPHASIS),
    Field("Noise Schedule", "zero_terminal_snr", {"on": "Zero Terminal SNR", "off": "Default"}),
    Field("CFG rescale", "cfg_rescale", float),
    Field("Prediction type", "prediction", {"epsilon": "Epsilon", "v": "V"}),
    Field("Arithmetic", "arithmetic", {"comfyui": "ComfyUI"}),
)
IMG2IMG = (
    Field("Denoising strength", "denoising_strength", float, True),
    Field("Noise multiplier", "noise_multiplier", float),
    Field("Resize mode", "resize_mode", host_names.RESIZE_MODE),
    Field("Color correction", "color_correction", bool),
    Field("Exact steps", "all_steps", bool),
)
INPAINT = (
    Field("Conditional mask weight", "conditioning_mask_strength", float),
    Field("Mask blur", "mask_blur", int, True),
    Field("Mask mode", "mask_invert", host_names.MASK_MODE),
    Field("Masked content", "masked_content", host_names.MASKED_CONTENT),
    Field("Inpaint area", "inpaint_area", host_names.INPAINT_AREA),
    Field("Masked area padding", "only_masked_padding", int),
    Field("Mask grow", "mask_grow", int),
    Field("Keep size", "keep_size", bool, True),
    Field("Overlay original", "overlay_original", bool),
)
SOFT = (
    Field("Soft inpainting enabled", "soft_inpainting", bool, True),
    Field("Soft inpainting schedule bias", "mask_blend_power", float, True),
    Field("Soft inpainting preservation strength", "mask_blend_scale", float, True),
    Field("Soft inpainting transition contrast boost", "detail_preservation", float, True),
    Field("Soft inpainting mask influence", "composite_mask_influence", float, True),
    Field("Soft inpainting difference threshold", "composite_difference_threshold", float, True),
    Field("Soft inpainting difference contrast", "composite_difference_contrast", float, True),
)


@dataclass(frozen=True)
class Drawn:
    """What one picture adds to its job: its own seeds, and hashes (whole, in hexadecimal; "" where not known).

    `model_hash` and `vae_hash` are the SHA-256 of the files. `position` counts the pictures of one batch from 0; it is
    written where the noise of a batch is drawn at once (ComfyUI's arithmetic). An embedding that came in a LoRA has the
    LoRA's name in place of a hash.
    """

    seed: int
    subseed: int = 0
    lora_hashes: tuple[tuple[str, str], ...] = ()
    embedding_hashes: tuple[tuple[str, str], ...] = ()
    model_hash: str = ""
    vae_hash: str = ""
    position: int = 0


def parameters(job: GenerateJob, drawn: Drawn) -> str:
    """The infotext of a picture that `job` drew. LoRAs given by file appear as tags, so that A1111 finds them again.

    Comments (behind "#") are left out as A1111 does, which would take a tag behind one for a part of it.
    """
    return infotext(tagged_prompt(job), read_by_host(job, job.negative_prompt), values_of(job, drawn))


def read_by_host(job: GenerateJob, prompt: str) -> str:
    """A prompt without what the job's host passes over."""
    return without_comments(prompt) if job.arithmetic == "a1111" else prompt


def tagged_prompt(job: GenerateJob) -> str:
    """The prompt with a tag for each LoRA that is given by its file."""
    return read_by_host(job, job.prompt) + "".join(lora_tag(use) for use in job.loras)


def before_1_9(text: str) -> str:
    """An infotext with its sampler as A1111 before 1.9 reads it: with the schedule in its name."""
    found = list(_SCHEDULED.finditer(text))
    if not found:
        return text
    at = found[-1]
    sampler, schedule = host_names.names_before_1_9(at[1], at[2])
    told = f"Sampler: {sampler}" + (f", Schedule type: {schedule}" if schedule else "")
    return text[: at.start()] + told + text[at.end() :]


def lora_tag(use: LoraUse) -> str:
    """`<lora:name:0.8>`; a text encoder's strength of its own comes first, as A1111 reads it."""
    strengths = [spell_number(float(use.strength))]
    if use.text_encoder_strength not in (None, use.strength):
        strengths.insert(0, spell_number(float(use.text_encoder_strength or 0)))
    blocks = [f"lbw={use.blocks}"] if use.blocks else []
    return f"<lora:{':'.join([Path(use.path).stem, *strengths, *blocks])}>"


def values_of(job: GenerateJob, drawn: Drawn) -> dict[str, object]:
    """The values of the last paragraph, in A1111's order; None and "" are not written."""
    sampler, schedule = host_names.SAMPLER[job.sampler], host_names.SCHEDULE[job.scheduler]
    random = job.randomness
    together = job.arithmetic == "comfyui" and job.batch_size > 1
    known = {**_fields(job, fields_of(type(job))), **(_fields(job, SOFT) if _is_soft(job) else {})}
    return {
        "Steps": known.pop("Steps"),
        "Sampler": sampler.a1111,
        "Schedule type": schedule.a1111,
        "CFG scale": known.pop("CFG scale"),
        "Seed": drawn.seed,
        "Size": f"{job.width}x{job.height}",
        "Model hash": drawn.model_hash[:10],
        "Model": model_name(job.base),
        "VAE hash": drawn.vae_hash[:10],
        "VAE": Path(job.vae).name,
        "Variation seed": drawn.subseed if random.subseed_strength else None,
        "Variation seed strength": float(random.subseed_strength) or None,
        **known,
        "Pad conds": job.pad_prompts == "empty" or None,
        "Pad conds v0": job.pad_prompts == "last" or None,
        **(_hires(job) if type(job) is GenerateJob else {}),
        "Batch size": job.batch_size if together else None,
        "Batch pos": drawn.position if together else None,
        "Lora hashes": written_hashes(drawn.lora_hashes),
        "TI hashes": written_hashes(drawn.embedding_hashes),
        "Version": f"{PROGRAM} {__version__}",
    }


def model_name(path: str) -> str:
    """A checkpoint's name without the ending of its file; a folder's name as it is."""
    name = Path(path)
    return name.stem if name.suffix.lower() in (".safetensors", ".ckpt", ".pt", ".pth", ".bin") else name.name


def fields_of(cls: type) -> tuple[Field, ...]:
    """The plain fields of a job class (soft inpainting's are apart: they count only together)."""
    more = (*IMG2IMG, *INPAINT) if issubclass(cls, InpaintJob) else IMG2IMG if issubclass(cls, Img2ImgJob) else ()
    return (*GENERATE, *more)


def label(kind: Any, value: Any) -> object:
    """A setting's value as the infotext spells it."""
    return kind[value] if isinstance(kind, dict) else kind(value)


def _fields(job: GenerateJob, fields: tuple[Field, ...]) -> dict[str, object]:
    settings = {s.name: s for s in describe(type(job))}
    found: dict[str, object] = {}
    for field in fields:
        value: Any = job
        for part in settings[field.setting].path:
            value = getattr(value, part)
        if field.always or value != settings[field.setting].default:
            found[field.key] = label(field.kind, value)
    return found


def _is_soft(job: GenerateJob) -> bool:
    return isinstance(job, InpaintJob) and job.soft.soft_inpainting


def has_hires(job: GenerateJob) -> bool:
    """Whether the job asks for a second pass at a larger size."""
    return job.hires.hires_scale > 1 or bool(job.hires.hires_width or job.hires.hires_height)


def _hires(job: GenerateJob) -> dict[str, object]:
    if not has_hires(job):
        return {}
    hires = job.hires
    by_size = hires.hires_width or hires.hires_height
    return {
        "Denoising strength": float(hires.hires_denoising),
        "Hires upscale": None if by_size else float(hires.hires_scale),
        "Hires resize": f"{hires.hires_width}x{hires.hires_height}" if by_size else None,
        "Hires steps": hires.hires_steps or None,
        "Hires upscaler": host_names.HIRES_UPSCALER[hires.hires_upscaler],
    }
