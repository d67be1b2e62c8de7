"""Noise as the hosts draw it: per picture from its own generator (A1111), or one draw for a batch (ComfyUI)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch

from lora_core.engine.brownian import brownian_noise
from lora_core.engine.philox import Philox

SEEDS = 2**64


class Generator(Protocol):
    """A stream of N(0, 1) tensors."""

    def randn(self, shape: Sequence[int]) -> torch.Tensor: ...


@dataclass(frozen=True)
class TorchGenerator:
    """torch's generator of one device."""

    generator: torch.Generator

    def randn(self, shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=self.generator, device=self.generator.device)


@dataclass(frozen=True)
class NoiseSettings:
    """`source`: "cpu", "gpu" (the generator of `device`) or "nv"; `seed_delta` is A1111's ENSD."""

    arithmetic: str = "comfyui"
    source: str = "cpu"
    subseed_strength: float = 0.0
    seed_delta: int = 0
    device: torch.device = torch.device("cpu")


def generator(source: str, seed: int, device: torch.device) -> Generator:
    """A fresh stream for a seed, which wraps at 2^64."""
    if source == "nv":
        return Philox(seed % SEEDS)
    place = device if source == "gpu" and device.type != "mps" else torch.device("cpu")
    return TorchGenerator(torch.Generator(place).manual_seed(seed % SEEDS))


class Noise:
    """The noise of one batch: `first()` once at the start, then `next(...)` for every step that adds noise.

    `seeds` and `subseeds`: one a picture; `shape`: [c, h, w] of one picture. In A1111's arithmetic each picture draws
    from generators of its own. In ComfyUI's neighbours with the same seed share one draw (its batches), and what is
    added later starts anew from the same seed.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], settings: NoiseSettings, subseeds: Sequence[int] = ()
    ) -> None:
        self.settings = settings
        self.shape = tuple(shape)
        self.subseeds = tuple(subseeds) or (0,) * len(seeds)
        groups = [(seed, len(list(same))) for seed, same in groupby(seeds)]
        self.groups = [(seed, 1) for seed in seeds] if settings.arithmetic == "a1111" else groups
        self.streams: list[Generator] = []

    def first(self) -> torch.Tensor:
        """The noise to start from [n, c, h, w], with the variation that the subseeds ask for."""
        s = self.settings
        comfyui = s.arithmetic != "a1111"
        source = "cpu" if comfyui and s.source == "gpu" else s.source  # ComfyUI starts from CPU noise everywhere
        self.streams = [generator(source, seed, s.device) for seed, _ in self.groups]
        noise = self._draw()
        if comfyui or s.seed_delta:
            self.streams = [generator(s.source, seed + s.seed_delta, s.device) for seed, _ in self.groups]
        return self._varied(noise) if s.subseed_strength else noise

    def next(self, sigma: torch.Tensor | None = None, after: torch.Tensor | None = None) -> torch.Tensor:
        """Further noise [n, c, h, w]; the levels do not matter for independent draws."""
        return self._draw()

    def _draw(self) -> torch.Tensor:
        rows = [stream.randn((count, *self.shape)) for stream, (_, count) in zip(self.streams, self.groups)]
        return torch.cat([row.to(self.settings.device) for row in rows])

    def _varied(self, noise: torch.Tensor) -> torch.Tensor:
        s = self.settings
        rows = [generator(s.source, subseed, s.device).randn(self.shape) for subseed in self.subseeds]
        return torch.stack([slerp(s.subseed_strength, a, b.to(a.device)) for a, b in zip(noise, rows)])

    def second(self) -> torch.Tensor:
        """What ComfyUI's DDIM puts outside a mask: a draw of its own from the next seed."""
        rows = [generator("cpu", seed + 1, self.settings.device).randn((n, *self.shape)) for seed, n in self.groups]
        return torch.cat(rows).to(self.settings.device)

    def brownian(self, sigmas: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Noise of SDE samplers: increments of one Brownian path per seed, so that it fits any number of steps."""
        s = self.settings
        source = "cpu" if s.arithmetic != "a1111" and s.source == "gpu" else s.source

        def randn(seed: int, count: int) -> torch.Tensor:
            return generator(source, seed, s.device).randn((count, *self.shape))

        least, most = float(sigmas[sigmas > 0].min()), float(sigmas.max())
        paths = [brownian_noise(seed % SEEDS, (least, most), lambda k, n=n: randn(k, n)) for seed, n in self.groups]
        return lambda sigma, after: torch.cat([path(sigma, after) for path in paths]).to(s.device)


def slerp(weight: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation of two pictures' noise [c, h, w] as A1111 does it: along the rows of each channel."""
    low_norm = low / low.norm(dim=1, keepdim=True)
    high_norm = high / high.norm(dim=1, keepdim=True)
    dot = (low_norm * high_norm).sum(1)
    if dot.mean() > 0.9995:
        return low * weight + high * (1 - weight)
    omega = dot.acos()
    so = omega.sin()
    return (((1 - weight) * omega).sin() / so).unsqueeze(1) * low + ((weight * omega).sin() / so).unsqueeze(1) * high


def posterior_noise(seed: int) -> Callable[[torch.Size], torch.Tensor]:
    """A1111 samples the VAE's posterior from torch's global generator, which the first pass has left at its last seed,
    picture by picture."""
    generator = torch.Generator().manual_seed(seed % 2**64)
    return lambda shape: torch.cat([torch.randn((1, *shape[1:]), generator=generator) for _ in range(shape[0])])
