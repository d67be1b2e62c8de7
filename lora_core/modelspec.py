"""What every LoRA file says about itself: the least of kohya's ss_* keys, modelspec.*, and two keys of our own."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath, PureWindowsPath
from typing import Any

NETWORK_MODULE = "networks.lora"
LYCORIS = "lycoris.kohya"
SGM = "https://github.com/Stability-AI/generative-models"


@dataclass(frozen=True)
class Summary:
    """What every LoRA file says, however it was made. `dim` and `alpha` may be "Dynamic" where modules differ."""

    family: str
    dim: int | str
    alpha: float | str
    title: str
    prediction: str = "epsilon"
    zero_terminal_snr: bool = False
    network_args: Mapping[str, str] = field(default_factory=dict)
    resolution: tuple[int, int] | None = None
    date: float | None = None
    merged_from: str = ""
    trigger: str = ""


def last_part(path: str) -> str:
    """The last part of a path of any system; "" stays ""."""
    return PureWindowsPath(PurePath(path).name).name if path else ""


def spelled(values: Mapping[str, Any]) -> dict[str, str]:
    """Every value as a string, kohya's way; mappings and lists as JSON. Not-finite numbers become "None"."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        found[key] = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return found


def minimal_metadata(summary: Summary) -> dict[str, str]:
    """The keys by which every host tells family, rank and alpha; `write_lora` adds the hashes."""
    values: dict[str, Any] = {
        "ss_v2": summary.family == "sd2",
        "ss_base_model_version": base_model_version(summary.family, summary.prediction),
        "ss_network_module": LYCORIS if "algo" in summary.network_args else NETWORK_MODULE,
        "ss_network_dim": summary.dim,
        "ss_network_alpha": summary.alpha,
    }
    if summary.network_args:
        values["ss_network_args"] = dict(summary.network_args)
    return spelled(values) | modelspec(summary)


def base_model_version(family: str, prediction: str) -> str:
    """kohya's ss_base_model_version."""
    names = {"sd1": "sd_v1", "sd2": "sd_v2_v" if prediction == "v" else "sd_v2", "sdxl": "sdxl_base_v1-0"}
    return names[family]


def modelspec(summary: Summary) -> dict[str, str]:
    """modelspec.* (https://github.com/Stability-AI/ModelSpec) and our own two lora_loom.* keys."""
    from lora_core import __version__

    second = "stable-diffusion-v2-768-v" if summary.prediction == "v" else "stable-diffusion-v2-512"
    base = {"sd1": "stable-diffusion-v1", "sd2": second, "sdxl": "stable-diffusion-xl-v1-base"}[summary.family]
    found = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{base}/lora",
        "modelspec.implementation": SGM if summary.family == "sdxl" else "diffusers",
        "modelspec.implementation_version": f"lora-loom/{__version__}",
        "modelspec.title": summary.title,
        "modelspec.prediction_type": summary.prediction,
        "lora_loom.prediction_type": summary.prediction,
        "lora_loom.zero_terminal_snr": str(summary.zero_terminal_snr),
    }
    if summary.date is not None:
        date = datetime.datetime.fromtimestamp(int(summary.date))
        found["modelspec.date"] = date.isoformat()
    if summary.resolution is not None:
        found["modelspec.resolution"] = f"{summary.resolution[0]}x{summary.resolution[1]}"
    if summary.merged_from:
        found["modelspec.merged_from"] = summary.merged_from
    if summary.trigger:
        found["modelspec.trigger_phrase"] = summary.trigger
    return found


def private_parts(metadata: Mapping[str, str], forbidden: tuple[str, ...] = ()) -> list[str]:
    """The keys whose value holds an absolute path, or one of the forbidden words (a user's or host's name)."""
    path = re.compile(r"(^|[\s\"'=(\[])(/[\w.~-]+/[\w.~ -]+|[A-Za-z]:[\\/]|\\\\\w)")
    return [
        key
        for key, value in metadata.items()
        if (path.search(value) and key != "modelspec.thumbnail") or any(word and word in value for word in forbidden)
    ]
