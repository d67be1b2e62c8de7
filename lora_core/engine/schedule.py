"""The noise schedule of Stable Diffusion and the sigmas that samplers step through, as ComfyUI computes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

STEPS = 1000
LAST_ALPHA_BAR = 4.8973451890853435e-08  # in place of 0 at zero terminal SNR, so that the last sigma is finite


def _alphas_bar_double() -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def _zero_terminal(alphas_bar: torch.Tensor) -> torch.Tensor:
    """Lin et al. 2024, algorithm 1: shift sqrt(alpha_bar) to end at 0, scale to keep its first value."""
    root = alphas_bar.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def alphas_cumprod(zero_terminal_snr: bool = False) -> torch.Tensor:
    """alpha_bar [1000] float32: scaled-linear betas .00085 to .012; with zero terminal SNR the last one is 0."""
    bar = _alphas_bar_double()
    return (_zero_terminal(bar) if zero_terminal_snr else bar).float()


@dataclass(frozen=True)
class Discretization:
    """sigma(t) = sqrt((1 - alpha_bar) / alpha_bar) over the 1000 training timesteps, ascending, float32."""

    sigmas: torch.Tensor

    def sigma(self, timestep: float) -> float:
        """sigma at a fractional timestep: linear between neighbours in log sigma."""
        t = torch.tensor(timestep, dtype=torch.float32).clamp(0, len(self.sigmas) - 1)
        low, high, w = t.floor().long(), t.ceil().long(), t.frac()
        logs = self.sigmas.log()
        return float(((1 - w) * logs[low] + w * logs[high]).exp())

    def timestep(self, sigma: torch.Tensor | float) -> int:
        """The whole timestep whose sigma is nearest in log."""
        return int((torch.as_tensor(sigma).float().log() - self.sigmas.log()).abs().argmin())


def discretization(zero_terminal_snr: bool = False) -> Discretization:
    bar = _alphas_bar_double()
    sigmas = ((1 - bar) / bar).sqrt().float()
    if zero_terminal_snr:
        bar = _zero_terminal(1 / (sigmas * sigmas + 1))
        bar[-1] = LAST_ALPHA_BAR
        sigmas = ((1 - bar) / bar).sqrt()
    return Discretization(sigmas)


def normal(d: Discretization, steps: int) -> list[float]:
    """Timesteps evenly spaced from 999 to 0."""
    return [d.sigma(float(t)) for t in torch.linspace(len(d.sigmas) - 1, 0, steps)] + [0.0]


def karras(d: Discretization, steps: int, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022, equation 5."""
    least, most = float(d.sigmas[0]) ** (1 / rho), float(d.sigmas[-1]) ** (1 / rho)
    ramp = torch.linspace(0, 1, steps)
    return [*((most + ramp * (least - most)) ** rho).tolist(), 0.0]


def ddim_uniform(d: Discretization, steps: int) -> list[float]:
    """Every (1000 // steps)-th timestep from 1; this can make more steps than asked for (7 -> 8, 30 -> 31)."""
    stride = max(len(d.sigmas) // steps, 1)
    return [*(float(d.sigmas[i]) for i in range(1, len(d.sigmas), stride)[::-1]), 0.0]


SCHEDULES: dict[str, Callable[[Discretization, int], list[float]]] = {
    "automatic": normal,
    "normal": normal,
    "karras": karras,
    "ddim_uniform": ddim_uniform,
}


def sampling_sigmas(d: Discretization, scheduler: str, steps: int, denoise: float = 1.0) -> torch.Tensor:
    """Descending sigmas [n + 1], the last 0. At `denoise` below 1: the tail of a schedule of steps / denoise steps."""
    if denoise <= 0:
        return torch.zeros(1)
    if denoise > 0.9999:
        return torch.tensor(SCHEDULES[scheduler](d, steps))
    return torch.tensor(SCHEDULES[scheduler](d, int(steps / denoise)))[-(steps + 1) :]


def starting_noise(d: Discretization, sigma: float, noise: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """The first x: latents + sigma noise, or with the full variance when sigma is the schedule's largest."""
    most = float(d.sigmas[-1])
    full = math.isclose(most, sigma, rel_tol=1e-5) or sigma > most
    return latents + noise * (math.sqrt(1 + sigma * sigma) if full else sigma)
