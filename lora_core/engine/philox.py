"""The random numbers that torch draws on an NVIDIA GPU, computed on the CPU (Salmon et al. 2011, Philox 4x32-10)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = 0xFFFFFFFF


class Philox:
    """One stream; each call of `randn` advances the offset by one, as one call of torch.randn on the GPU does."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.offset = 0

    def randn(self, shape: Sequence[int]) -> torch.Tensor:
        """N(0, 1) float32 on the CPU: number i of a call is made from counter (offset, 0, i, 0) and the seed as key."""
        count = math.prod(shape)
        x, y = philox(self.offset, count, self.seed)
        self.offset += 1
        return torch.from_numpy(_box_muller(x, y).reshape(tuple(shape)))


def philox(offset: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first two of the four 32-bit words for each of `count` counters."""
    c0, c1, c3 = (np.full(count, n, np.uint64) for n in (offset & LOW, 0, 0))
    c2 = np.arange(count, dtype=np.uint64)
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(ROUNDS):
        first, second = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c2 = _high(second) ^ c1 ^ np.uint64(k0), _high(first) ^ c3 ^ np.uint64(k1)
        c1, c3 = _low(second), _low(first)
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0.astype(np.uint32), c1.astype(np.uint32)


def _high(words: np.ndarray) -> np.ndarray:
    return words >> np.uint64(32)


def _low(words: np.ndarray) -> np.ndarray:
    return words & np.uint64(LOW)


def _box_muller(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    unit = np.float64(np.float32(2.3283064e-10))
    turn = np.float64(np.float32(2.3283064e-10 * 6.2831855))
    u, v = x * unit + unit / 2, y * turn + turn / 2
    return (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32)
