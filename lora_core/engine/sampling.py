"""From loaded models and prompts to latents and pictures, with the arithmetic of either host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from PIL import Image

from lora_core.commands import Commands
from lora_core.engine import sampler_rules
from lora_core.engine.denoiser import Prediction, guided_unet, latent_factor
from lora_core.engine.guidance import Guidance, PromptOptions, guidance_of
from lora_core.engine.host_steps import host_steps
from lora_core.engine.models import Models
from lora_core.engine.random_noise import Noise, NoiseSettings, posterior_noise
from lora_core.engine.request import SampleRequest, Start
from lora_core.engine.samplers import Step
from lora_core.engine.vae import Draw, decode, encode
from lora_core.errors import ConfigError, Interrupted, NotFinite
from lora_core.shapes import TEXT_ENCODER, TEXT_ENCODER_2, UNET

__all__ = ["SampleRequest", "Start", "decode", "encode", "latent_factor", "noise_of", "sample", "sample_from"]


def sample_pictures(models: Models, request: SampleRequest, commands: Commands | None = None) -> list[Image.Image]:
    """Draw all pictures of a request, in batches. Raises Interrupted when `commands.stop` is raised meanwhile."""
    pictures: list[Image.Image] = []
    for start in range(0, len(request.prompts), request.batch_size):
        part = slice(start, start + request.batch_size)
        steps = sample(models, request, request.prompts[part], request.seeds[part], commands)
        pictures += decode(models, _last(steps, commands), request.low_memory)
    return pictures


def _last(steps: Iterator[Step], commands: Commands | None) -> torch.Tensor:
    x = torch.empty(0)
    for step in steps:
        if commands is not None and commands.stop:
            raise Interrupted("Sampling was stopped.")
        x = step.x
    return x


def sample(
    models: Models,
    request: SampleRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    commands: Commands | None = None,
) -> Iterator[Step]:
    """txt2img of one batch; the last step's x is the result (scaled latents). `request.denoise` does not matter."""
    shape = latent_shape(models, request)
    nothing = torch.zeros((len(prompts), *shape), device=models.device)
    draw = posterior_noise(seeds[-1]) if request.arithmetic == "a1111" else None
    extra = all_masked(models, nothing, draw) if models.architecture.inpainting else None
    noise = noise_of(models, request, seeds, shape)
    return sample_from(models, request, prompts, noise, Start(nothing, extra=extra, fresh=True), commands)


def latent_shape(models: Models, request: SampleRequest) -> tuple[int, int, int]:
    """[c, h, w] of one picture. Raises ConfigError for sides that no latents fit."""
    factor = latent_factor(models)
    if request.width % factor or request.height % factor:
        raise ConfigError(
            f"{request.width} x {request.height} cannot be drawn: sides are multiples of {factor} pixels."
        )
    return models.unet.config.out_channels, request.height // factor, request.width // factor


def noise_of(models: Models, request: SampleRequest, seeds: Sequence[int], shape: Sequence[int]) -> Noise:
    """The noise of one batch of pictures with latents of `shape` [c, h, w]."""
    settings = NoiseSettings(
        request.arithmetic, request.noise_source, request.subseed_strength, request.seed_delta, models.device
    )
    return Noise(seeds, shape, settings, request.subseeds)


def sample_from(
    models: Models,
    request: SampleRequest,
    prompts: Sequence[str],
    noise: Noise,
    start: Start,
    commands: Commands | None = None,
) -> Iterator[Step]:
    """Sample one batch from latents, noised as far as `request.denoise` says; with a mask only inside it.

    The last step's x is the result as the host's sampler leaves it: A1111 mixes it with the start's latents once more
    (x * mask + latents * (1 - mask)), which is the caller's business. Raises Interrupted before a UNet call once
    `commands.stop` is up, NotFinite for NaN.
    """
    arch = models.architecture
    zero = arch.zero_terminal_snr if request.zero_terminal_snr is None else request.zero_terminal_snr
    request = replace(request, prediction=request.prediction or arch.prediction, zero_terminal_snr=zero)
    how = Prediction(request.cfg, request.prediction == "v", request.cfg_rescale, request.low_memory, start.extra)
    if request.arithmetic == "a1111":  # of a second pass the size before it is cut
        how = replace(how, size=(request.width, request.height))
    models.work(TEXT_ENCODER, TEXT_ENCODER_2)
    guidance = _guidance(models, request, prompts)
    models.work(UNET)
    predict = guided_unet(models, guidance, how, commands)
    return checked(host_steps(predict, request, noise, start), start.latents)


def _guidance(models: Models, request: SampleRequest, prompts: Sequence[str]) -> Guidance:
    options = PromptOptions(
        arithmetic=request.arithmetic,
        clip_skip=request.clip_skip,
        emphasis=request.emphasis,
        padding=request.padding,
        steps=request.steps,
        second_order=sampler_rules.second_order(request.arithmetic, request.sampler),
        hires_steps=request.hires_steps,
        embeddings=request.embeddings,
    )
    return guidance_of(models, options, prompts, request.negative, request.cfg)


def checked(steps: Iterator[Step], latents: torch.Tensor) -> Iterator[Step]:
    """The steps, at least one of them, all finite."""
    empty = True
    for step in steps:
        if not bool(torch.isfinite(step.x).all()):
            raise NotFinite(f"Sampling step {step.done} gave NaN: try fp32 (dtype) and check the LoRAs' strengths.")
        empty = False
        yield step
    if empty:
        yield Step(0, 0, latents, latents)


def all_masked(models: Models, latents: torch.Tensor, draw: Draw | None = None) -> torch.Tensor:
    """What 9-channel models see when everything is to be drawn [n,5,h,w]: mask everywhere, a grey picture beneath it,
    encoded with `draw` as `encode` takes it."""
    factor = latent_factor(models)
    sides = [side * factor for side in latents.shape[2:]]
    grey = encode(models, torch.full((len(latents), 3, *sides), 0.5), draw=draw).to(latents)
    return torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)
