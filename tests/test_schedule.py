"""Noise schedule and sigmas against diffusers and known figures of the hosts."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from lora_core.engine.schedule import alphas_cumprod, discretization, sampling_sigmas, starting_noise


def diffusers_alphas(**options: bool) -> torch.Tensor:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options).alphas_cumprod


def test_alphas_equal_diffusers() -> None:
    assert torch.allclose(alphas_cumprod(), diffusers_alphas(), rtol=2e-5)


def test_zero_terminal_snr_equals_diffusers() -> None:
    ours = alphas_cumprod(zero_terminal_snr=True)
    assert ours[-1] == 0
    assert torch.allclose(ours, diffusers_alphas(rescale_betas_zero_snr=True), rtol=1e-3, atol=1e-6)


def test_known_extremes() -> None:
    sigmas = discretization().sigmas
    assert float(sigmas[-1]) == pytest.approx(14.6146, abs=1e-4)
    assert float(sigmas[0]) == pytest.approx(0.029167, abs=1e-6)
    assert float(discretization(True).sigmas[-1]) == pytest.approx(4518.76, rel=1e-3)


def test_timestep_is_the_inverse_of_sigma() -> None:
    d = discretization()
    assert [d.timestep(d.sigma(t)) for t in (0, 1, 376, 999)] == [0, 1, 376, 999]
    assert d.sigma(10) < d.sigma(10.5) < d.sigma(11)


@pytest.mark.parametrize(("asked", "made"), [(4, 4), (7, 8), (20, 20), (30, 31), (50, 50), (60, 63)])
def test_ddim_uniform_makes_comfyuis_number_of_steps(asked: int, made: int) -> None:
    sigmas = sampling_sigmas(discretization(), "ddim_uniform", asked)
    assert len(sigmas) == made + 1
    assert sigmas[-1] == 0


def test_partial_denoising_keeps_the_tail() -> None:
    d = discretization()
    sigmas = sampling_sigmas(d, "ddim_uniform", 4, 0.5)
    assert [d.timestep(s) for s in sigmas[:-1]] == [376, 251, 126, 1]
    assert len(sampling_sigmas(d, "normal", 4, 0.0)) == 1


@pytest.mark.parametrize("scheduler", ["normal", "karras", "ddim_uniform"])
def test_sigmas_fall_to_zero(scheduler: str) -> None:
    sigmas = sampling_sigmas(discretization(), scheduler, 10)
    assert bool((sigmas.diff() < 0).all())
    if scheduler != "ddim_uniform":
        assert len(sigmas) == 11
        assert float(sigmas[0]) == pytest.approx(14.6146, rel=1e-4)
        assert float(sigmas[-2]) == pytest.approx(0.029167, rel=1e-3)


def test_starting_noise_at_the_top_has_full_variance() -> None:
    d, noise, latents = discretization(), torch.ones(1), torch.full((1,), 2.0)
    top = float(d.sigmas[-1])
    assert float(starting_noise(d, top, noise, latents)) == pytest.approx(2 + (1 + top**2) ** 0.5)
    assert float(starting_noise(d, 3.0, noise, latents)) == pytest.approx(5.0)
