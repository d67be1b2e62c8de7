"""Noise sources: known values of A1111's Philox module, batches as each host draws them, the Brownian path."""

from __future__ import annotations

import math

import pytest
import torch

from lora_core.engine.brownian import Path
from lora_core.engine.philox import Philox
from lora_core.engine.random_noise import Noise, NoiseSettings, slerp

SHAPE = (4, 6, 8)


def test_philox_makes_the_numbers_of_an_nvidia_gpu() -> None:
    """The values that A1111's module documents for torch.randn((3, 4)) on CUDA with seed 0."""
    known = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    assert torch.allclose(Philox(0).randn((3, 4)), torch.tensor(known), atol=1e-6)


def test_philox_goes_on_and_knows_64_bit_seeds() -> None:
    stream = Philox(5)
    assert not torch.equal(stream.randn((8,)), stream.randn((8,)))
    assert not torch.equal(Philox(1).randn((8,)), Philox(1 + 2**32).randn((8,)))
    long = Philox(2**64 - 1).randn((100_000,))
    assert abs(float(long.mean())) < 0.02
    assert abs(float(long.std()) - 1) < 0.02


def test_comfyui_draws_a_batch_at_once_and_a1111_each_picture() -> None:
    plain = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(5))
    batch = Noise((5, 5), SHAPE, NoiseSettings("comfyui"))
    assert torch.equal(batch.first(), plain)
    assert torch.equal(batch.next(), plain)  # ComfyUI's samplers seed anew
    single = Noise((5, 6), SHAPE, NoiseSettings("a1111"))
    rows = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    for drawn in (single.first(), single.next()):
        assert torch.equal(drawn, torch.stack([torch.randn(SHAPE, generator=g) for g in rows]))


@pytest.mark.parametrize("arithmetic", ["a1111", "comfyui"])
def test_a_seed_delta_changes_only_what_is_added_later(arithmetic: str) -> None:
    plain, other = (Noise((5,), SHAPE, NoiseSettings(arithmetic, seed_delta=d)) for d in (0, 31337))
    assert torch.equal(plain.first(), other.first())
    assert not torch.equal(plain.next(), other.next())


def test_variation_goes_from_the_seed_to_the_subseed() -> None:
    def first(strength: float) -> torch.Tensor:
        return Noise((5,), SHAPE, NoiseSettings("a1111", subseed_strength=strength), (9,)).first()

    seed, subseed = (Noise((s,), SHAPE, NoiseSettings("a1111")).first() for s in (5, 9))
    assert torch.equal(first(0), seed)
    assert torch.allclose(first(1), subseed, atol=1e-5)
    assert float((first(0.1) - seed).norm()) < float((first(0.5) - seed).norm()) < float((subseed - seed).norm())


def test_slerp_of_the_same_noise_is_a_mean() -> None:
    x = torch.randn(SHAPE)
    assert torch.allclose(slerp(0.3, x, x), x)


def path(entropy: int = 3) -> Path:
    return Path(entropy, 0.03, 14.6, lambda k: torch.randn(20_000, generator=torch.Generator().manual_seed(k)))


def test_brownian_increments_add_up_in_any_order() -> None:
    whole, parts = path().increment(1.0, 9.0), [path().increment(a, b) for a, b in ((5.5, 9.0), (1.0, 2.0), (2.0, 5.5))]
    assert torch.allclose(sum(parts), whole, atol=1e-5)


def test_brownian_increments_have_the_variance_of_their_time() -> None:
    for a, b in ((0.03, 0.05), (1.0, 9.0), (0.03, 14.6)):
        assert float(path().increment(a, b).std()) == pytest.approx(math.sqrt(b - a), rel=0.02)
    left, right = path().increment(1.0, 2.0), path().increment(2.0, 3.0)
    assert abs(float((left * right).mean())) < 0.03


def test_seeds_wrap() -> None:
    assert torch.equal(
        Noise((2**64 + 5,), SHAPE, NoiseSettings("a1111")).first(), Noise((5,), SHAPE, NoiseSettings("a1111")).first()
    )
