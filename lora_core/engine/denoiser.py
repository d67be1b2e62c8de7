"""The UNet with guidance as what samplers ask for: clean latents at a sigma, or noise at a timestep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_core.commands import Commands
from lora_core.engine.guidance import Guidance
from lora_core.engine.models import Models
from lora_core.engine.odd_sizes import a1111_upsampling
from lora_core.engine.prompt import Conditioning, time_ids
from lora_core.engine.samplers import Denoise
from lora_core.engine.samplers_vp import Epsilon
from lora_core.engine.schedule import Discretization
from lora_core.errors import Interrupted

Predict = Callable[[torch.Tensor, float, float], torch.Tensor]


@dataclass(frozen=True)
class Prediction:
    """How to ask the UNet and read its answer: guidance scale, rows `one_by_one` to save memory, and `extra`
    [1 or n,c,h,w], the further inputs of 9-channel models. `size`: the width and height that SDXL is told (None: those
    of the latents)."""

    cfg: float = 7.0
    v: bool = False
    cfg_rescale: float = 0.0
    one_by_one: bool = False
    extra: torch.Tensor | None = None
    size: tuple[int, int] | None = None


def guided_unet(models: Models, guidance: Guidance, how: Prediction, commands: Commands | None = None) -> Predict:
    """`predict(x, t, sigma)`: the UNet's answer to variance-preserving x [n,c,h,w] at timestep t (noise level sigma),
    with classifier-free guidance (Ho & Salimans 2022) and composition (Liu et al. 2022):
    negative + cfg sum w (positive - negative). Raises Interrupted before a call when `commands.stop` is up.
    """
    calls = 0

    @torch.no_grad()
    def predict(x: torch.Tensor, t: float, sigma: float) -> torch.Tensor:
        nonlocal calls
        if commands is not None and commands.stop:
            raise Interrupted("Sampling was stopped.")
        conds = guidance.at(calls)
        calls += 1
        pictures = torch.tensor([i for i, pairs in enumerate(conds.positive) for _ in pairs])
        weights = torch.tensor([weight for pairs in conds.positive for _, weight in pairs]).to(x)
        texts = [row for pairs in conds.positive for row, _ in pairs]
        inputs = x if how.extra is None else torch.cat([x, how.extra.to(x).expand(len(x), -1, -1, -1)], dim=1)
        if conds.negative is None:
            outputs = _answers(models, texts, inputs[pictures], t, how)
            return _summed(torch.zeros_like(x), outputs, pictures, weights)
        everything = torch.cat([pictures, torch.arange(len(x))])
        outputs = _answers(models, [*texts, *[conds.negative] * len(x)], inputs[everything], t, how)
        negative = outputs[len(texts) :]
        change = _summed(torch.zeros_like(x), outputs[: len(texts)] - negative[pictures], pictures, weights)
        guided = negative + change * how.cfg
        return guided if not how.cfg_rescale else rescaled(guided, negative + change, (x, sigma), how)

    def as_a1111(x: torch.Tensor, t: float, sigma: float) -> torch.Tensor:
        with a1111_upsampling(models.unet, x.shape[2:]):
            return predict(x, t, sigma)

    return as_a1111 if guidance.options.arithmetic == "a1111" else predict


def _summed(start: torch.Tensor, rows: torch.Tensor, pictures: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return start.index_add(0, pictures.to(start.device), rows * weights[:, None, None, None])


def _answers(models: Models, texts: Sequence[Conditioning], x: torch.Tensor, t: float, how: Prediction) -> torch.Tensor:
    """One UNet row for each text; texts of another length take a call of their own."""
    lengths: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        lengths.setdefault(i if how.one_by_one else -text.context.shape[1], []).append(i)
    order = [i for members in lengths.values() for i in members]
    found = [_unet(models, [texts[i] for i in members], x[members], t, how.size) for members in lengths.values()]
    return torch.cat(found)[torch.tensor(order).argsort()]


def _unet(
    models: Models, texts: Sequence[Conditioning], x: torch.Tensor, t: float, size: tuple[int, int] | None
) -> torch.Tensor:
    place = next(models.unet.parameters())
    context = torch.cat([text.context for text in texts]).to(place)
    pooled = [text.pooled for text in texts if text.pooled is not None]
    factor = latent_factor(models)
    width, height = size or (x.shape[3] * factor, x.shape[2] * factor)
    added: dict[str, Any] = {}
    if pooled:
        added = {"text_embeds": torch.cat(pooled).to(place)}
        added["time_ids"] = time_ids(height, width).to(place.device).repeat(len(texts), 1)
    when = torch.tensor(t, device=place.device)
    return models.unet(x.to(place), when, encoder_hidden_states=context, added_cond_kwargs=added).sample.to(x.dtype)


def latent_factor(models: Models) -> int:
    """Pixels per latent cell."""
    vae = models.architecture.vae
    return 8 if vae is None else 2 ** (len(vae.block_out_channels) - 1)


def rescaled(
    guided: torch.Tensor, positive: torch.Tensor, at: tuple[torch.Tensor, float], how: Prediction
) -> torch.Tensor:
    """Lin et al. 2024, section 3.4: bring the guided v to the positive v's spread, as far as `cfg_rescale` says.

    `at`: the variance-preserving x and sigma, through which a noise prediction becomes v and back.
    """
    x, sigma = at
    alpha = 1 / math.sqrt(1 + sigma * sigma)
    if not how.v:
        guided, positive = ((out - sigma * alpha * x) / alpha for out in (guided, positive))
    spread = positive.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True)
    guided = how.cfg_rescale * guided * spread + (1 - how.cfg_rescale) * guided
    return guided if how.v else guided * alpha + sigma * alpha * x


def clean_denoiser(predict: Predict, d: Discretization, v: bool) -> Denoise:
    """x, sigma -> clean latents, x = clean + sigma eps."""

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        spread = (torch.tensor(sigma) ** 2 + 1) ** 0.5  # float32, as both hosts have it
        out = predict(x / spread, d.timestep(sigma), sigma)
        return to_clean(x, out, sigma, v)

    return denoise


def to_clean(x: torch.Tensor, out: torch.Tensor, sigma: float, v: bool) -> torch.Tensor:
    """The clean latents at x = clean + sigma eps that a prediction implies: eps, or v (Salimans & Ho 2022)."""
    if not v:
        return x - out * sigma
    return x / (sigma * sigma + 1) - out * (sigma / math.sqrt(sigma * sigma + 1))


def lcm_denoiser(predict: Predict, d: Discretization) -> Denoise:
    """As A1111 has it: noise predictions with the boundary condition of consistency models (Luo et al. 2023)."""
    clean = clean_denoiser(predict, d, v=False)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        scaled, data = d.timestep(sigma) * 10.0, 0.5
        c_skip, c_out = data**2 / (scaled**2 + data**2), scaled / math.sqrt(scaled**2 + data**2)
        return c_out * clean(x, sigma) + c_skip * x

    return denoise


def epsilon_predictor(predict: Predict, d: Discretization, v: bool) -> Epsilon:
    """Variance-preserving x, timestep -> noise; v answers are turned by the whole timestep's level, as A1111 does."""

    def epsilon(x: torch.Tensor, t: float) -> torch.Tensor:
        bar = float(d.alphas_bar[max(int(t), 0)])
        out = predict(x, t, math.sqrt((1 - bar) / bar))
        return math.sqrt(bar) * out + math.sqrt(1 - bar) * x if v else out

    return epsilon
