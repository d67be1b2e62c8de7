"""A Brownian path that can be read anywhere and in any order, made from a seed alone (Kidger et al. 2021, the Brownian
tree; the numbers of torchsde's BrownianTree, which both hosts use)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

DIGITS = 6  # times are rounded to these
POOL = 24


@dataclass(frozen=True)
class Path:
    """A path over [start, end] of sigmas. `randn(seed)` makes N(0, 1) tensors of the path's shape."""

    entropy: int
    start: float
    end: float
    randn: Callable[[int], torch.Tensor]

    def increment(self, a: float, b: float) -> torch.Tensor:
        """W(b) - W(a) for a <= b; both are moved into [start, end]."""
        seed = np.random.SeedSequence(entropy=self.entropy, pool_size=POOL).generate_state(3)[0]
        whole = self.randn(int(seed)) * math.sqrt(self.end - self.start)
        node = Node(round(self.start, DIGITS), round(self.end, DIGITS), 0, 0, whole)
        a, b = (round(min(max(t, node.start), node.end), DIGITS) for t in (a, b))
        return torch.zeros_like(whole) if a == b else self._between(node, a, b)

    def _between(self, node: Node, a: float, b: float) -> torch.Tensor:
        if a == node.start and b == node.end:
            return node.increment
        left, right = self._halves(node)
        if b <= left.end:
            return self._between(left, a, b)
        if a >= left.end:
            return self._between(right, a, b)
        return self._between(left, a, left.end) + self._between(right, left.end, b)

    def _halves(self, node: Node) -> tuple[Node, Node]:
        """Split at the middle: a Brownian bridge between the ends that are known."""
        middle = round(0.5 * (node.end + node.start), DIGITS)
        sequence = np.random.SeedSequence(self.entropy, spawn_key=(node.key, node.depth), pool_size=POOL)
        before, after = middle - node.start, node.end - middle
        share = 1 / (node.end - node.start)
        noise = self.randn(int(sequence.generate_state(4)[0]))
        left = before * node.increment * share + math.sqrt(before * after * share) * noise
        return (
            Node(node.start, middle, 2 * node.key, node.depth + 1, left),
            Node(middle, node.end, 2 * node.key + 1, node.depth + 1, node.increment - left),
        )


@dataclass(frozen=True)
class Node:
    """A part of the path: where it lies, its place in the tree, W(end) - W(start)."""

    start: float
    end: float
    key: int
    depth: int
    increment: torch.Tensor


def brownian_noise(
    seed: int, span: tuple[float, float], randn: Callable[[int], torch.Tensor]
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """k-diffusion's noise between two sigmas: the path's increment, scaled to variance 1, against the path's time."""
    path = Path(seed, *span, randn)

    def draw(sigma: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        low, high = sorted((float(sigma), float(after)))
        sign = -1 if sigma > after else 1
        return path.increment(low, high) * sign / (after - sigma).abs().sqrt()

    return draw
