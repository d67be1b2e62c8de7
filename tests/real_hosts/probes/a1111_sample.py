"""Run A1111's own samplers on the toy UNet; the results go into a safetensors file."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import torch
from common import report, request
from safetensors.torch import save_file

LABELS = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "dpm2": "DPM2",
    "dpm2_ancestral": "DPM2 a",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
}
SCHEDULES = {
    "automatic": "Automatic",
    "normal": "Normal",
    "uniform": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "sgm_uniform": "SGM Uniform",
}


def start(host: str, data: str) -> None:
    flags = ["--skip-torch-cuda-test", "--use-cpu", "all", "--no-half", "--ui-debug-mode", "--data-dir", data]
    sys.argv = ["launch.py", *flags]
    sys.path.insert(0, host)
    os.chdir(host)
    from modules import initialize

    initialize.imports()
    initialize.initialize()


class ToyModel(torch.nn.Module):
    """As much of a loaded model as the samplers look at."""

    def __init__(self, toy: Any, v: bool, ztsnr: bool) -> None:
        super().__init__()
        from modules.sd_models import rescale_zero_terminal_snr_abar

        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        bars = torch.cumprod(1 - betas, 0).float()
        self.alphas_cumprod = rescale_zero_terminal_snr_abar(bars) if ztsnr else bars
        self.toy, self.parameterization = toy, "v" if v else "eps"
        self.device, self.is_sdxl, self.cond_stage_key = torch.device("cpu"), False, "txt"
        self.model = SimpleNamespace(conditioning_key="crossattn")

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return self.toy(x, t)

    def get_learned_conditioning(self, texts: Any) -> torch.Tensor:
        return torch.zeros(len(texts), 77, 8)


def run(case: Any) -> torch.Tensor:
    import toy_unet
    from modules import prompt_parser, rng, sd_samplers, shared
    from modules.sd_models import model_data
    from sampling_cases import SHAPE

    model = ToyModel(toy_unet.toy, case.v, case.ztsnr)
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    wanted = {"randn_source": case.source.upper(), "eta_noise_seed_delta": case.seed_delta}
    for name, value in {**wanted, "img2img_fix_steps": case.exactly}.items():
        setattr(shared.opts, name, value)
    seeds = [case.seeds[0]] * 2 if case.subseed_strength else list(case.seeds)
    source = rng.ImageRNG(SHAPE, seeds, subseeds=[3, 4], subseed_strength=case.subseed_strength)
    p = SimpleNamespace(
        rng=source, steps=case.steps, scheduler=SCHEDULES[case.scheduler], is_hr_pass=False, eta=None, cfg_scale=1.0,
        sampler_noise_scheduler_override=None, extra_generation_params={}, all_seeds=seeds, iteration=0, batch_size=2,
        denoising_strength=case.denoise, scripts=None, s_min_uncond=0.0, s_churn=0.0, s_tmin=0.0, s_tmax=0.0,
        s_noise=1.0, refiner_switch_at=None, refiner_checkpoint_info=None,
    )  # fmt: skip
    if case.eta != 1:
        p.eta = case.eta
    sampler = sd_samplers.create_sampler(LABELS[case.sampler], model)
    prompts = prompt_parser.SdConditioning(["", ""])
    cond = prompt_parser.get_multicond_learned_conditioning(model, prompts, case.steps)
    uncond = prompt_parser.get_learned_conditioning(model, prompts, case.steps)
    no_image = torch.zeros(2, 5, 1, 1)
    noise = source.next()
    if case.denoise is None:
        return sampler.sample(p, noise, cond, uncond, image_conditioning=no_image)
    latents = toy_unet.picture(2, SHAPE)
    if case.masked:
        p.nmask = toy_unet.mask(SHAPE).expand(1, 4, -1, -1)
        p.mask = 1 - p.nmask
    return sampler.sample_img2img(p, latents, noise, cond, uncond, image_conditioning=no_image)


def main() -> None:
    asked = request()
    start(asked["host"], asked["data"])
    sys.path.append(asked["tests"])
    import sampling_cases
    from modules import shared

    shared.state.begin()
    shared.opts.live_previews_enable = False
    shared.opts.data["show_progress_type"] = "Approx cheap"
    found = {}
    with torch.no_grad():
        for case in sampling_cases.a1111():
            try:
                found[case.name] = run(case).contiguous()
            except (AssertionError, IndexError, ZeroDivisionError) as error:
                print(case.name, "cannot run here:", repr(error), file=sys.stderr)
    save_file(found, asked["out"])
    report({"done": True})


main()
