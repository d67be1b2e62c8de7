"""Noise, targets and loss weights against numpy written from the papers."""

import math

import numpy as np
import pytest
import torch

from lora_core.engine.loss import min_snr_weight, squared_error, training_loss
from lora_core.engine.noise import diffuse, draw_noise, draw_timesteps, perturbed
from lora_core.engine.schedule import alphas_cumprod
from lora_core.jobs.noise import NoiseAndLoss


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
    shape = torch.zeros(2, 4, 8, 8)
    first = draw_noise(NoiseAndLoss(), shape, 7, 3, 0)
    torch.manual_seed(99)
    assert torch.equal(first, draw_noise(NoiseAndLoss(), shape, 7, 3, 0))
    for other in ((7, 3, 1), (7, 4, 0), (8, 3, 0)):
        assert not torch.equal(first, draw_noise(NoiseAndLoss(), shape, *other))


def test_noise_offset_shifts_each_channel_as_a_whole():
    shape = torch.zeros(2, 4, 16, 16)
    plain = draw_noise(NoiseAndLoss(), shape, 1, 0)
    shifted = draw_noise(NoiseAndLoss(noise_offset=0.1), shape, 1, 0) - plain
    assert float(shifted.flatten(2).std(dim=2).max()) < 1e-6
    assert 0.02 < float(shifted.mean((2, 3)).std()) < 0.4


def test_timesteps_stay_in_the_range_and_fill_it():
    t = torch.cat([draw_timesteps(NoiseAndLoss(min_timestep=100, max_timestep=110), 64, 1, i) for i in range(10)])
    assert set(t.tolist()) == set(range(100, 110))


def weighted(prediction: str, **settings) -> tuple[np.ndarray, np.ndarray]:
    """The losses of single pictures at four timesteps, and their plain squared errors."""
    g = torch.Generator().manual_seed(0)
    x, eps, out = (torch.randn(4, 4, 8, 8, generator=g) for _ in range(3))
    t = torch.tensor(STEPS)
    noised = diffuse(x, eps, t, alphas_cumprod(), prediction)
    values = NoiseAndLoss(**{"min_snr_gamma": 0.0, **settings})
    each = [
        training_loss(
            out[i : i + 1],
            diffuse(x[i : i + 1], eps[i : i + 1], t[i : i + 1], alphas_cumprod(), prediction),
            values,
            prediction,
        )
        for i in range(4)
    ]
    return np.array([float(one) for one in each]), (out - noised.target).numpy()


def snr_of(t: list[int]) -> np.ndarray:
    a = numpy_alphas_bar()[t]
    return np.minimum(a / (1 - a), 1000)


STEPS = [5, 300, 600, 990]


@pytest.mark.parametrize(
    ("prediction", "settings", "weight"),
    [
        ("epsilon", {"debiased_estimation": True}, lambda snr: 1 / np.sqrt(snr)),
        ("v", {"debiased_estimation": True}, lambda snr: 1 / (snr + 1)),
        ("epsilon", {"debiased_estimation": True, "min_snr_gamma": 5.0}, lambda snr: 1 / np.sqrt(snr)),
        ("v", {"scale_v_like_epsilon": True}, lambda snr: snr / (snr + 1)),
        ("epsilon", {"scale_v_like_epsilon": True}, lambda snr: np.ones_like(snr)),
        ("epsilon", {"v_like_loss": 0.5}, lambda snr: 1 + 0.5 * (snr + 1) / snr),
        (
            "v",
            {"min_snr_gamma": 5.0, "scale_v_like_epsilon": True},
            lambda snr: np.minimum(snr, 5) * snr / (snr + 1) ** 2,
        ),
    ],
)
def test_weights_by_timestep(prediction, settings, weight):
    losses, differences = weighted(prediction, **settings)
    plain = (differences**2).mean((1, 2, 3))
    np.testing.assert_allclose(losses, plain * weight(snr_of(STEPS)), rtol=2e-5)


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("loss", ["huber", "smooth_l1", "l1"])
def test_robust_losses(loss, schedule):
    losses, d = weighted("epsilon", loss=loss, huber_schedule=schedule, huber_c=0.2, huber_scale=1.5)
    a = numpy_alphas_bar()[STEPS]
    c = {
        "constant": np.full(4, 0.2 * 1.5),
        "exponential": 0.2 ** (np.array(STEPS) / 1000) * 1.5,
        "snr": (1 - 0.2) / (1 + np.sqrt((1 - a) / a)) ** 2 + 0.2,
    }[schedule][:, None, None, None]
    pseudo = np.sqrt(d**2 + c**2) - c
    wanted = {"l1": np.abs(d), "huber": 2 * c * pseudo, "smooth_l1": 2 * pseudo}[loss]
    np.testing.assert_allclose(losses, wanted.mean((1, 2, 3)), rtol=2e-5)


def test_masks_and_weights():
    g = torch.Generator().manual_seed(0)
    x, eps, out = (torch.randn(2, 4, 8, 8, generator=g) for _ in range(3))
    noised = diffuse(x, eps, torch.tensor([10, 500]), alphas_cumprod(), "epsilon")
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4] = 1
    mask[1] = 0.5
    weights = torch.tensor([1.0, 0.25])
    found = training_loss(out, noised, NoiseAndLoss(min_snr_gamma=0), "epsilon", mask, weights)
    square = ((out - eps) ** 2).numpy() * mask.numpy()
    assert float(found) == pytest.approx(float((square.mean((1, 2, 3)) * [1.0, 0.25]).mean()), rel=1e-5)


def test_multiresolution_noise_is_unit_noise_with_slow_waves():
    zeros = torch.zeros(8, 4, 32, 32)
    plain, found = (
        draw_noise(NoiseAndLoss(), zeros, 1, 0),
        draw_noise(NoiseAndLoss(multires_iterations=6, multires_discount=0.8), zeros, 1, 0),
    )
    assert float(found.std()) == pytest.approx(1, abs=1e-5)
    coarse = [float(torch.nn.functional.avg_pool2d(noise, 8).std()) for noise in (plain, found)]
    assert coarse[0] == pytest.approx(1 / 8, rel=0.15) and coarse[1] > 3 * coarse[0]


def test_adaptive_offset_follows_the_means_of_the_channels():
    latents = torch.zeros(400, 4, 4, 4)
    latents[:, 1] = -2.0
    settings = NoiseAndLoss(noise_offset=0.05, adaptive_noise_scale=0.1)
    shift = (draw_noise(settings, latents, 1, 0) - draw_noise(NoiseAndLoss(), latents, 1, 0)).mean((2, 3))
    np.testing.assert_allclose(shift.std(0), [0.05, 0.25, 0.05, 0.05], rtol=0.15)


def test_random_strengths_stay_below_their_limit():
    zeros = torch.zeros(64, 4, 2, 2)
    full, drawn = NoiseAndLoss(noise_offset=0.2), NoiseAndLoss(noise_offset=0.2, noise_offset_random=True)
    shifts = [
        [draw_noise(s, zeros, 1, i) - draw_noise(NoiseAndLoss(), zeros, 1, i) for i in range(12)] for s in (full, drawn)
    ]
    ratios = [float((b / a).mean()) for a, b in zip(*shifts)]
    assert all(0 <= ratio <= 1.001 for ratio in ratios) and max(ratios) - min(ratios) > 0.3


def test_input_perturbation_changes_the_input_and_never_the_target():
    zeros = torch.zeros(16, 4, 8, 8)
    noise = draw_noise(NoiseAndLoss(), zeros, 1, 0)
    seen = perturbed(NoiseAndLoss(ip_noise_gamma=0.1), noise, 1, 0)
    assert float((seen - noise).std()) == pytest.approx(0.1, rel=0.05)
    t = torch.full((16,), 999)
    noised = diffuse(zeros, noise, t, alphas_cumprod(), "epsilon", seen)
    assert torch.equal(noised.target, noise) and not torch.equal(
        noised.latents, diffuse(zeros, noise, t, alphas_cumprod(), "epsilon").latents
    )
    assert perturbed(NoiseAndLoss(), noise, 1, 0) is noise


@pytest.mark.parametrize("density", ["logit_normal", "mode", "cosmap"])
def test_timestep_densities(density):
    """The share of steps below each tenth, against the closed form (Esser et al. 2024)."""
    settings = NoiseAndLoss(timestep_density=density, density_mean=0.5, density_std=0.8)
    t = torch.cat([draw_timesteps(settings, 1000, 1, i) for i in range(20)]).numpy()
    edges = np.linspace(0.1, 0.9, 9)
    if density == "logit_normal":
        z = (np.log(edges / (1 - edges)) - 0.5) / 0.8
        wanted = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
    elif density == "cosmap":
        wanted = 2 / math.pi * np.arctan(edges / (1 - edges))
    else:
        u = np.linspace(0, 1, 100001)
        wanted = np.array([(1 - u - 0.8 * (np.cos(np.pi / 2 * u) ** 2 - 1 + u) < edge).mean() for edge in edges])
    found = np.array([(t < 1000 * edge).mean() for edge in edges])
    np.testing.assert_allclose(found, wanted, atol=0.012)
    assert t.min() >= 0 and t.max() <= 999
