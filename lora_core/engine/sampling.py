"""From loaded models and prompts to pictures, with ComfyUI's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from lora_core.commands import Commands
from lora_core.engine.models import Models
from lora_core.engine.prompt import Conditioning, chunks_needed, encode_prompts, time_ids
from lora_core.engine.samplers import SAMPLERS, Denoise, Step
from lora_core.engine.schedule import Discretization, discretization, sampling_sigmas, starting_noise
from lora_core.engine.tokens import CHUNK
from lora_core.errors import ConfigError, Interrupted, NotFinite


@dataclass(frozen=True)
class SampleRequest:
    """Pictures to draw, one for each prompt and seed. `prediction` and `zero_terminal_snr` None: as the base says."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    cfg: float = 7.0
    sampler: str = "ddim"
    scheduler: str = "normal"
    denoise: float = 1.0
    clip_skip: int = 1
    batch_size: int = 4
    prediction: str | None = None
    zero_terminal_snr: bool | None = None


@dataclass(frozen=True)
class Start:
    """What sampling starts from: scaled latents [n,c,h,w]; `mask` [n or 1,1,h,w], 1 = repaint, None = everything.

    `extra` [1,5,h,w] holds the mask and the masked picture's latents, which 9-channel models take as further input.
    """

    latents: torch.Tensor
    mask: torch.Tensor | None = None
    extra: torch.Tensor | None = None


@dataclass(frozen=True)
class Guidance:
    """The conditioning of a batch; `negative` None skips the unconditional pass (cfg 1)."""

    positive: Conditioning
    negative: Conditioning | None
    cfg: float


def sample_pictures(models: Models, request: SampleRequest, commands: Commands | None = None) -> list[Image.Image]:
    """Draw all pictures of a request, in batches. Raises Interrupted when `commands.stop` is raised meanwhile."""
    pictures: list[Image.Image] = []
    for start in range(0, len(request.prompts), request.batch_size):
        part = slice(start, start + request.batch_size)
        steps = sample(models, request, request.prompts[part], request.seeds[part])
        pictures += decode(models, _last(steps, commands))
    return pictures


def _last(steps: Iterator[Step], commands: Commands | None) -> torch.Tensor:
    x = torch.empty(0)
    for step in steps:
        if commands is not None and commands.stop:
            raise Interrupted("Sampling was stopped.")
        x = step.x
    return x


def sample(models: Models, request: SampleRequest, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[Step]:
    """Sample one batch from noise; the last step's x is the result (scaled latents)."""
    factor = latent_factor(models)
    if request.width % factor or request.height % factor:
        raise ConfigError(
            f"{request.width} x {request.height} cannot be drawn: sides are multiples of {factor} pixels."
        )
    shape = (models.unet.config.out_channels, request.height // factor, request.width // factor)
    device = next(models.unet.parameters()).device
    empty = Start(torch.zeros((len(prompts), *shape), device=device), extra=_blank_extra(models, request))
    return sample_from(models, request, prompts, draw_noise(seeds, shape), empty)


def sample_from(
    models: Models, request: SampleRequest, prompts: Sequence[str], noise: torch.Tensor, start: Start
) -> Iterator[Step]:
    """Sample one batch from latents, noised as far as `request.denoise` says; with a mask only inside it."""
    arch = models.architecture
    zero = arch.zero_terminal_snr if request.zero_terminal_snr is None else request.zero_terminal_snr
    d = discretization(zero)
    sigmas = sampling_sigmas(d, request.scheduler, request.steps, request.denoise)
    if len(sigmas) < 2:
        yield Step(0, 0, start.latents, start.latents)
        return
    guidance = guidance_of(models, request, prompts)
    v = (request.prediction or arch.prediction) == "v"
    denoise = unet_denoiser(models, guidance, d, v, start.extra)
    noise = noise.to(start.latents.device)
    if start.mask is not None:
        denoise = masked(denoise, start, noise)
    x = starting_noise(d, float(sigmas[0]), noise, start.latents)
    for step in SAMPLERS[request.sampler](denoise, x, sigmas):
        if not bool(torch.isfinite(step.x).all()):
            raise NotFinite(f"Sampling step {step.done} gave NaN: try fp32 (dtype) and check the LoRAs' strengths.")
        yield step


def latent_factor(models: Models) -> int:
    """Pixels per latent cell."""
    vae = models.architecture.vae
    return 8 if vae is None else 2 ** (len(vae.block_out_channels) - 1)


def draw_noise(seeds: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """N(0, 1) [n,c,h,w] drawn on the CPU, each picture from its own seed."""
    rows = [torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(rows)


@torch.no_grad()
def guidance_of(models: Models, request: SampleRequest, prompts: Sequence[str]) -> Guidance:
    """Encode the prompts of a batch, and the negative prompt unless cfg is 1."""
    wanted = dict.fromkeys([*prompts, request.negative])
    encoded = {text: _encode(models, text, request.clip_skip) for text in wanted}
    tokens = math.lcm(*(c.context.shape[1] for c in encoded.values()))
    positive = _stack([encoded[text] for text in prompts], tokens)
    if request.cfg == 1:
        return Guidance(positive, None, request.cfg)
    return Guidance(positive, _stack([encoded[request.negative]] * len(prompts), tokens), request.cfg)


def _encode(models: Models, text: str, clip_skip: int) -> Conditioning:
    tokens = CHUNK * chunks_needed([text])
    return encode_prompts(models.text_encoders, models.architecture, [text], clip_skip, tokens)


def _stack(rows: Sequence[Conditioning], tokens: int) -> Conditioning:
    """Join rows; shorter contexts are repeated to the common length, which leaves cross-attention's result the same."""
    contexts = [row.context.repeat(1, tokens // row.context.shape[1], 1) for row in rows]
    pooled = [row.pooled for row in rows if row.pooled is not None]
    return Conditioning(torch.cat(contexts), torch.cat(pooled) if pooled else None)


def unet_denoiser(
    models: Models, guidance: Guidance, d: Discretization, v: bool, extra: torch.Tensor | None
) -> Denoise:
    """The UNet as x, sigma -> clean latents, with classifier-free guidance on those (Ho & Salimans 2022)."""
    dtype = next(models.unet.parameters()).dtype
    parts = [guidance.positive] if guidance.negative is None else [guidance.negative, guidance.positive]
    context = torch.cat([part.context for part in parts]).to(dtype)
    pooled = [part.pooled for part in parts if part.pooled is not None]

    @torch.no_grad()
    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        scaled = (x / math.sqrt(sigma * sigma + 1)).repeat(len(parts), 1, 1, 1)
        if extra is not None:
            scaled = torch.cat([scaled, extra.to(scaled).expand(len(scaled), -1, -1, -1)], dim=1)
        added = _sizes(pooled, x, latent_factor(models), dtype)
        t = torch.tensor(d.timestep(sigma), device=x.device)
        out = models.unet(scaled.to(dtype), t, encoder_hidden_states=context, added_cond_kwargs=added).sample
        clean = to_clean(x.repeat(len(parts), 1, 1, 1), out.float(), sigma, v)
        if guidance.negative is None:
            return clean
        unconditional, conditional = clean.chunk(2)
        return unconditional + (conditional - unconditional) * guidance.cfg

    return denoise


def _sizes(pooled: Sequence[torch.Tensor], x: torch.Tensor, factor: int, dtype: torch.dtype) -> dict[str, Any]:
    if not pooled:
        return {}
    text = torch.cat(list(pooled)).to(dtype)
    ids = time_ids(x.shape[2] * factor, x.shape[3] * factor).to(x.device)
    return {"text_embeds": text, "time_ids": ids.repeat(len(text), 1)}


def to_clean(x: torch.Tensor, out: torch.Tensor, sigma: float, v: bool) -> torch.Tensor:
    """The clean latents at x = clean + sigma eps that a prediction implies: eps, or v (Salimans & Ho 2022)."""
    if not v:
        return x - out * sigma
    return x / (sigma * sigma + 1) - out * (sigma / math.sqrt(sigma * sigma + 1))


def masked(denoise: Denoise, start: Start, noise: torch.Tensor) -> Denoise:
    """Outside the mask the model sees the original at the step's noise level, and its answer is the original."""
    mask, latents = start.mask, start.latents
    assert mask is not None

    def inside(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen = x * mask + (latents + sigma * noise) * (1 - mask)
        return denoise(seen, sigma) * mask + latents * (1 - mask)

    return inside


@torch.no_grad()
def encode(models: Models, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [n,3,h,w] in 0..1 -> scaled latents fp32 (the mean of the VAE's posterior, no sampling)."""
    vae = models.vae
    place = next(vae.parameters())
    mean = vae.encode((pixels * 2 - 1).to(place)).latent_dist.mode()
    if not bool(torch.isfinite(mean).all()) and place.dtype != torch.float32:
        models.vae = vae.float()
        return encode(models, pixels)
    return mean.float() * vae.config.scaling_factor


@torch.no_grad()
def decode(models: Models, latents: torch.Tensor) -> list[Image.Image]:
    """Scaled latents [n,c,h,w] -> RGB pictures, one at a time; values are cut to bytes as both hosts do.

    A VAE that gives NaN is used in fp32 from then on; NotFinite is raised when that does not help.
    """
    return [Image.fromarray(_decode_one(models, row)) for row in latents.split(1)]


def _decode_one(models: Models, latents: torch.Tensor) -> np.ndarray:
    place = next(models.vae.parameters())
    pixels = models.vae.decode((latents / models.vae.config.scaling_factor).to(place)).sample[0]
    if not bool(torch.isfinite(pixels).all()):
        if place.dtype == torch.float32:
            raise NotFinite("The VAE gave NaN even in fp32: the VAE file or the latents are broken.")
        models.vae = models.vae.float()
        return _decode_one(models, latents)
    bytes_ = ((pixels.float() + 1) / 2).clamp(0, 1) * 255
    return bytes_.permute(1, 2, 0).cpu().numpy().astype(np.uint8)  # [3, h, w] -> [h, w, 3]


def _blank_extra(models: Models, request: SampleRequest) -> torch.Tensor | None:
    """9-channel models drawing from nothing: mask everywhere, a grey picture beneath it."""
    if not models.architecture.inpainting:
        return None
    grey = encode(models, torch.full((1, 3, request.height, request.width), 0.5))
    return torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)
