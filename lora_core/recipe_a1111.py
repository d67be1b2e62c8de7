"""A1111's picture parameters as a job; Forge, Civitai and old versions write the same text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from lora_core import host_names
from lora_core.errors import ConfigError, FileError
from lora_core.infotext import Infotext, read_hashes, read_infotext
from lora_core.infotext_fields import GENERATE, IMG2IMG, INPAINT, PROGRAM, SOFT, Field, has_hires
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob
from lora_core.lora_tags import split_lora_tags, without_other_tags
from lora_core.prompt_schedule import Timing
from lora_core.recipe_notes import left_over, old_editing, older_than, version_of
from lora_core.recipe_values import Recipe, Wanted
from lora_core.settings import replace_by_name

CLASSES: dict[str, type[GenerateJob]] = {"generate": GenerateJob, "img2img": Img2ImgJob, "inpaint": InpaintJob}
INPAINT_KEYS = ("Mask blur", "Mask mode", "Masked content", "Inpaint area", "Masked area padding", SOFT[0].key)
NV = "The picture names no noise source: A1111 drew on the graphics card, and NVIDIA's generator is imitated (nv)."
OLD_MASK = (
    "A1111 before 1.8 did not write area, masked content and mask mode: "
    "whole picture, original and inpaint masked are taken."
)
RESIZED = "A1111 writes no resize mode: just resize is taken."
LOOP = {"Hires upscale", "Hires resize", "Hires steps", "Hires upscaler"}


class Reading:
    """One infotext on its way to a job: values still unread, settings found, sentences."""

    def __init__(self, text: Infotext) -> None:
        self.values = dict(text.values)
        self.settings: dict[str, Any] = {}
        self.unmapped: list[str] = []
        self.assumed: list[str] = []
        self.version = self.values.pop("Version", "")
        self.kind = kind_of(self.values)

    def take(self, key: str) -> str | None:
        return self.values.pop(key, None)

    def number(self, key: str, kind: type = int) -> Any:
        """The value as a number; None where it is missing or, with a sentence, no number."""
        text = self.take(key)
        if text is None:
            return None
        try:
            value = float(text)
            return int(text) if kind is int and text.lstrip("-").isdigit() else kind(value)
        except (ValueError, OverflowError):
            self.unmapped.append(f'"{key}: {text}" is no number and was left out.')
            return None

    def size(self, key: str) -> tuple[int, int] | None:
        text = self.take(key)
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text or "")
        if text and not match:
            self.unmapped.append(f'"{key}: {text}" is no size and was left out.')
        return (int(match[1]), int(match[2])) if match else None


def recipe_a1111(text: str, source: str = "") -> Recipe:
    """The recipe in an infotext. Raises FileError where the text is none."""
    info = read_infotext(text)
    if info is None:
        raise FileError("The text holds no parameters: a line such as Steps: 20, Sampler: ..., Seed: ... is missing.")
    reading = Reading(info)
    wanted = _wanted(reading)
    _padding(reading)
    _sampler(reading)
    _numbers(reading)
    _hires(reading)
    for field in fields_for(reading.kind):
        _take_field(reading, field)
    if reading.kind == "inpaint":
        reading.settings.setdefault("keep_size", False)  # A1111's whole pictures come out as width x height
    _fill(reading)
    reading.unmapped += _tag_faults(info.prompt) + left_over(reading.values, reading.version)
    reading.unmapped += [f"A line behind the parameters was left out: {line}" for line in info.rest if line]
    job = replace_by_name(
        CLASSES[reading.kind](),
        {"prompt": info.prompt, "negative_prompt": info.negative, "base": wanted.base[0], **reading.settings},
    )
    reading.unmapped += old_editing(info.values, reading.version, (info.prompt, info.negative), passes_of(job))
    return Recipe(job, reading.kind, tuple(reading.unmapped), tuple(reading.assumed), source, wanted)


def passes_of(job: GenerateJob) -> list[Timing]:
    """The steps of a job's one or two passes."""
    second = [Timing(job.steps, job.hires.hires_steps or job.steps)] if has_hires(job) else []
    return [Timing(job.steps), *second]


def kind_of(values: dict[str, str]) -> str:
    """txt2img, img2img or inpainting: told by the keys, because A1111 does not write it."""
    if any(key in values for key in INPAINT_KEYS):
        return "inpaint"
    hires = any(key in values for key in (*LOOP, "First pass size"))
    return "img2img" if "Denoising strength" in values and not hires else "generate"


def fields_for(kind: str) -> Iterable[Field]:
    more = {"generate": (), "img2img": IMG2IMG, "inpaint": (*IMG2IMG, *INPAINT, *SOFT)}
    return (*GENERATE, *more[kind])


def _take_field(reading: Reading, field: Field) -> None:
    if field.kind in (int, float):
        value = reading.number(field.key, field.kind)
        if value is not None:
            reading.settings[field.setting] = value
        return
    text = reading.take(field.key)
    if text is None:
        return
    if field.kind is bool:
        reading.settings[field.setting] = text.strip().casefold() == "true"
        return
    token = host_names.token_of(field.kind, text)
    if token is None:
        reading.unmapped.append(f'"{field.key}: {text}" is not known here and was left out.')
    else:
        reading.settings[field.setting] = token


def _padding(reading: Reading) -> None:
    """Before 1.6 A1111's DDIM padded prompts without a word."""
    plain, old = reading.take("Pad conds"), reading.take("Pad conds v0")
    version = version_of(reading.version)
    if old == "True" or (version and version < (1, 6) and reading.values.get("Sampler") in ("DDIM", "PLMS")):
        reading.settings["pad_prompts"] = "last"
    elif plain == "True":
        reading.settings["pad_prompts"] = "empty"


def _sampler(reading: Reading) -> None:
    """Sampler and schedule, also from old combined names; before 1.9 a name without a schedule meant the plain one."""
    name, schedule = reading.take("Sampler") or "", reading.take("Schedule type")
    sampler, combined = host_names.combined_tokens(name)
    token = combined or (host_names.schedule_token(schedule) if schedule else None)
    if sampler is None and name:
        sampler = "euler"
        reading.unmapped.append(f"The sampler {name} is not known here; Euler stands in its place.")
    if schedule and token is None:
        reading.unmapped.append(f"The schedule {schedule} is not known here; automatic stands in its place.")
    elif schedule is None and combined is None and sampler:
        token = "uniform" if host_names.SAMPLER[sampler].automatic != "uniform" else "automatic"
    if sampler:
        reading.settings["sampler"] = sampler
        reading.settings["scheduler"] = token or "automatic"


def _numbers(reading: Reading) -> None:
    seed, size = reading.number("Seed"), reading.size("Size")
    if seed is not None:
        reading.settings["seed"] = seed % 2**64
    if size:
        reading.settings.update(width=size[0], height=size[1])
    strength = reading.number("Variation seed strength", float)
    subseed = reading.number("Variation seed")
    if strength:
        reading.settings.update(subseed=(subseed or 0) % 2**64, subseed_strength=strength)
    batch, place = reading.number("Batch size"), reading.number("Batch pos")
    if batch and batch > 1 and reading.values.get("Arithmetic"):
        reading.settings["batch_size"] = batch
        reading.assumed.append(f"The picture is number {(place or 0) + 1} of a batch of {batch}, which is drawn whole.")


def _hires(reading: Reading) -> None:
    first, target = reading.size("First pass size"), reading.size("Hires resize")
    scale = reading.number("Hires upscale", float)
    if first:  # before 2023, Size was the size after the second pass
        target = (reading.settings.get("width", 512), reading.settings.get("height", 512))
        width, height = first if all(first) else first_pass_of_2022(*target)
        reading.settings.update(width=width, height=height)
    steps, upscaler = reading.number("Hires steps"), reading.take("Hires upscaler")
    if not (target or scale):
        return
    found: dict[str, Any] = {"hires_steps": steps or 0}
    found |= {"hires_width": target[0], "hires_height": target[1]} if target else {"hires_scale": scale}
    if reading.kind == "generate":
        denoising = reading.number("Denoising strength", float)
        found |= {} if denoising is None else {"hires_denoising": denoising}
    token = host_names.token_of(host_names.HIRES_UPSCALER, upscaler) if upscaler else "latent"
    if upscaler == "None":
        token = "lanczos"  # what A1111 does without an upscaler
    if token is None:
        reading.unmapped.append(f"The upscaler {upscaler} is not known here; lanczos stands in its place.")
    if not target and scale is not None and scale <= 1:
        reading.unmapped.append("A second pass at the same size is not repeated.")
    reading.settings |= {**found, "hires_upscaler": token or "lanczos"}


def first_pass_of_2022(width: int, height: int) -> tuple[int, int]:
    """The size that A1111 chose itself (0x0): the area of 512 x 512, each side up to the next multiple of 64."""
    scale = math.sqrt(512 * 512 / max(width * height, 1))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def _fill(reading: Reading) -> None:
    """What a missing key means to A1111."""
    if "noise_source" not in reading.settings:
        reading.settings["noise_source"] = "nv"
        reading.assumed.append(NV)
    if reading.kind != "generate":
        if "resize_mode" not in reading.settings and not reading.version.startswith(PROGRAM):
            reading.assumed.append(RESIZED)
        reading.unmapped.append("The picture that was drawn over is not in the file: set image.")
    if reading.kind == "inpaint":
        told = reading.settings.keys() & {"inpaint_area", "masked_content", "mask_invert", "only_masked_padding"}
        if older_than(reading.version, (1, 8)) and not told:
            reading.assumed.append(OLD_MASK)
        reading.settings.setdefault("mask_blur", 0)
        reading.settings.setdefault("keep_size", False)
        reading.unmapped.append("The mask is not in the file: set mask.")


def _wanted(reading: Reading) -> Wanted:
    hashes = _civitai(reading.take("Hashes"))
    base = (reading.take("Model") or "", reading.take("Model hash") or hashes.get("model", ""))
    vae = (reading.take("VAE") or "", reading.take("VAE hash") or hashes.get("vae", ""))
    if vae[0] and vae[0] not in ("None", "Automatic"):
        reading.settings["vae"] = vae[0]
    loras = dict(read_hashes(reading.take("Lora hashes") or ""))
    embeddings = dict(read_hashes(reading.take("TI hashes") or ""))
    for name, digest in hashes.items():
        group, colon, file = name.partition(":")
        if colon:
            (embeddings if group == "embed" else loras).setdefault(file, digest)
    return Wanted(base, vae, tuple(loras.items()), tuple(embeddings.items()))


def _civitai(text: str | None) -> dict[str, str]:
    """The JSON of a "Hashes" value: {"model": "...", "lora:name": "...", "embed:name": "..."}."""
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def _tag_faults(prompt: str) -> list[str]:
    try:
        split_lora_tags(prompt)
        without_other_tags(prompt)
    except ConfigError as error:
        return list(error.problems)
    return []
