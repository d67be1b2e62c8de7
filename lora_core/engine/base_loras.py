"""LoRAs that are part of the base of a training: merged into its weights in memory, of any dialect and algorithm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_core.engine import models
from lora_core.errors import ConfigError
from lora_core.jobs.train import TrainJob
from lora_core.networks import NetworkFile
from lora_core.shapes import Architecture
from lora_core.tensors import file_hashes


@dataclass(frozen=True)
class BaseLora:
    path: Path
    strength: float


def base_loras(lines: Iterable[str]) -> tuple[BaseLora, ...]:
    """Lines of FILE or FILE = STRENGTH. Raises ConfigError for a file that is not there."""
    found: list[BaseLora] = []
    for line in (text.strip() for text in lines):
        if not line:
            continue
        name, equals, number = line.rpartition("=")
        try:
            one = BaseLora(Path(name.strip()), float(number)) if equals else BaseLora(Path(line), 1.0)
        except ValueError:
            one = BaseLora(Path(line), 1.0)  # a path with "=" in it
        if not one.path.is_file():
            raise ConfigError(f"There is no LoRA file {one.path} to merge into the base (base_loras).")
        found.append(one)
    return tuple(found)


def mark(job: TrainJob) -> str:
    """What the merged LoRAs are by content and strength, "" without any."""
    found = [(file_hashes(lora.path)[1], lora.strength) for lora in base_loras(job.network.base_loras)]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if found else ""


def merge(components: Mapping[str, nn.Module], job: TrainJob, architecture: Architecture) -> None:
    """Add every LoRA of the job to the weights and biases of the components, in fp32, rounded once per LoRA.

    Raises KeyMismatch for a file of another model, or one whose tensors belong to no layer.
    """
    for lora in base_loras(job.network.base_loras):
        with NetworkFile(lora.path, architecture) as file, torch.no_grad():
            for canonical in file.changes:
                component, path = canonical.split(".", 1)
                if component in components:
                    _add(file, canonical, components[component].get_submodule(path), lora.strength)


def _add(file: NetworkFile, canonical: str, layer: Any, strength: float) -> None:
    parts = file.changes[canonical].parts
    delta = file.delta(canonical, layer.weight.detach().float().cpu(), tuple(layer.weight.shape))
    if delta is not None:
        layer.weight.copy_(layer.weight.float() + strength * delta.to(layer.weight.device))
    if "diff_b" in parts and layer.bias is not None:
        bias = file.tensors(canonical)["diff_b"].float().to(layer.bias.device)
        layer.bias.copy_(layer.bias.float() + strength * bias.reshape(layer.bias.shape))


def load_unet(job: TrainJob, architecture: Architecture, dtype: torch.dtype, device: torch.device) -> Any:
    """The base's UNet with the job's LoRAs in it."""
    unet = models.load_unet(job.base, dtype, device)
    merge({"unet": unet}, job, architecture)
    return unet


def load_text_encoders(
    job: TrainJob, architecture: Architecture, dtype: torch.dtype, device: torch.device
) -> tuple[Any, ...]:
    """The base's text encoders with the job's LoRAs in them."""
    encoders = models.load_text_encoders(job.base, dtype, device)
    merge(dict(zip(("text_encoder", "text_encoder_2"), encoders)), job, architecture)
    return encoders
