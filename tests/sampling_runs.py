"""Our samplers on the toy UNet, case by case, and how far they may be from a host's."""

from __future__ import annotations

import torch
from sampling_cases import SHAPE, Case
from toy_unet import mask, picture, toy

from lora_core.engine.host_steps import host_steps
from lora_core.engine.random_noise import Noise, NoiseSettings
from lora_core.engine.request import SampleRequest, Start


def ours(case: Case, host: str) -> torch.Tensor:
    request = SampleRequest(
        prompts=("", ""), seeds=case.seeds, steps=case.steps, sampler=case.sampler, scheduler=case.scheduler,
        denoise=1.0 if case.denoise is None else case.denoise, prediction="v" if case.v else "epsilon",
        zero_terminal_snr=case.ztsnr, arithmetic=host, eta=case.eta, exactly=case.exactly,
    )  # fmt: skip
    same = host == "comfyui" or case.subseed_strength > 0
    settings = NoiseSettings(host, case.source, case.subseed_strength, case.seed_delta)
    noise = Noise((case.seeds[0],) * 2 if same else case.seeds, SHAPE, settings, (3, 4))
    latents = torch.zeros(2, *SHAPE) if case.denoise is None else picture(2, SHAPE)
    start = Start(latents, mask(SHAPE) if case.masked else None, fresh=case.denoise is None)
    x = latents
    for step in host_steps(lambda x, t, sigma: toy(x, torch.tensor(t)), request, noise, start):
        x = step.x
    return x


def tolerance(case: Case, host: str) -> float:
    """Of the largest value. ComfyUI's LMS integrates in single precision; at a first sigma of 4518 rounding shows; a
    Brownian path is read at times rounded to six digits, which a last bit may tip."""
    if case.sampler in ("dpmpp_sde", "dpmpp_2m_sde"):
        return 2e-3
    return 3e-4 if case.ztsnr or (case.sampler == "lms" and host == "comfyui") else 2e-5


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())
