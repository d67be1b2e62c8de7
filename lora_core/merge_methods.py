"""Published ways to merge changes of one weight. Pure functions: changes stacked [n, ...], weights [n] -> [...].

The manner of PEFT's `add_weighted_adapter` on full changes (its `*_svd` combinations), with one difference: DARE
rescales by 1 / density as the paper says (PEFT 0.14 computes the rescaled tensor and drops it).
"""

from __future__ import annotations

import torch


def weighted_sum(changes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum_i w_i d_i (task arithmetic, Ilharco et al. 2022, arXiv:2212.04089)."""
    return torch.tensordot(weights.to(changes.dtype), changes, 1)


def trim(change: torch.Tensor, density: float) -> torch.Tensor:
    """Keep the `density` of the numbers that are largest in magnitude, zero for the rest."""
    count = int(density * change.numel())
    if density >= 1:
        return change
    kept = torch.zeros(change.numel(), dtype=change.dtype)
    places = torch.topk(change.abs().flatten(), count).indices
    kept[places] = change.flatten()[places]
    return kept.reshape(change.shape)


def drop_and_rescale(change: torch.Tensor, density: float, generator: torch.Generator | None) -> torch.Tensor:
    """Keep each number with probability p = density and divide by p (DARE, Yu et al. 2023, arXiv:2311.03099)."""
    if density >= 1:
        return change
    if density <= 0:
        return torch.zeros_like(change)
    return change * torch.bernoulli(torch.full_like(change, density), generator=generator) / density


def elected(changes: torch.Tensor, sign: str) -> torch.Tensor:
    """Where each number has the sign that its place elects: of the sum ("total") or of the count ("frequency")."""
    votes = changes if sign == "total" else changes.sign()
    majority = torch.where(votes.sum(0) >= 0, 1, -1)
    return changes.sign() == majority


def disjoint_mean(changes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the numbers that the mask lets through (TIES, section 3)."""
    return (changes * mask).sum(0) / mask.sum(0).clamp(min=1)


def magnitude_prune(changes: torch.Tensor, weights: torch.Tensor, density: float) -> torch.Tensor:
    """The weighted sum of trimmed changes."""
    return weighted_sum(torch.stack([trim(change, density) for change in changes]), weights)


def ties(changes: torch.Tensor, weights: torch.Tensor, density: float, sign: str = "total") -> torch.Tensor:
    """Trim, elect sign, disjoint merge (Yadav et al. 2023, arXiv:2306.01708)."""
    kept = torch.stack([trim(change, density) for change in changes])
    return disjoint_mean(kept * _column(weights, kept), elected(kept, sign))


def dare_linear(
    changes: torch.Tensor, weights: torch.Tensor, density: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """The weighted sum of randomly thinned changes (DARE)."""
    return weighted_sum(torch.stack([drop_and_rescale(c, density, generator) for c in changes]), weights)


def dare_ties(
    changes: torch.Tensor,
    weights: torch.Tensor,
    density: float,
    sign: str = "total",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """DARE's thinning, then TIES' election and disjoint merge."""
    kept = torch.stack([drop_and_rescale(c, density, generator) for c in changes])
    return disjoint_mean(kept * _column(weights, kept), elected(kept, sign))


def sce(changes: torch.Tensor, weights: torch.Tensor, density: float) -> torch.Tensor:
    """Select, calculate, erase (Wan et al. 2024, arXiv:2408.07990, section 3.3).

    Select the `density` of places where the changes vary most; a change counts by the share of its squared selected
    numbers (times its weight); numbers against the elected sign are erased, and what is left is averaged by these
    shares. A single change is only weighted.
    """
    weighted = changes * _column(weights, changes)
    if len(changes) == 1:
        return weighted[0]
    places = trim(weighted.var(0, unbiased=False), density) > 0 if density < 1 else torch.ones_like(changes[0]) > 0
    selected = weighted * places
    shares = selected.flatten(1).square().sum(1)
    mask = elected(selected, "total") * _column(shares / shares.sum().clamp(min=1e-30), selected)
    return (selected * mask).sum(0) / mask.sum(0).clamp(min=1e-30)


def _column(weights: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """[n] -> [n, 1, ...]"""
    return weights.to(changes.dtype).reshape(-1, *(1,) * (changes.dim() - 1))
