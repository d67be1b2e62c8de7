"""Run ComfyUI's own samplers on the toy UNet; the results go into a safetensors file."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from common import report, request
from safetensors.torch import save_file

NAMES = {"dpm2": "dpm_2", "dpm2_ancestral": "dpm_2_ancestral", "unipc": "uni_pc"}


class Wrapped:
    """As much of ComfyUI's model wrappers as its samplers look at."""

    def __init__(self, sampling: Any, toy: Any) -> None:
        self.model_sampling, self.toy = sampling, toy
        self.inner_model = self.model_patcher = self

    def get_model_object(self, name: str) -> Any:
        return self.model_sampling

    def scale_latent_inpaint(self, sigma: Any, noise: Any, latent_image: Any, **kwargs: Any) -> Any:
        return self.model_sampling.noise_scaling(sigma.reshape([sigma.shape[0], 1, 1, 1]), noise, latent_image)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        s = self.model_sampling
        out = self.toy(s.calculate_input(sigma, x), s.timestep(sigma).float())
        return s.calculate_denoised(sigma, out, x)


def run(case: Any) -> torch.Tensor:
    import comfy.model_sampling as sampling
    import comfy.sample
    import comfy.samplers
    import toy_unet
    from sampling_cases import SHAPE

    kind = sampling.V_PREDICTION if case.v else sampling.EPS
    built = type("Sampling", (sampling.ModelSamplingDiscrete, kind), {})(zsnr=case.ztsnr)
    model = Wrapped(built, toy_unet.toy)
    scheduler = "normal" if case.scheduler == "automatic" else case.scheduler
    name = NAMES.get(case.sampler, case.sampler)
    k = comfy.samplers.KSampler(model, case.steps, "cpu", name, scheduler, case.denoise)
    latents = torch.zeros(2, *SHAPE) if case.denoise is None else toy_unet.picture(2, SHAPE)
    noise = comfy.sample.prepare_noise(latents, case.seeds[0])
    mask = toy_unet.mask(SHAPE).expand(2, 4, -1, -1) if case.masked else None
    sampler = comfy.samplers.sampler_object(k.sampler)
    options = {"seed": case.seeds[0], "model_options": {}}
    return sampler.sample(model, k.sigmas.clone(), options, None, noise, latents, mask, True)


def main() -> None:
    asked = request()
    sys.path[:0] = [asked["host"], asked["tests"]]
    sys.argv = ["main.py", "--cpu"]
    os.chdir(asked["host"])
    import comfy.options

    comfy.options.enable_args_parsing()
    import sampling_cases

    save_file({case.name: run(case).contiguous() for case in sampling_cases.comfyui()}, asked["out"])
    report({"done": True})


main()
