"""A function of pictures applied tile by tile, with the tiles' overlaps faded into each other."""

from __future__ import annotations

from collections.abc import Callable

import torch


def in_tiles(
    x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], tile: int, overlap: int, scale: float
) -> torch.Tensor:
    """`function` of x [1,c,h,w], computed on tiles of `tile` x `tile` that overlap by `overlap`.

    `function` changes sides by `scale` (8 for a VAE's decoder, 1/8 for its encoder); x and tiles must divide evenly.
    """
    size = [round(side * scale) for side in x.shape[2:]]
    total = weight = torch.zeros(0)
    for top in starts(x.shape[2], tile, overlap):
        for left in starts(x.shape[3], tile, overlap):
            part = function(x[:, :, top : top + tile, left : left + tile]).float()
            fade = _fade(part.shape[2], round(overlap * scale))[:, None] * _fade(part.shape[3], round(overlap * scale))
            fade = fade.to(part)
            if not total.numel():
                total, weight = part.new_zeros((1, part.shape[1], *size)), part.new_zeros(size)
            y, x_ = round(top * scale), round(left * scale)
            total[:, :, y : y + part.shape[2], x_ : x_ + part.shape[3]] += part * fade
            weight[y : y + part.shape[2], x_ : x_ + part.shape[3]] += fade
    return total / weight


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles along one side begin; the last one ends at the side's end."""
    if side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def _fade(length: int, overlap: int) -> torch.Tensor:
    """Weights [length]: rising over the first `overlap` entries, 1, falling over the last ones; never 0."""
    ramp = torch.arange(1, length + 1).float().clamp(max=overlap + 1) / (overlap + 1)
    return torch.minimum(ramp, ramp.flip(0))
