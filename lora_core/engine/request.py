"""What is to be drawn, and from what: the values that sampling works by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from lora_core.embeddings import Embedding

Blend = Callable[[torch.Tensor, float, int], torch.Tensor]


@dataclass(frozen=True)
class SampleRequest:
    """Pictures to draw, one for each prompt and seed. `prediction` and `zero_terminal_snr` None: as the base says.

    `arithmetic`: "comfyui" or "a1111"; `exactly`: A1111's "do exactly the number of steps" below `denoise` 1;
    `hires_steps`: this is the second pass of hires fix, with so many steps, and `steps` are those of the first.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    cfg: float = 7.0
    sampler: str = "ddim"
    scheduler: str = "automatic"
    denoise: float = 1.0
    clip_skip: int = 1
    batch_size: int = 4
    prediction: str | None = None
    zero_terminal_snr: bool | None = None
    arithmetic: str = "comfyui"
    emphasis: str = "original"
    padding: str = "none"
    embeddings: Mapping[str, Embedding] = field(default_factory=lambda: MappingProxyType({}))
    subseeds: tuple[int, ...] = ()
    subseed_strength: float = 0.0
    noise_source: str = "cpu"
    seed_delta: int = 0
    eta: float = 1.0
    cfg_rescale: float = 0.0
    exactly: bool = False
    hires_steps: int | None = None
    low_memory: bool = False


@dataclass(frozen=True)
class Start:
    """What sampling starts from: scaled latents [n,c,h,w]; `mask` [n or 1,1,h,w], 1 = repaint, None = everything.

    `fresh`: txt2img, there is no picture below (A1111 steps otherwise then, even at denoise 1).
    `extra` [1 or n,5,h,w] holds the mask and the masked picture's latents, which 9-channel models take as further
    input. `noise_multiplier` scales the starting noise.
    `blend(current, level, call)` replaces the plain mix current * mask + latents * (1 - mask), for soft inpainting.
    A1111's DDIM and UniPC call it before UNet call number `call` with the variance-preserving x and the timestep as
    `level`; every other sampler after the call with the clean estimate and sigma.
    """

    latents: torch.Tensor
    mask: torch.Tensor | None = None
    extra: torch.Tensor | None = None
    fresh: bool = False
    noise_multiplier: float = 1.0
    blend: Blend | None = None
