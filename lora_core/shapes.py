"""What a base model is, in numbers: frozen values that everything else is derived from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lora_core.errors import KeyMismatch

UNET, TEXT_ENCODER, TEXT_ENCODER_2, VAE = "unet", "text_encoder", "text_encoder_2", "vae"


@dataclass(frozen=True)
class TextEncoderShape:
    """A CLIP text model. `activation` is "quick_gelu" or "gelu"; `projection` is the width of text_projection."""

    width: int
    layers: int
    heads: int
    intermediate: int
    vocab: int
    positions: int
    activation: str
    projection: int | None = None


@dataclass(frozen=True)
class UNetShape:
    """A UNet; tuples hold one number per level, finest first. Depth 0 means a level without attention."""

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    transformer_depth: tuple[int, ...]
    mid_depth: int
    context_dim: int
    heads: tuple[int, ...]
    linear_projection: bool
    label_channels: int | None = None
    norm_groups: int = 32


@dataclass(frozen=True)
class VaeShape:
    """An AutoencoderKL; `scaling_factor` multiplies latents for the UNet."""

    block_out_channels: tuple[int, ...]
    latent_channels: int
    layers_per_block: int
    norm_groups: int
    scaling_factor: float


@dataclass(frozen=True)
class Architecture:
    """A base model as found in a file.

    `family` is "sd1", "sd2", "sdxl" or "sdxl_refiner"; `layout` is "ldm" or "diffusers"; `prediction` is
    "epsilon" or "v". `prefixes` says where each component's tensors begin in the file's own naming.
    """

    family: str
    layout: str
    prediction: str
    zero_terminal_snr: bool
    inpainting: bool
    unet: UNetShape
    text_encoders: tuple[TextEncoderShape, ...]
    vae: VaeShape | None
    prefixes: tuple[tuple[str, str], ...] = ()

    def prefix(self, component: str) -> str:
        """Where the tensors of `component` begin. Raises KeyMismatch when the file lacks the component."""
        for name, prefix in self.prefixes:
            if name == component:
                return prefix
        raise KeyMismatch(f"The model has no {component.replace('_', ' ')}; it holds {', '.join(self.components)}.")

    @property
    def components(self) -> tuple[str, ...]:
        """The components that the file holds: "unet", "text_encoder", "text_encoder_2", "vae"."""
        return tuple(name for name, _ in self.prefixes)

    def text_encoder(self, component: str) -> TextEncoderShape:
        return self.text_encoders[1 if component == TEXT_ENCODER_2 else 0]


def head_count(width: int) -> int:
    """Heads of 64 channels each, as many as divide the width (a narrow model has one)."""
    return next(n for n in range(max(1, width // 64), 0, -1) if width % n == 0)


def group_count(widths: Iterable[int]) -> int:
    """Groups of the group norms: 32, or the largest divisor of 32 that divides every width."""
    return math.gcd(32, *widths)
