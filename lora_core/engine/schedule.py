"""The noise schedule of Stable Diffusion and the sigmas that samplers step through, as each host computes them.

ComfyUI derives sigmas in double precision and rounds timesteps to whole ones; A1111 (k-diffusion) derives them from
alpha_bar in single precision and keeps fractional timesteps. Pictures differ visibly by either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

STEPS = 1000
LAST_ALPHA_BAR = 4.8973451890853435e-08  # in place of 0 at zero terminal SNR, so that the last sigma is finite
LCM_STEPS = 50  # the steps that latent consistency models were distilled with


def _alphas_bar_double() -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def _zero_terminal(alphas_bar: torch.Tensor) -> torch.Tensor:
    """Lin et al. 2024, algorithm 1: shift sqrt(alpha_bar) to end at 0, scale to keep its first value."""
    root = alphas_bar.sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2


def alphas_cumprod(zero_terminal_snr: bool = False) -> torch.Tensor:
    """alpha_bar [1000] float32: scaled-linear betas .00085 to .012; with zero terminal SNR the last one is 0."""
    bar = _alphas_bar_double()
    return (_zero_terminal(bar) if zero_terminal_snr else bar).float()


@dataclass(frozen=True)
class Discretization:
    """sigma(t) = sqrt((1 - alpha_bar) / alpha_bar) over the training timesteps, ascending; all tensors float32.

    Entry i stands for timestep `stride` * i + `stride` - 1. `whole`: a sigma between two entries is given the nearer
    one's timestep (ComfyUI); otherwise a fractional timestep (A1111).
    """

    sigmas: torch.Tensor
    log_sigmas: torch.Tensor
    alphas_bar: torch.Tensor
    whole: bool = True
    stride: int = 1

    def sigma(self, timestep: torch.Tensor | float) -> float:
        """sigma at a fractional timestep: linear between neighbours in log sigma."""
        t = (torch.as_tensor(timestep).float() - (self.stride - 1)) / self.stride
        t = t.clamp(0, len(self.sigmas) - 1)
        low, high, w = t.floor().long(), t.ceil().long(), t.frac()
        return float(((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[high]).exp())

    def timestep(self, sigma: torch.Tensor | float) -> float:
        """The timestep of a sigma, by distance in log sigma."""
        distance = torch.as_tensor(sigma).float().log() - self.log_sigmas
        if self.whole:
            return int(distance.abs().argmin()) * self.stride + self.stride - 1
        low = min(int((distance >= 0).cumsum(0).argmax()), len(self.sigmas) - 2)
        w = (distance[low] / (self.log_sigmas[low + 1] - self.log_sigmas[low])).clamp(0, 1)
        return float((1 - w) * low + w * (low + 1))


def discretization(zero_terminal_snr: bool = False, arithmetic: str = "comfyui") -> Discretization:
    """The schedule as `arithmetic` ("a1111" or "comfyui") computes it."""
    bar = _alphas_bar_double()
    if arithmetic == "a1111":
        bar = bar.float()
    elif zero_terminal_snr:
        sigmas = ((1 - bar) / bar) ** 0.5
        bar = 1 / (sigmas * sigmas + 1)
    if zero_terminal_snr:
        bar = _zero_terminal(bar)
        bar[-1] = LAST_ALPHA_BAR
    sigmas = ((1 - bar) / bar) ** 0.5
    return Discretization(sigmas.float(), sigmas.log().float(), bar.float(), arithmetic != "a1111")


def lcm_discretization(d: Discretization) -> Discretization:
    """Every 20th timestep alone, as A1111 samples latent consistency models (Luo et al. 2023)."""
    stride = len(d.alphas_bar) // LCM_STEPS
    bar = d.alphas_bar[stride - 1 :: stride]
    sigmas = ((1 - bar) / bar) ** 0.5
    return Discretization(sigmas, sigmas.log(), bar, True, stride)


def normal(d: Discretization, steps: int) -> torch.Tensor:
    """Timesteps evenly spaced from the last to the first."""
    return _at(d, torch.linspace(d.timestep(d.sigmas[-1]), d.timestep(d.sigmas[0]), steps))


def uniform(d: Discretization, steps: int) -> torch.Tensor:
    """As `normal`, from the first and last timestep themselves instead of those that their sigmas are given."""
    return _at(d, torch.linspace(len(d.sigmas) - 1, 0, steps) * d.stride + d.stride - 1)


def sgm_uniform(d: Discretization, steps: int) -> torch.Tensor:
    """As `normal` with one step more, without its last."""
    return _at(d, torch.linspace(d.timestep(d.sigmas[-1]), d.timestep(d.sigmas[0]), steps + 1)[:-1])


def _at(d: Discretization, timesteps: torch.Tensor) -> torch.Tensor:
    return torch.tensor([*(d.sigma(t) for t in timesteps), 0.0])


def karras(d: Discretization, steps: int, rho: float = 7.0) -> torch.Tensor:
    """Karras et al. 2022, equation 5."""
    least, most = float(d.sigmas[0]) ** (1 / rho), float(d.sigmas[-1]) ** (1 / rho)
    ramp = torch.linspace(0, 1, steps)
    return _with_zero((most + ramp * (least - most)) ** rho)


def exponential(d: Discretization, steps: int) -> torch.Tensor:
    """Evenly spaced in log sigma."""
    most, least = math.log(float(d.sigmas[-1])), math.log(float(d.sigmas[0]))
    return _with_zero(torch.linspace(most, least, steps).exp())


def simple(d: Discretization, steps: int) -> torch.Tensor:
    """Every (1000 / steps)-th of the training sigmas, counted from the largest."""
    stride = len(d.sigmas) / steps
    return _with_zero(torch.stack([d.sigmas[-(1 + int(i * stride))] for i in range(steps)]))


def ddim_uniform(d: Discretization, steps: int) -> torch.Tensor:
    """Every (1000 // steps)-th timestep from 1; this can make more steps than asked for (7 -> 8, 30 -> 31)."""
    stride = max(len(d.sigmas) // steps, 1)
    return _with_zero(d.sigmas[1::stride].flip(0))


def _with_zero(sigmas: torch.Tensor) -> torch.Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


SCHEDULES: dict[str, Callable[[Discretization, int], torch.Tensor]] = {
    "automatic": normal,
    "normal": normal,
    "uniform": uniform,
    "karras": karras,
    "exponential": exponential,
    "simple": simple,
    "ddim_uniform": ddim_uniform,
    "sgm_uniform": sgm_uniform,
}


def all_sigmas(d: Discretization, scheduler: str, steps: int, drop_last_but_one: bool = False) -> torch.Tensor:
    """Descending sigmas, the last 0. `drop_last_but_one`: of a schedule one step longer, the smallest is left out."""
    sigmas = SCHEDULES[scheduler](d, steps + drop_last_but_one)
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if drop_last_but_one else sigmas


def sampling_sigmas(
    d: Discretization, scheduler: str, steps: int, denoise: float = 1.0, drop_last_but_one: bool = False
) -> torch.Tensor:
    """ComfyUI's sigmas [n + 1]; at `denoise` below 1 the tail of a schedule of steps / denoise steps."""
    if denoise <= 0:
        return torch.zeros(1)
    if denoise > 0.9999:
        return all_sigmas(d, scheduler, steps, drop_last_but_one)
    return all_sigmas(d, scheduler, int(steps / denoise), drop_last_but_one)[-(steps + 1) :]


def partial_steps(steps: int, denoise: float, exactly: bool = False) -> tuple[int, int]:
    """A1111's img2img: the length of the schedule, and how many steps before its end sampling starts.

    `exactly` makes `steps` steps (the second pass of hires fix; the option "do exactly the number of steps").
    """
    denoise = min(denoise, 0.999)
    if exactly:
        return (int(steps / denoise) if denoise > 0 else 0), steps - 1
    return steps, int(denoise * steps)


def starting_noise(d: Discretization, sigma: float, noise: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """ComfyUI's first x: latents + sigma noise, or with the full variance when sigma is the schedule's largest."""
    most = float(d.sigmas[-1])
    full = math.isclose(most, sigma, rel_tol=1e-5) or sigma > most
    return latents + noise * (math.sqrt(1 + sigma * sigma) if full else sigma)
