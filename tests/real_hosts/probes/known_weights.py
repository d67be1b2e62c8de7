"""Shared by the probes for networks of every kind: the numbers that stand for the base's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

SCALE = 0.02


def base_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    seed = int.from_bytes(name.encode()[-8:], "little") % 2**31
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * SCALE


def expected(path: str) -> dict[str, torch.Tensor]:
    """kohya name -> change of the weight."""
    return load_file(Path(path).with_suffix(".expected"))


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found = found.detach().float().reshape(wanted.shape)
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))
