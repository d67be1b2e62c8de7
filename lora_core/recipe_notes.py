"""Sentences about keys of an infotext that no setting of a job takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from lora_core.errors import ConfigError
from lora_core.prompt_schedule import Timing, edits_moved

SILENT = {
    "User",
    "Model hash",
    "Model",
    "Batch size",
    "Batch pos",
    "Cache FP16 weight for LoRA",
    "Beta schedule alpha",
    "Beta schedule beta",
    "Refiner switch by sampling steps",
    "Module 1",
    "Hires Module 1",
    "Diffusion in Low Bits",
    "Init image hash",
    "Image CFG scale",
}
KNOWN = {
    "Face restoration": "Face restoration ({value}) is not done here.",
    "Tiling": "Tiling pictures are not made here.",
    "Refiner": "The refiner {value} is not used here.",
    "Refiner switch at": "",
    "Hires sampler": "The second pass used the sampler {value}; here both passes use one.",
    "Hires schedule type": "The second pass used the schedule {value}; here both passes use one.",
    "Hires prompt": "The second pass had a prompt of its own, which is left out: {value}",
    "Hires negative prompt": "The second pass had a negative prompt of its own, which is left out: {value}",
    "Hires checkpoint": "The second pass used the model {value}; here both passes use one.",
    "Hires CFG Scale": "The second pass used CFG scale {value}; here both passes use one.",
    "Seed resize from": "The noise was resized from {value}, which is not done here.",
    "Token merging ratio": "Token merging ({value}) is not done here.",
    "NGMS": "The negative prompt was skipped below sigma {value}, which is not done here.",
    "Skip Early CFG": "The negative prompt was skipped at the start ({value}), which is not done here.",
    "Extra noise": "Extra noise ({value}) is not added here.",
    "VAE Encoder": "The picture was encoded with {value}; here the VAE does it.",
    "VAE Decoder": "The picture was decoded with {value}; here the VAE does it.",
    "FP8 weight": "The weights were kept in 8 bits; here they are not, and the picture differs a little.",
    "Downcast alphas_cumprod": "The noise schedule was rounded to half precision; the picture differs a little.",
    "Old prompt editing timelines": "Prompt editing counted steps in the old way; [from:to:when] may switch elsewhere.",
    "Discard penultimate sigma": "A1111 left out the last step but one of every schedule, which is not done here.",
    "Hypernet": "The hypernetwork {value} is not applied here.",
    "Hypernet strength": "",
    "Eta DDIM": "DDIM added noise (eta {value}); here it adds none.",
}


OLD_EDITING = "Old prompt editing timelines"


def old_editing(values: Mapping[str, str], version: str, prompts: Iterable[str], passes: Sequence[Timing]) -> list[str]:
    """The sentence of pictures before 1.6, which do not say how they counted, where that changes a prompt's editing."""
    if OLD_EDITING in values or not older_than(version, (1, 6)):
        return []
    try:
        moved = any(edits_moved(prompt, timing) for prompt in prompts for timing in passes)
    except ConfigError:  # brackets too deep: drawing says so
        return []
    return [KNOWN[OLD_EDITING]] if moved else []


def left_over(values: Mapping[str, str], version: str) -> list[str]:
    """A sentence for each key that is left, those of one extension together; old versions rounded their schedule."""
    found: list[str] = []
    others: dict[str, list[str]] = {}
    for key, value in values.items():
        if key in KNOWN:
            found += [KNOWN[key].format(value=value)] if KNOWN[key] and value != "False" else []
        elif key not in SILENT:
            others.setdefault(key.split()[0], []).append(f"{key}: {value}")
    found += [f"Not repeated here: {'; '.join(texts)}." for texts in others.values()]
    number = version_of(version)
    if number and number < (1, 8) and "Downcast alphas_cumprod" not in values:
        found.append("A1111 before 1.8 rounded its noise schedule to half precision; the picture can differ a little.")
    return found


def older_than(text: str, version: tuple[int, int]) -> bool:
    """Whether it is an earlier A1111; the earliest ones wrote no version."""
    number = version_of(text)
    return number < version if number else not text


def version_of(text: str) -> tuple[int, int] | None:
    """A1111's version; None for another program's and for a fork's own numbers."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None
