"""Preview prompts with flags behind them, as sd-scripts writes them: `a cat --n dog --w 512 --h 768 --d 1 --s 20`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lora_core.host_names import SAMPLER

FLAG = re.compile(r"\s--([a-z]+)(?:\s+|$)(.*?)(?=\s--[a-z]+(?:\s|$)|$)", re.DOTALL)
NUMBERS = {"w": 8192, "h": 8192, "d": 2**63 - 1, "s": 1000, "l": 100}
KNOWN = {"n", "ss", *NUMBERS}
CELL, LEAST = 8, 64
KOHYA_SAMPLERS = {
    **{name: name for name in SAMPLER},
    **{"euler_a": "euler_ancestral", "dpm_2": "dpm2", "dpm_2_a": "dpm2_ancestral", "pndm": "lms"},
    **{"dpmsolver": "dpmpp_2m", "dpmsolver++": "dpmpp_2m", "dpmsingle": "dpmpp_2m"},
}


@dataclass(frozen=True)
class PreviewPrompt:
    """A prompt and what its line says about how it is drawn; None: as for the others."""

    text: str
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    steps: int | None = None
    cfg: float | None = None
    sampler: str | None = None


def sampler_named(name: str) -> str | None:
    """Our name of a sampler of sd-scripts (or of ours), None for one that is not known."""
    return KOHYA_SAMPLERS.get(name.strip().lower().removeprefix("k_"))


def flags_of(line: str) -> dict[str, str]:
    """The flags of a line by their letters."""
    return {name: value.strip() for name, value in FLAG.findall(f" {line}")}


def text_of(line: str) -> str:
    """The line without its flags."""
    found = FLAG.search(f" {line}")
    return (f" {line}"[: found.start()] if found else line).strip()


def read_preview(line: str) -> PreviewPrompt:
    """A line as values; sides are cut to multiples of 8. Raises ValueError for numbers that `prompt_faults` names."""
    flags = flags_of(line)
    numbers = {name: float(flags[name]) for name in NUMBERS if name in flags}
    whole = {name: int(value) for name, value in numbers.items() if name != "l"}
    sides = {name: max(LEAST, whole[name] // CELL * CELL) for name in ("w", "h") if name in whole}
    sampler = sampler_named(flags["ss"]) if "ss" in flags else None
    return PreviewPrompt(
        text_of(line), flags.get("n"), sides.get("w"), sides.get("h"), int(flags["d"]) if "d" in flags else None,
        whole.get("s"), numbers.get("l"), sampler,
    )  # fmt: skip


def prompt_faults(line: str) -> list[str]:
    """What is wrong with the flags of a preview prompt, in sentences."""
    flags, found = flags_of(line), list[str]()
    for name, most in NUMBERS.items():
        if name in flags and not within(flags[name], most, whole=name != "l"):
            found.append(f"--{name} {flags[name]} in the preview prompt {line!r} must be a number from 0 to {most}.")
    if "ss" in flags and sampler_named(flags["ss"]) is None:
        found.append(f"The sampler {flags['ss']!r} of a preview prompt is not known; known: {', '.join(SAMPLER)}.")
    unknown = sorted(flags.keys() - KNOWN)
    if unknown:
        found.append(
            f"--{unknown[0]} in the preview prompt {line!r} is not known; known: --n --w --h --d --s --l --ss."
        )
    return found


def within(text: str, most: int, whole: bool) -> bool:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        return False
    return math.isfinite(value) and 0 <= value <= most
