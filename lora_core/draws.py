"""Random choices as pure functions of integers and labels: the same on every platform and Python version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of choices that depends on its key alone, e.g. `Draws(seed, "flip", epoch, picture, repeat)`.

    The bytes are SHA-256 in counter mode over the key, so nothing depends on `random` or on a library's version.
    """

    def __init__(self, *key: int | str) -> None:
        self._key = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
        self._count = 0

    def word(self) -> int:
        """The next 64 random bits."""
        block = hashlib.sha256(self._key + self._count.to_bytes(8, "little")).digest()
        self._count += 1
        return int.from_bytes(block[:8], "little")

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return (self.word() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """Uniform in 0..bound-1 (the bias of the product method is under bound / 2**64)."""
        return (self.word() * bound) >> 64

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A permutation of the items (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
