"""Boxes in pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """Pixels from (left, top) up to but without (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    @property
    def corners(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom


def padded(box: Box, padding: int, width: int, height: int) -> Box:
    """The box grown by `padding` on every side, as far as the picture goes."""
    left, top = max(box.left - padding, 0), max(box.top - padding, 0)
    return Box(left, top, min(box.right + padding, width), min(box.bottom + padding, height))


def expanded(box: Box, target: tuple[int, int], width: int, height: int) -> Box:
    """The box grown to the aspect ratio of `target` (width, height) and moved inside the picture, as A1111 does it.

    Where the picture is too small for the ratio, the box ends at its border.
    """
    ratio = target[0] / target[1]
    if box.width / box.height > ratio:
        top, bottom = _grown(box.top, box.bottom, int(box.width / ratio - box.height), height)
        return Box(box.left, top, box.right, bottom)
    left, right = _grown(box.left, box.right, int(box.height * ratio - box.width), width)
    return Box(left, box.top, right, box.bottom)


def _grown(low: int, high: int, by: int, limit: int) -> tuple[int, int]:
    low -= by // 2
    high += by - by // 2
    if high >= limit:
        low, high = low - (high - limit), limit
    if low < 0:
        low, high = 0, high - low
    return low, min(high, limit)


def fitted_inside(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The largest size of `source`'s aspect ratio inside `target`, rounded down, as A1111's "resize and fill".

    No side is less than 1.
    """
    (w, h), (tw, th) = source, target
    wider = tw / th < w / h
    return (tw if wider else max(w * th // h, 1)), (th if not wider else max(h * tw // w, 1))
