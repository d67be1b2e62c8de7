"""The pictures of a training job: what is trained on, in which order, flipped or not, under which caption.

Everything random is a pure function of the job's seed, the epoch, the picture's place and the repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from lora_core.augment import Tint, drawn_tint, face_crop, face_of, face_range, random_crop
from lora_core.buckets import Fit, Size
from lora_core.captions import CaptionRules, fixed_caption, is_fixed, tags, varied_caption
from lora_core.draws import Draws
from lora_core.engine.dataset_report import DatasetReport
from lora_core.engine.mask_files import cells, read_mask
from lora_core.errors import FileError
from lora_core.jobs.train import Subset, TrainJob
from lora_core.pictures import Pixels, content_hash, decode, fitted, read_bytes, tinted


@dataclass(frozen=True)
class Picture:
    """A picture that decodes. `size` is (width, height) upright; `caption` is as found, without the trigger;
    `subset` has no None left; `content_hash` is the SHA-256 of the file; `fit` leads to its bucket."""

    path: Path
    name: str
    size: Size
    caption: str
    subset: Subset
    content_hash: str
    fit: Fit
    mask: Path | None = None
    mask_hash: str = ""
    tint: Tint = Tint()

    @property
    def is_class(self) -> bool:
        """Whether it only keeps the base as it is (prior preservation)."""
        return self.subset.class_pictures

    @property
    def varies(self) -> bool:
        """Whether its uses are not all the same pixels, but for the flip."""
        s = self.subset
        moves = self.fit.resized != self.fit.bucket and s.random_crop
        return bool(s.color_shift or moves or (s.face_crop and face_of(self.path.stem)))

    def varied(self, variant: int) -> Picture:
        """One of its variants, 0 for itself. They depend on its content alone, so that their latents can be kept."""
        if not variant:
            return self
        draws, fit, s = Draws("variant", self.content_hash, variant), self.fit, self.subset
        face, sizes = face_of(self.path.stem), face_range(s.face_crop or "")
        if face and sizes:
            fit = face_crop(fit, face, sizes, bool(s.random_crop), draws)
        elif s.random_crop:
            fit = random_crop(fit, draws)
        return replace(self, fit=fit, tint=drawn_tint(draws) if s.color_shift else Tint())

    def coverage(self, flip: bool) -> np.ndarray | None:
        """The share of each latent cell that is learned, float32 [h/8, w/8]; None for a picture without a mask."""
        masks = []
        if self.mask is not None:
            masks.append(read_mask(self.mask, self.size, self.mask_hash, self.name))
        if self.subset.alpha_mask:
            alpha = decode(read_bytes(self.path)).alpha
            masks += [] if alpha is None else [alpha]
        found = [cells(mask, self.fit, flip) for mask in masks]
        return None if not found else np.prod(found, axis=0, dtype=np.float32)

    def pixels(self) -> Pixels:
        """The picture decoded, resized and cropped to its bucket. Raises FileError, also when the file has changed."""
        data = read_bytes(self.path)
        if content_hash(data) != self.content_hash:
            raise FileError("it was changed after it had been checked")
        found = fitted(decode(data), self.fit)
        return replace(found, rgb=tinted(found.rgb, self.tint))


@dataclass(frozen=True)
class Item:
    """One use of a picture: its place in `Dataset.pictures` (or `held_out`), mirrored or not, which repeat and which
    of its variants."""

    picture: int
    flip: bool = False
    repeat: int = 0
    held_out: bool = False
    variant: int = 0


@dataclass(frozen=True)
class Batch:
    """Items of one bucket size (width, height)."""

    size: Size
    items: tuple[Item, ...]
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures to train on and held out, with the rules of the job that say how they are used."""

    job: TrainJob
    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    report: DatasetReport = field(default=DatasetReport(), repr=False)

    def bucket_of(self, picture: Picture) -> Size:
        return picture.fit.bucket

    def picture_of(self, item: Item) -> Picture:
        return (self.held_out if item.held_out else self.pictures)[item.picture].varied(item.variant)

    def weights(self, batch: Batch) -> list[float] | None:
        """The weight of each picture's loss; None where all are 1."""
        prior = self.job.dataset.prior_loss_weight
        found = [prior if self.picture_of(item).is_class else 1.0 for item in batch.items]
        return None if all(weight == 1 for weight in found) else found

    def epoch(self, epoch: int) -> list[Batch]:
        """The batches of one epoch, in order: every picture `repeats` times, one bucket size a batch."""
        return list(self._epochs(epoch))

    def held_out_batches(self) -> list[Batch]:
        """The held-out pictures, unflipped, in a fixed order."""
        groups = _by_bucket(self.held_out, [Item(i, held_out=True) for i in range(len(self.held_out))])
        size = self.job.dataset.batch_size
        return [Batch(bucket, tuple(part), True) for bucket, items in groups.items() for part in _parts(items, size)]

    def caption(self, item: Item, epoch: int, warm: float = 1.0) -> str:
        """The caption of one use, with trigger, prefix and suffix; held-out pictures keep theirs unshuffled.

        `warm`: the share of the tag warm-up that is done.
        """
        picture = self.picture_of(item)
        rules = caption_rules(self.job, picture.subset)
        if item.held_out:
            return fixed_caption(picture.caption, rules)
        every = self.job.captions.dropout_every_epochs
        if every and (epoch + 1) % every == 0:
            return ""
        draws = Draws(self.job.seed, "caption", epoch, item.picture, item.repeat)
        return varied_caption(picture.caption, rules, draws, warm)

    @cached_property
    def captions_fixed(self) -> bool:
        """Whether every use of every picture has the same caption, so that its encoding can be kept."""
        if self.job.captions.dropout_every_epochs:
            return False
        return all(is_fixed(p.caption, caption_rules(self.job, p.subset)) for p in self.pictures)

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        """{folder name: {tag: pictures}}, as kohya's `ss_tag_frequency` counts captions with their trigger."""
        found: dict[str, dict[str, int]] = {}
        for picture in self.pictures:
            if picture.is_class:
                continue
            counts = found.setdefault(Path(picture.subset.folder).name, {})
            rules = caption_rules(self.job, picture.subset)
            for tag in tags(fixed_caption(picture.caption, rules), rules.separator):
                counts[tag.lower()] = counts.get(tag.lower(), 0) + 1
        return found

    @cached_property
    def _epochs(self) -> Callable[[int], tuple[Batch, ...]]:
        return lru_cache(maxsize=2)(lambda epoch: tuple(epoch_batches(self.pictures, self.job, epoch)))


def epoch_batches(pictures: Sequence[Picture], job: TrainJob, epoch: int) -> list[Batch]:
    """Shuffle within each bucket, cut into batches (the last of a bucket may be smaller), shuffle the batches."""
    learned = [(i, n) for i, p in enumerate(pictures) if not p.is_class for n in range(p.subset.repeats)]
    items = [_use(pictures[i], job, epoch, i, n) for i, n in [*learned, *class_uses(pictures, len(learned), epoch)]]
    batches: list[Batch] = []
    for size in sorted({pictures[item.picture].subset.batch_size or 0 for item in items}):
        alike = [item for item in items if (pictures[item.picture].subset.batch_size or 0) == size]
        for bucket, group in _by_bucket(pictures, alike).items():
            order = Draws(job.seed, "order", epoch, *bucket).shuffled(group)
            batches += [Batch(bucket, tuple(part)) for part in _parts(order, size or job.dataset.batch_size)]
    return Draws(job.seed, "batches", epoch).shuffled(batches)


def _use(picture: Picture, job: TrainJob, epoch: int, place: int, repeat: int) -> Item:
    flip = picture.subset.flip is True and Draws(job.seed, "flip", epoch, place, repeat).unit() < 0.5
    count = job.dataset.variants
    variant = 1 + Draws(job.seed, "variant", epoch, place, repeat).below(count) if picture.varies else 0
    return Item(place, flip, repeat, variant=variant)


def class_uses(pictures: Sequence[Picture], count: int, epoch: int) -> list[tuple[int, int]]:
    """(place, repeat) of the class pictures of an epoch: as many as there are others, taking turns over the epochs."""
    places = [i for i, picture in enumerate(pictures) if picture.is_class]
    turns = range(epoch * count, (epoch + 1) * count) if places else ()
    return [(places[turn % len(places)], turn // len(places)) for turn in turns]


def caption_rules(job: TrainJob, subset: Subset) -> CaptionRules:
    """The caption rules of a subset whose fields are all set."""
    return CaptionRules(
        trigger="" if subset.class_pictures else job.captions.trigger,
        shuffle=bool(subset.shuffle),
        keep_tokens=subset.keep_tokens or 0,
        separator=job.captions.separator,
        prefix=subset.caption_prefix or "",
        suffix=subset.caption_suffix or "",
        caption_dropout=subset.caption_dropout or 0.0,
        tag_dropout=subset.tag_dropout or 0.0,
        trigger_first=job.captions.trigger_first,
        keep_separator=job.captions.keep_separator,
        secondary_separator=job.captions.secondary_separator,
        wildcards=job.captions.wildcards,
        warmup_least=job.captions.tag_warmup_least if job.captions.tag_warmup else 0,
    )


def steps_per_epoch(batches: int, job: TrainJob) -> int:
    """Optimizer steps of an epoch; the last one may accumulate fewer batches."""
    return math.ceil(batches / job.optimization.accumulation)


def _by_bucket(pictures: Sequence[Picture], items: Sequence[Item]) -> dict[Size, list[Item]]:
    groups: dict[Size, list[Item]] = {}
    for item in items:
        groups.setdefault(pictures[item.picture].fit.bucket, []).append(item)
    return dict(sorted(groups.items()))


def _parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
