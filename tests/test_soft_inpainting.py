"""Soft inpainting: the extension's own answers, recorded by tools/record_a1111_functions.py, and what sliders mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recorded import a1111_functions, recorder

from lora_core.soft_inpainting import (
    SoftOptions,
    at_picture_size,
    blend,
    change_mask,
    gaussian_kernel,
    step_weight,
    weighted_filter,
)

SLIDERS = (SoftOptions(), SoftOptions(2.5, 3, 12, 0.6, 2, 4))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sigma", [14.6, 0.3, 501.0])
def test_blending_is_the_extensions(seed: int, sigma: float) -> None:
    first, second, mask = (torch.from_numpy(array) for array in recorder().latents(seed))
    weight = step_weight(mask[None, None], sigma, SLIDERS[seed])
    ours = blend(first, second, weight, SLIDERS[seed].contrast)
    theirs = torch.from_numpy(a1111_functions()[f"blend_{seed}_{sigma}"].copy())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("window", [(0.9, 1.0), (0.25, 0.75)])
def test_filters_are_the_extensions(seed: int, window: tuple[float, float]) -> None:
    first, second, _ = recorder().latents(seed)
    ours = weighted_filter(np.linalg.norm(second - first, axis=1)[0], gaussian_kernel(1.5, 2), window)
    np.testing.assert_allclose(ours, a1111_functions()[f"filter_{seed}_{window[0]}"], rtol=1e-6)


def test_what_did_not_change_is_not_shown() -> None:
    change = torch.zeros(16, 16)
    change[6:10, 6:10] = 5.0
    shown = np.asarray(change_mask(change, torch.ones(16, 16), SoftOptions()))
    assert shown[7:9, 7:9].min() > 240
    assert shown[:3].max() == 0
    wide = np.asarray(at_picture_size(change_mask(change, torch.ones(16, 16), SoftOptions()), (128, 128)))
    assert wide.shape == (128, 128)
    assert wide[64, 64] > 230
    assert wide[0, 0] == 0


def test_the_threshold_and_the_masks_influence() -> None:
    change = torch.full((8, 8), 1.0)
    full, empty = torch.ones(8, 8), torch.zeros(8, 8)
    low, high = (np.asarray(change_mask(change, full, SoftOptions(threshold=t))).mean() for t in (0.25, 4.0))
    assert low > 200 > 50 > high
    following = SoftOptions(mask_influence=1.0)
    assert np.asarray(change_mask(change, full, following)).min() == 255
    assert np.asarray(change_mask(change, empty, following)).max() == 0
    nothing = np.asarray(change_mask(torch.zeros(8, 8), full, SoftOptions(threshold=0.0)))
    assert nothing.max() == 0


def test_weights_end_at_the_masks_ends() -> None:
    mask = torch.tensor([0.0, 0.5, 1.0])[None, None, None]
    early, late = (step_weight(mask, sigma, SoftOptions()) for sigma in (14.0, 0.1))
    assert early[..., 0] == late[..., 0] == 0
    assert early[..., 2] == late[..., 2] == 1
    assert early[..., 1] < 0.01 < 0.9 < late[..., 1]


def test_a_high_contrast_keeps_the_larger_length() -> None:
    a, b = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1), torch.tensor([0.0, 3.0]).reshape(1, 2, 1, 1)
    half = torch.full((1, 1, 1, 1), 0.5)
    lengths = [float(blend(a, b, half, contrast).norm()) for contrast in (1, 4, 32)]
    assert lengths[0] == pytest.approx(2.0, abs=1e-3)
    assert lengths[0] < lengths[1] < lengths[2] < 3
