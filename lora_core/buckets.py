"""Aspect buckets: which training size a picture gets, how it is resized and what is cut off.

The arithmetic is that of kohya's trainer (sd-scripts, `make_bucket_resolutions` and `BucketManager.select_bucket`), so
that a picture lands in the same bucket there and here. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lora_core.errors import ConfigError, DatasetError

Size = tuple[int, int]
LATENT_PIXELS = 8
MAX_RESIZED_PIXELS = 178_956_970


@dataclass(frozen=True)
class Fit:
    """How a picture of `original` size becomes one of `bucket` size: resize to `resized` with `filter`, then cut out
    what begins at `offset` (None: the centre)."""

    original: Size
    resized: Size
    bucket: Size
    offset: Size | None = None
    filter: str = "auto"

    def crop(self, flip: bool = False) -> tuple[int, int]:
        """(left, top): pixels of the resized picture that lie left of and above the part that is kept (SDXL, 2.2)."""
        left, top = self.offset or ((r - b) // 2 for r, b in zip(self.resized, self.bucket))
        if flip:
            left = self.resized[0] - self.bucket[0] - left
        return left, top


@dataclass(frozen=True)
class BucketRules:
    """`area_size` sets the area (and, without buckets, the one shape); `shortest` and `longest` bound a side."""

    area_size: Size = (512, 512)
    shortest: int = 256
    longest: int = 1024
    step: int = 64
    no_upscale: bool = False
    enabled: bool = True
    sizes: tuple[Size, ...] = field(init=False)

    def __post_init__(self) -> None:
        faults = _faults(self)
        if faults:
            raise ConfigError(faults)
        if self.enabled:
            longest = max(self.longest, *(side // LATENT_PIXELS * LATENT_PIXELS for side in self.area_size))
            sizes = bucket_sizes(self.area_size, self.shortest, longest, self.step)
        else:
            sizes = (self.area_size,)
        object.__setattr__(self, "sizes", sizes)

    def fit(self, size: Size) -> Fit:
        """The bucket of a picture. Raises DatasetError for a picture that no bucket can hold."""
        if self.enabled and self.no_upscale:
            resized = _shrunk(size, self.area_size[0] * self.area_size[1], self.step)
            bucket = (resized[0] - resized[0] % self.step, resized[1] - resized[1] % self.step)
        else:
            bucket = _nearest(size, self.sizes)
            resized = _covering(size, bucket)
        if not all(bucket):
            raise DatasetError(
                f"it is {size[0]} x {size[1]}, which leaves a side under the bucket step of {self.step} pixels: "
                "allow upscaling, lower the bucket step or enlarge it"
            )
        if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
            raise DatasetError(f"it is {size[0]} x {size[1]}, too long and thin to be scaled to a bucket: crop it")
        return Fit(size, resized, bucket)


def bucket_sizes(area_size: Size, shortest: int, longest: int, step: int) -> tuple[Size, ...]:
    """All bucket shapes, sorted: sides in steps from `shortest` to `longest`, area at most that of `area_size`."""
    area = area_size[0] * area_size[1]
    side = int(math.sqrt(area) // step) * step
    found = {(side, side)}
    for width in range(shortest, longest + 1, step):
        height = min(longest, area // width // step * step)
        if height >= shortest:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def _nearest(size: Size, buckets: tuple[Size, ...]) -> Size:
    if size in buckets:
        return size
    aspect = size[0] / size[1]
    return min(buckets, key=lambda b: abs(b[0] / b[1] - aspect))


def _covering(size: Size, bucket: Size) -> Size:
    """The smallest scaled size that covers the bucket."""
    wider = size[0] / size[1] > bucket[0] / bucket[1]
    scale = bucket[1] / size[1] if wider else bucket[0] / size[0]
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def _shrunk(size: Size, area: int, step: int) -> Size:
    """The size itself, or a smaller one of about `area` pixels with one side a multiple of `step`."""
    if size[0] * size[1] <= area:
        return size
    aspect = size[0] / size[1]
    ideal_width = math.sqrt(area * aspect)
    width = _to_step(ideal_width, step)
    height = _to_step(area / ideal_width, step)
    height_of_width, width_of_height = _to_step(width / aspect, step), _to_step(height * aspect, step)
    if not (height and height_of_width):
        return 0, 0
    if abs(width / height_of_width - aspect) < abs(width_of_height / height - aspect):
        return width, int(width / aspect + 0.5)
    return int(height * aspect + 0.5), height


def _to_step(value: float, step: int) -> int:
    whole = int(value + 0.5)
    return whole - whole % step


def _faults(rules: BucketRules) -> list[str]:
    found: list[str] = []
    width, height = rules.area_size
    if rules.enabled and rules.step % LATENT_PIXELS:
        found.append(f"The bucket step ({rules.step}) must be a multiple of {LATENT_PIXELS}; 64 is usual.")
    if rules.enabled and rules.step > math.sqrt(width * height):
        found.append(f"The bucket step ({rules.step}) is larger than the training size {width} x {height}: lower it.")
    bounds = (rules.shortest, rules.longest)
    if rules.enabled and (any(side % LATENT_PIXELS for side in bounds) or rules.shortest > rules.longest):
        found.append(
            f"The shortest and longest bucket side ({rules.shortest}, {rules.longest}) must be multiples of "
            f"{LATENT_PIXELS}, the shortest not above the longest."
        )
    if not rules.enabled and (width % LATENT_PIXELS or height % LATENT_PIXELS):
        found.append(f"Width and height ({width} x {height}) must be multiples of {LATENT_PIXELS} without buckets.")
    return found
