"""Random numbers as pure functions of (seed, purpose, position): a resumed run draws what the first one would have."""

from __future__ import annotations

import torch

from lora_core.draws import Draws


def mix(seed: int, *parts: int | str) -> int:
    """A 63-bit seed from `seed` and any number of labels, stable across platforms and Python versions."""
    return Draws(seed, *parts).word() >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator for one purpose; drawing on the CPU gives the same numbers on every device."""
    return torch.Generator().manual_seed(mix(seed, *parts))
