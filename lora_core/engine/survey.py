"""Figures of a dataset for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_core.captions import fixed_caption
from lora_core.engine.advice import advice
from lora_core.engine.dataset_report import (
    BucketCount,
    CaptionPreview,
    CountTokens,
    DatasetReport,
    Fault,
    SubsetCount,
    cut_at,
    longest_caption,
)
from lora_core.engine.epochs import Dataset, Picture, caption_rules, steps_per_epoch
from lora_core.picture_traits import Traits

PREVIEWS = 3


@dataclass
class Findings:
    """What reading the files showed besides pictures, gathered on the way."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    traits: dict[str, Traits] = field(default_factory=dict)


def report_on(
    dataset: Dataset, captioned: set[Path], findings: Findings, count_tokens: CountTokens | None
) -> DatasetReport:
    """The report on a dataset; `captioned` are the pictures with a caption of their own."""
    job, pictures = dataset.job, [p for p in dataset.pictures if not p.is_class]
    batches = len(dataset.epoch(0))
    steps = steps_per_epoch(batches, job)
    limit = job.captions.max_tokens
    texts = {p.name: fixed_caption(p.caption, caption_rules(job, p.subset)) for p in pictures}
    longest = longest_caption(texts, limit, count_tokens) if count_tokens else None
    return DatasetReport(
        pictures=len(pictures),
        captioned=sum(p.path in captioned for p in pictures),
        uncaptioned=tuple(p.name for p in pictures if p.path not in captioned),
        faults=tuple(findings.faults),
        duplicates=duplicates(pictures),
        subsets=subset_counts(pictures),
        buckets=bucket_counts(dataset.pictures),
        class_pictures=len(dataset.pictures) - len(pictures),
        held_out=len(dataset.held_out),
        batches_per_epoch=batches,
        steps_per_epoch=steps,
        steps=job.length.steps or job.length.epochs * steps,
        longest=longest,
        previews=previews(dataset, limit, count_tokens),
        notes=tuple(findings.notes),
        advice=advice(once(dataset), findings.traits, longest),
    )


def once(dataset: Dataset) -> Dataset:
    """The dataset with each file once, however many sizes it is trained at."""
    pictures = {picture.path: picture for picture in reversed(dataset.pictures)}
    return replace(dataset, pictures=tuple(p for p in dataset.pictures if pictures[p.path] is p))


def duplicates(pictures: Sequence[Picture]) -> tuple[tuple[str, ...], ...]:
    """Names of pictures with the same bytes, one group for each content."""
    groups: dict[str, list[str]] = {}
    for picture in pictures:
        groups.setdefault(picture.content_hash, []).append(picture.name)
    return tuple(tuple(dict.fromkeys(names)) for names in groups.values() if len(set(names)) > 1)


def subset_counts(pictures: Sequence[Picture]) -> tuple[SubsetCount, ...]:
    counts = Counter((p.subset.folder, p.subset.repeats, p.subset.class_words) for p in pictures)
    return tuple(SubsetCount(Path(f).name, n, repeats, words) for (f, repeats, words), n in counts.items())


def bucket_counts(pictures: Sequence[Picture]) -> tuple[BucketCount, ...]:
    counts: Counter[tuple[int, int]] = Counter()
    for picture in pictures:
        counts[picture.fit.bucket] += picture.subset.repeats
    return tuple(BucketCount(size, count) for size, count in sorted(counts.items()))


def previews(dataset: Dataset, limit: int, count_tokens: CountTokens | None) -> tuple[CaptionPreview, ...]:
    """The exact captions of some pictures' uses in the first epoch, divided at the token limit."""
    items = sorted((item for batch in dataset.epoch(0) for item in batch.items), key=lambda i: (i.repeat, i.picture))
    found: list[CaptionPreview] = []
    for item in items[:PREVIEWS]:
        text = dataset.caption(item, 0)
        kept, cut = cut_at(text, limit, count_tokens) if count_tokens else (text, "")
        found.append(CaptionPreview(dataset.picture_of(item).name, kept, cut))
    return tuple(found)
