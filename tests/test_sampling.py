"""Pictures from tiny models: guidance, batches, masks, NaN."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import tiny
import torch
from sampling_cases import Case
from sampling_runs import ours

from lora_core.commands import Commands
from lora_core.engine.models import Models, load_models
from lora_core.engine.prompt import encode_prompts, time_ids
from lora_core.engine.sampling import (
    SampleRequest,
    Start,
    encode,
    noise_of,
    sample,
    sample_from,
    sample_pictures,
)
from lora_core.engine.schedule import discretization, sampling_sigmas
from lora_core.errors import ConfigError, Interrupted, NotFinite
from lora_core.jobs.choices import SAMPLERS
from lora_core.jobs.generate import ARITHMETICS, SCHEDULERS

REQUEST = SampleRequest(("a cat",), (5,), negative="blurry", width=64, height=48, steps=3, cfg=4.0, sampler="euler")


@pytest.fixture(scope="module")
def loaded() -> Models:
    return load_models(tiny.checkpoint("sd15"), torch.float32, "cpu")


def final(models: Models, request: SampleRequest) -> torch.Tensor:
    return list(sample(models, request, request.prompts, request.seeds))[-1].x


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("v", [False, True])
def test_equals_a_loop_written_out_with_diffusers(kind: str, v: bool) -> None:
    """Guidance on separate calls of the original UNet, Euler's rule, ComfyUI's scaling."""
    models, unet = (
        load_models(tiny.checkpoint(kind), torch.float32, "cpu"),
        tiny.modules(tiny.architecture(kind))["unet"],
    )
    d = discretization()
    sigmas = sampling_sigmas(d, "normal", 3).tolist()
    x = torch.randn((1, 4, 6, 8), generator=torch.Generator().manual_seed(5)) * (1 + sigmas[0] ** 2) ** 0.5

    def clean(text: str, x: torch.Tensor, sigma: float) -> torch.Tensor:
        c = encode_prompts(models.text_encoders, models.architecture, [text])
        added = {} if c.pooled is None else {"text_embeds": c.pooled, "time_ids": time_ids(48, 64)[None]}
        out = unet(x / (sigma**2 + 1) ** 0.5, d.timestep(sigma), c.context, added_cond_kwargs=added).sample
        return x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5 if v else x - sigma * out

    with torch.no_grad():
        for sigma, after in pairwise(sigmas):
            conditional, unconditional = clean("a cat", x, sigma), clean("blurry", x, sigma)
            denoised = unconditional + 4.0 * (conditional - unconditional)
            x = x + (x - denoised) / sigma * (after - sigma)
    got = final(models, replace(REQUEST, prediction="v" if v else "epsilon"))
    assert torch.allclose(got, x, atol=1e-3 * float(x.abs().max()))


def test_a_picture_does_not_depend_on_its_batch(loaded: Models) -> None:
    alone = [final(loaded, replace(REQUEST, prompts=(p,), seeds=(s,))) for p, s in (("a cat", 5), ("a red dog", 9))]
    both = final(loaded, replace(REQUEST, prompts=("a cat", "a red dog"), seeds=(5, 9)))
    assert torch.allclose(both, torch.cat(alone), rtol=1e-3, atol=1e-4 * float(both.abs().max()))


def test_prompts_of_different_length_share_a_batch(loaded: Models) -> None:
    texts = ("a cat", "dog " * 80)
    both = final(loaded, replace(REQUEST, prompts=texts, seeds=(5, 6)))
    alone = [final(loaded, replace(REQUEST, prompts=(t,), seeds=(s,))) for t, s in zip(texts, (5, 6))]
    assert torch.allclose(both, torch.cat(alone), rtol=1e-3, atol=1e-4 * float(both.abs().max()))


def test_cfg_1_ignores_the_negative_prompt(loaded: Models) -> None:
    plain = replace(REQUEST, cfg=1.0)
    assert torch.equal(final(loaded, plain), final(loaded, replace(plain, negative="something else")))
    assert not torch.equal(final(loaded, REQUEST), final(loaded, replace(REQUEST, negative="something else")))


def test_pictures_have_the_size_and_follow_the_seed(loaded: Models) -> None:
    request = replace(REQUEST, prompts=("a cat",) * 3, seeds=(1, 2, 1), batch_size=2)
    pictures = sample_pictures(loaded, request)
    pixels = [np.asarray(p) for p in pictures]
    assert [p.size for p in pictures] == [(64, 48)] * 3
    assert np.abs(pixels[0].astype(int) - pixels[2]).max() <= 1
    assert (pixels[0] != pixels[1]).any()


@pytest.mark.parametrize("kind", ["sd2", "sdxl", "sd15-inpaint"])
def test_other_families_draw(kind: str) -> None:
    models = load_models(tiny.checkpoint(kind), torch.bfloat16, "cpu")
    assert sample_pictures(models, replace(REQUEST, steps=1))[0].size == (64, 48)


def test_outside_the_mask_nothing_changes(loaded: Models) -> None:
    latents, noise = encode(loaded, torch.rand(1, 3, 48, 64)), noise_of(loaded, REQUEST, [3], (4, 6, 8))
    mask = torch.zeros(1, 1, 6, 8)
    mask[:, :, 2:4, 3:6] = 1
    steps = list(sample_from(loaded, replace(REQUEST, denoise=0.6), ["a cat"], noise, Start(latents, mask)))
    kept = (mask == 0).expand_as(latents)
    assert torch.allclose(steps[-1].x[kept], latents[kept], atol=1e-5)
    assert not torch.allclose(steps[-1].x[~kept], latents[~kept], atol=0.1)


def test_denoise_0_gives_the_latents_back(loaded: Models) -> None:
    latents = torch.rand(1, 4, 6, 8)
    noise = noise_of(loaded, REQUEST, [3], (4, 6, 8))
    steps = list(sample_from(loaded, replace(REQUEST, denoise=0.0), ["a cat"], noise, Start(latents)))
    assert torch.equal(steps[-1].x, latents)


def test_stop_interrupts(loaded: Models) -> None:
    commands = Commands()
    commands.stop = True
    with pytest.raises(Interrupted):
        sample_pictures(loaded, REQUEST, commands)


def test_sides_must_fit_the_latents(loaded: Models) -> None:
    with pytest.raises(ConfigError, match="multiples of 8"):
        sample_pictures(loaded, replace(REQUEST, width=60))


def test_nan_is_a_sentence() -> None:
    models = load_models(tiny.checkpoint("sd15"), torch.float32, "cpu")
    models.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(NotFinite, match="step 1"):
        sample_pictures(models, REQUEST)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_every_sampler_takes_every_schedule_from_noise_and_from_a_picture(arithmetic: str) -> None:
    for sampler, scheduler in product(SAMPLERS, SCHEDULERS):
        drawn = [ours(Case(sampler, scheduler, steps, denoise), arithmetic) for steps, denoise in ((1, None), (4, 0.6))]
        assert all(torch.isfinite(x).all() and x.std() > 0 for x in drawn), (sampler, scheduler)
