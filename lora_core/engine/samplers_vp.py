"""Samplers that step in the variance-preserving picture x = sqrt(a) clean + sqrt(1 - a) eps: A1111's DDIM and UniPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from lora_core.engine.samplers import DETERMINISTIC, Denoise, Renoise, Step

Epsilon = Callable[[torch.Tensor, float], torch.Tensor]


def ddim_timesteps(steps: int) -> torch.Tensor:
    """A1111's ascending timesteps 1, 1 + 1000 // steps, ...; one more than asked for unless steps divides 1000."""
    return torch.clip(torch.arange(0, 1000, 1000 // min(steps, 1000)) + 1, 0, 999)


def ddim_a1111(epsilon: Epsilon, x: torch.Tensor, timesteps: torch.Tensor, alphas_bar: torch.Tensor) -> Iterator[Step]:
    """Song et al. 2021 with eta 0 as A1111 steps: `epsilon(x, t)` at every timestep but the first.

    The last step lands on the first timestep's noise level, which A1111 takes for clean.
    """
    a, total = alphas_bar[timesteps].double(), len(timesteps) - 1
    for i in range(total):
        now, after = a[total - i], a[max(total - i - 1, 0)]
        eps = epsilon(x, float(timesteps[total - i]))
        clean = (x - _scalar((1 - now).sqrt()) * eps) / _scalar(now.sqrt())
        x = _scalar(after.sqrt()) * clean + _scalar((1 - after).sqrt()) * eps
        yield Step(i + 1, total, x, clean)


def _scalar(value: torch.Tensor) -> torch.Tensor:
    return value.float()


def unipc_times(steps: int, start: float = 1.0) -> torch.Tensor:
    """A1111's uniform times from `start` down to 1/1000; time t stands for timestep 1000 t - 1."""
    return torch.linspace(start, 1 / 1000, steps + 1)


def log_alphas_at(times: torch.Tensor, alphas_bar: torch.Tensor) -> torch.Tensor:
    """log sqrt(alpha_bar) at fractional times, linear between the training timesteps."""
    nodes, values = torch.linspace(0, 1, len(alphas_bar) + 1)[1:], 0.5 * alphas_bar.log()
    high = torch.searchsorted(nodes, times).clamp(1, len(nodes) - 1)
    x0, x1, y0, y1 = nodes[high - 1], nodes[high], values[high - 1], values[high]
    return y0 + (times - x0) * (y1 - y0) / (x1 - x0)


def unipc_a1111(epsilon: Epsilon, x: torch.Tensor, times: torch.Tensor, alphas_bar: torch.Tensor) -> Iterator[Step]:
    """UniPC over A1111's times, order 3."""
    log_alphas = log_alphas_at(times, alphas_bar)
    alphas, spreads = log_alphas.exp(), (1 - (2 * log_alphas).exp()).sqrt()

    def clean(x: torch.Tensor, i: int) -> torch.Tensor:
        t = float((times[i] - 1 / 1000) * 1000)
        return (x - spreads[i] * epsilon(x, t)) / alphas[i]

    return unipc_bh(clean, x, log_alphas, min(3, len(times) - 1))


def unipc(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC) -> Iterator[Step]:
    """UniPC as ComfyUI steps: over sigmas, the last of which it takes for 0.001."""
    sigmas = torch.cat([sigmas[:-1], sigmas.new_tensor([max(float(sigmas[-1]), 0.001)])])
    log_alphas = 0.5 * (1 / (sigmas * sigmas + 1)).log()
    alphas = log_alphas.exp()

    def clean(x: torch.Tensor, i: int) -> torch.Tensor:
        return denoise(x * (sigmas[i] ** 2 + 1) ** 0.5, float(sigmas[i]))

    order = max(min(3, len(sigmas) - 2), 1)
    for step in unipc_bh(clean, x / (1 + sigmas[0] ** 2).sqrt(), log_alphas, order):
        yield Step(step.done, step.total, step.x / alphas[step.done], step.denoised)


def unipc_bh(
    clean: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, log_alphas: torch.Tensor, order: int
) -> Iterator[Step]:
    """UniPC (Zhao et al. 2023), data prediction, B(h) = h, lower orders at both ends, no corrector at the end.

    `clean(x, i)` estimates the clean latents at node i of `log_alphas` [n + 1].
    """
    total = len(log_alphas) - 1
    lambdas = log_alphas - 0.5 * (1 - (2 * log_alphas).exp()).log()
    past = [clean(x, 0)]
    for i in range(1, total + 1):
        solver = _Update(log_alphas, lambdas, i, past[-min(order, i, total + 1 - i) :])
        moved = solver.predicted(x)
        if i < total:
            past = [*past[-order:], clean(moved, i)]
            moved = solver.corrected(x, past[-1])
        x = moved
        yield Step(i, total, x, past[-1])


class _Update:
    """One step from node i - 1 to i, from the estimates of the last nodes, the newest last."""

    def __init__(self, log_alphas: torch.Tensor, lambdas: torch.Tensor, i: int, past: list[torch.Tensor]) -> None:
        self.now, self.order = past[-1], len(past)
        spreads = (1 - (2 * log_alphas[i - 1 : i + 1]).exp()).sqrt()
        h = lambdas[i] - lambdas[i - 1]
        self.h, self.ratio, self.alpha = -h, spreads[1] / spreads[0], log_alphas[i].exp()
        self.r = [(lambdas[i - 1 - k] - lambdas[i - 1]) / h for k in range(1, self.order)]
        self.slopes = [(past[-1 - k] - self.now) / r for k, r in zip(range(1, self.order), self.r)]

    def predicted(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.full((1,), 0.5) if self.order == 2 else self._weights(self.order - 1)
        return self._moved(x, self.slopes, weights)

    def corrected(self, x: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        weights = torch.full((1,), 0.5) if self.order == 1 else self._weights(self.order)
        return self._moved(x, [*self.slopes, new - self.now], weights)

    def _moved(self, x: torch.Tensor, slopes: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        base = self.ratio * x - self.alpha * self.h.expm1() * self.now
        change = sum(w * slope for w, slope in zip(weights, slopes))
        return base - self.alpha * self.h * change

    def _weights(self, count: int) -> torch.Tensor:
        """Solves the order conditions R rho = b of `count` terms."""
        nodes = torch.stack([*self.r, torch.ones(())])[:count] if count else torch.zeros(0)
        phi, factorial, b = self.h.expm1() / self.h - 1, 1, []
        for i in range(1, count + 1):
            b.append(phi * factorial / self.h)
            factorial *= i + 1
            phi = phi / self.h - 1 / factorial
        if not count:
            return nodes
        rows = torch.stack([nodes**i for i in range(count)])
        return torch.linalg.solve(rows, torch.stack(b))
