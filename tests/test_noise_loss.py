"""Noise, targets and loss weights against numpy written from the papers."""

import numpy as np
import pytest
import torch

from lora_core.engine.loss import min_snr_weight, squared_error, training_loss
from lora_core.engine.noise import diffuse, draw_noise, draw_timesteps
from lora_core.engine.schedule import alphas_cumprod
from lora_core.jobs.train import NoiseAndLoss


def numpy_alphas_bar() -> np.ndarray:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return np.cumprod(1 - betas)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_diffusion_and_target_match_the_closed_form(prediction):
    rng = np.random.default_rng(3)
    x, eps = rng.normal(size=(2, 3, 4, 8, 8)).astype(np.float32)
    t = np.array([0, 500, 999])
    a = numpy_alphas_bar()[t].reshape(3, 1, 1, 1)
    noised = diffuse(torch.tensor(x), torch.tensor(eps), torch.tensor(t), alphas_cumprod(), prediction)
    target = eps if prediction == "epsilon" else np.sqrt(a) * eps - np.sqrt(1 - a) * x
    np.testing.assert_allclose(noised.latents, np.sqrt(a) * x + np.sqrt(1 - a) * eps, atol=2e-6)
    np.testing.assert_allclose(noised.target, target, atol=2e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_min_snr_is_the_papers_weight(prediction):
    a = numpy_alphas_bar()
    snr = a / (1 - a)
    expected = np.minimum(snr, 5) / (snr + 1 if prediction == "v" else snr)
    weight = min_snr_weight(torch.tensor(a), 5.0, prediction)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_zero_terminal_snr_keeps_v_weights_finite():
    assert torch.isfinite(min_snr_weight(alphas_cumprod(True), 5.0, "v")).all()


def test_loss_is_the_weighted_mean_of_each_pictures_error():
    g = torch.Generator().manual_seed(0)
    x, eps, out = (torch.randn(4, 4, 8, 8, generator=g) for _ in range(3))
    t = torch.tensor([10, 300, 600, 990])
    noised = diffuse(x, eps, t, alphas_cumprod(), "epsilon")
    errors = ((out - eps) ** 2).numpy().mean((1, 2, 3))
    snr = numpy_alphas_bar()[t.numpy()]
    snr = snr / (1 - snr)
    weighted = (errors * np.minimum(snr, 5) / snr).mean()
    assert training_loss(out, noised, NoiseAndLoss(min_snr_gamma=5), "epsilon").item() == pytest.approx(
        weighted, rel=1e-5
    )
    assert training_loss(out, noised, NoiseAndLoss(min_snr_gamma=0), "epsilon").item() == pytest.approx(
        errors.mean(), rel=1e-5
    )
    np.testing.assert_allclose(squared_error(out, eps), errors, rtol=1e-5)


def test_noise_depends_on_its_position_alone():
    shape = torch.Size((2, 4, 8, 8))
    first = draw_noise(NoiseAndLoss(), shape, 7, 3, 0)
    torch.manual_seed(99)
    assert torch.equal(first, draw_noise(NoiseAndLoss(), shape, 7, 3, 0))
    for other in ((7, 3, 1), (7, 4, 0), (8, 3, 0)):
        assert not torch.equal(first, draw_noise(NoiseAndLoss(), shape, *other))


def test_noise_offset_shifts_each_channel_as_a_whole():
    shape = torch.Size((2, 4, 16, 16))
    plain = draw_noise(NoiseAndLoss(), shape, 1, 0)
    shifted = draw_noise(NoiseAndLoss(noise_offset=0.1), shape, 1, 0) - plain
    assert float(shifted.flatten(2).std(dim=2).max()) < 1e-6
    assert 0.02 < float(shifted.mean((2, 3)).std()) < 0.4


def test_timesteps_stay_in_the_range_and_fill_it():
    t = torch.cat([draw_timesteps(NoiseAndLoss(min_timestep=100, max_timestep=110), 64, 1, i) for i in range(10)])
    assert set(t.tolist()) == set(range(100, 110))
