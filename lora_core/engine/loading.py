"""From picture files to pictures: every file is tried, fitted to its bucket, and the faults are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lora_core.buckets import BucketRules, Fit, Size
from lora_core.engine.dataset_report import Fault
from lora_core.engine.epochs import Picture
from lora_core.engine.faces import Faces
from lora_core.engine.mask_files import checked_mask
from lora_core.engine.picture_index import Look, PictureIndex
from lora_core.engine.survey import Findings
from lora_core.errors import DatasetError, FileError
from lora_core.events import Event, Progress
from lora_core.focus import focused, with_faces
from lora_core.folders import Caption
from lora_core.jobs.train import Subset, TrainJob
from lora_core.pictures import read_pixels

TOLD_EVERY = 0.3
READERS = 4


@dataclass(frozen=True)
class File:
    """A file that may be a picture: its name for a person, its rules, its own caption (None: it has none)."""

    path: Path
    name: str
    subset: Subset
    caption: Caption | None
    mask: Path | None = None


def bucket_rules(job: TrainJob, subset: Subset) -> BucketRules:
    """The bucket settings of a subset. Raises ConfigError."""
    d = job.dataset
    return BucketRules(area(job, subset), d.min_bucket, d.max_bucket, d.bucket_step, d.no_upscale, d.buckets)


def area(job: TrainJob, subset: Subset) -> Size:
    """The (width, height) that a subset is trained at."""
    return subset.width or job.dataset.width, subset.height or subset.width or job.dataset.height


def load_pictures(
    files: Sequence[File], job: TrainJob, seen: tuple[PictureIndex, Faces | None], findings: Findings
) -> Generator[Event, None, list[Picture]]:
    """The files that decode and fit a bucket, in order; the others become faults."""
    looks = yield from all_looks([file.path for file in files], seen[0])
    known = {(s.width, s.height): bucket_rules(job, s) for s in [Subset(""), *(file.subset for file in files)]}
    pictures: list[Picture] = []
    told = time.monotonic()
    for place, (file, look) in enumerate(zip(files, looks), 1):
        if time.monotonic() - told > TOLD_EVERY:
            yield Progress(place, len(files), None, "file")
            told = time.monotonic()
        try:
            if look.reason:
                raise FileError(look.reason)
            fit = known[file.subset.width, file.subset.height].fit(look.size)
            fit = replace(cropped(fit, file, look, seen[1]), filter=file.subset.resize_filter or "auto")
            mask_hash = checked_mask(file.mask, look.size)
        except (FileError, DatasetError) as error:
            findings.faults.append(Fault(file.name, str(error)))
            continue
        if look.traits is not None:
            findings.traits[look.content_hash] = look.traits
        if look.frames > 1:
            findings.notes.append(f"{file.name} has {look.frames} frames; the first is used.")
        text = file.caption.text if file.caption else ""
        caption = text or file.subset.class_words
        facts = (look.content_hash, fit, file.mask, mask_hash)
        pictures.append(Picture(file.path, file.name, look.size, caption, file.subset, *facts))
    return pictures


def all_looks(paths: Sequence[Path], index: PictureIndex) -> Generator[Event, None, list[Look]]:
    """What each file shows, in order; several are read at a time, and none any more once the caller has gone."""
    looks: list[Look] = []
    pool = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1))
    told = time.monotonic()
    try:
        for look in pool.map(index.look, paths):
            looks.append(look)
            if time.monotonic() - told > TOLD_EVERY:
                yield Progress(len(looks), len(paths), None, "file")
                told = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
    return looks


def looks_for_faces(files: Sequence[File]) -> bool:
    return any(file.subset.focus == "faces" for file in files)


def cropped(fit: Fit, file: File, look: Look, faces: Faces | None) -> Fit:
    """The fit with its crop where the subset's focus is."""
    focus = file.subset.focus
    if look.traits is None or focus in (None, "middle") or fit.resized == fit.bucket:
        return fit
    stands_out = look.traits.profile
    if focus == "faces" and faces:
        found = faces.of(file.path.stem, look.content_hash, lambda: read_pixels(file.path).rgb)
        stands_out = with_faces(stands_out, found, look.size) if found else stands_out
    return focused(fit, stands_out)
