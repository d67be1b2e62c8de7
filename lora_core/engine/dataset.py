"""Opening a training job's pictures: folders are walked, every file is tried, and all that was found is reported."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_core.draws import Draws
from lora_core.engine.dataset_report import CountTokens, shown
from lora_core.engine.epochs import Batch, Dataset, Item, Picture
from lora_core.engine.faces import Faces
from lora_core.engine.loading import File, area, load_pictures, looks_for_faces
from lora_core.engine.mask_files import MaskFiles
from lora_core.engine.metadata_files import MetadataFiles
from lora_core.engine.picture_index import PictureIndex
from lora_core.engine.survey import Findings, report_on
from lora_core.errors import DatasetError
from lora_core.events import Event, end_of
from lora_core.folders import CaptionFiles, Folder, Walk, caption_suffix
from lora_core.jobs.train import Subset, TrainJob

__all__ = ["Batch", "Dataset", "Item", "Picture", "open_dataset"]

PREVIEWS = 3


def open_dataset(job: TrainJob, count_tokens: CountTokens | None = None, known: Path | None = None) -> Dataset:
    """`opening` without its events."""
    return end_of(opening(job, count_tokens, known))


def opening(
    job: TrainJob, count_tokens: CountTokens | None = None, known: Path | None = None
) -> Generator[Event, None, Dataset]:
    """Find, check and sort the pictures of a job; the events tell how many files are read.

    `count_tokens` gives the tokens of a text without begin and end marks; without it the report says nothing of
    lengths. `known` names a file that remembers which contents decode, so that a later run decodes none of them.
    Raises DatasetError (no folder, no readable picture, no caption of the kind asked for) or ConfigError.
    """
    findings = Findings()
    sources = training_sources(job)
    training = find_files(job, sources, findings)
    kept_out = (
        find_files(job, [Subset(job.dataset.held_out, metadata_file="")], findings) if job.dataset.held_out else []
    )
    index = PictureIndex(known)
    faces = Faces(known and known.with_name("faces.json")) if looks_for_faces([*training, *kept_out]) else None
    try:
        pictures = yield from load_pictures(training, job, (index, faces), findings)
        held_out = yield from load_pictures(kept_out, job, (index, faces), findings)
    finally:
        index.save()
        if faces:
            faces.save()
    findings.notes += [faces.told] if faces and faces.told else []
    if job.dataset.drop_copies:
        pictures = without_copies(pictures, findings)
    pictures, held_out = divided(job, pictures, held_out, findings)
    if pictures and all(picture.is_class for picture in pictures):
        raise DatasetError("Only class pictures were found: name the folder with the pictures to learn, too.")
    if not pictures:
        raise DatasetError(no_pictures(sources, findings, bool(held_out)))
    captioned = {file.path for file in training if file.caption and file.caption.text}
    dataset = Dataset(job, tuple(pictures), tuple(held_out))
    return replace(dataset, report=report_on(dataset, captioned, findings, count_tokens))


def training_sources(job: TrainJob) -> list[Subset]:
    """The folders to train on, each once at each of its sizes."""
    named = [Subset("", repeats=job.dataset.repeats)] if job.dataset.folder else []
    found: dict[tuple[Any, ...], Subset] = {}
    others = [class_source(job)] if job.dataset.class_pictures else []
    for subset in [*named, *job.dataset.subsets, *others]:
        place = os.path.realpath(subset.folder or job.dataset.folder)
        found.setdefault((place, *area(job, subset)), subset)
        for side in job.dataset.sides() if subset.width is None else ():
            found.setdefault((place, side, side), replace(subset, width=side, height=side))
    return list(found.values())


def class_source(job: TrainJob) -> Subset:
    """The class pictures; without a caption of their own, theirs is the class prompt."""
    d = job.dataset
    return Subset(d.class_pictures, class_pictures=True, class_words=d.class_prompt, metadata_file="")


def resolved(job: TrainJob, subset: Subset) -> Subset:
    """The subset with the job's rule wherever it has none of its own."""
    common = {
        "keep_tokens": job.captions.keep_tokens,
        "shuffle": job.captions.shuffle,
        "flip": job.dataset.flip,
        "caption_prefix": job.captions.caption_prefix,
        "caption_suffix": job.captions.caption_suffix,
        "caption_extension": job.captions.caption_extension,
        "caption_dropout": job.captions.caption_dropout,
        "tag_dropout": job.captions.tag_dropout,
        "masks": job.dataset.masks,
        "alpha_mask": job.dataset.alpha_mask,
        "color_shift": job.dataset.color_shift,
        "random_crop": job.dataset.random_crop,
        "face_crop": job.dataset.face_crop,
        "resize_filter": job.dataset.resize_filter,
        "focus": job.dataset.focus,
        "metadata_file": job.dataset.metadata_file,
    }
    return replace(subset, **{name: value for name, value in common.items() if getattr(subset, name) is None})


def find_files(job: TrainJob, sources: Sequence[Subset], findings: Findings) -> list[File]:
    """All files of the sources that claim to be pictures, in a fixed order, with their captions."""
    work = job.work_dir or (Path(job.output_dir) / f"{job.name}.loom" if job.output_dir else "")
    apart = [job.dataset.held_out, job.output_dir, job.memory.cache_dir, work]
    apart += [folder for s in sources for folder in (s.folder, s.masks)] + [job.dataset.masks]
    masks = MaskFiles()
    walks: dict[tuple[int | None, ...], Walk] = {}
    folders: list[Folder] = []
    for source in sources:  # a folder counts once at each size
        walk = walks.setdefault((source.width, source.height), Walk({os.path.realpath(path) for path in apart if path}))
        folders += walk.folders(Path(source.folder or job.dataset.folder), resolved(job, source))
    captions = CaptionFiles(folders, job.captions.separator, job.captions.wildcards)
    tables = MetadataFiles(job.captions.separator, job.captions.wildcards)
    several = len(sources) > 1
    files: list[File] = []
    for folder in folders:
        for path in folder.pictures():
            name = path.relative_to(folder.root).as_posix()
            name = f"{folder.root.name}/{name}" if several else name
            if folder.subset.metadata_file:
                caption = tables.caption(folder.subset.metadata_file, path, folder.root, name)
                if caption is None:
                    continue
            else:
                caption = captions.caption(path, folder.subset.caption_extension or "")
            mask = masks.mask(folder.subset.masks or "", path, folder.root)
            files.append(File(path, name, folder.subset, caption, mask))
    tables.require_pictures(files)
    require_captions(files, captions)
    said = dict.fromkeys(note for walk in walks.values() for note in walk.notes)
    findings.notes += list(said) + caption_notes(captions) + tables.notes() + other_notes(folders)
    if masks.missing:
        findings.notes.append(f"Without a mask, so that the whole picture is learned: {shown(masks.missing)}.")
    return files


def require_captions(files: Sequence[File], captions: CaptionFiles) -> None:
    """Refuse when an extension was asked for and not one picture has such a caption."""
    for extension in sorted({file.subset.caption_extension or "" for file in files} - {""}):
        asked = [file for file in files if file.subset.caption_extension == extension]
        if any(file.caption for file in asked):
            continue
        kinds = ", ".join(f"{count} {kind}" for kind, count in captions.kinds().items()) or "none"
        raise DatasetError(
            f'Not one of {len(asked)} pictures has a caption in "{caption_suffix(extension)}", which caption_extension '
            f"asks for. Caption files found beside them: {kinds}. Correct the extension, or leave it empty to use "
            "whatever is found."
        )


def caption_notes(captions: CaptionFiles) -> list[str]:
    notes = [f"Read as {name}, not UTF-8: {shown(names)}." for name, names in captions.encodings.items()]
    return notes + ([f"Caption files left out. {'; '.join(captions.faults)}."] if captions.faults else [])


def other_notes(folders: Sequence[Folder]) -> list[str]:
    others = [name for folder in folders for name in folder.others()]
    return [f"Files that are neither pictures nor captions: {shown(others)}."] if others else []


def without_copies(pictures: list[Picture], findings: Findings) -> list[Picture]:
    """Each content once, as the first of its names."""
    first: dict[tuple[Any, ...], Picture] = {}
    for picture in pictures:
        size = (picture.subset.width, picture.subset.height)
        first.setdefault((picture.content_hash, picture.is_class, size), picture)
    kept = list(first.values())
    if len(kept) < len(pictures):
        names = shown([p.name for p in pictures if p not in kept])
        findings.notes.append(f"Copies of other pictures, left out: {names}.")
    return kept


def divided(
    job: TrainJob, pictures: list[Picture], held_out: list[Picture], findings: Findings
) -> tuple[list[Picture], list[Picture]]:
    """Move the validation share to the held-out pictures; no content is on both sides."""
    kept = {p.content_hash for p in held_out}
    copies = [p for p in pictures if p.content_hash in kept]
    if copies:
        names = shown([p.name for p in copies])
        findings.notes.append(f"Not trained on, because the held-out folder has the same pictures: {names}.")
    pictures = [p for p in pictures if p.content_hash not in kept]
    chosen = validation_share([p for p in pictures if not p.is_class], job.dataset.validation_split, job.seed)
    held_out = held_out + [p for p in pictures if p.content_hash in chosen]
    return [p for p in pictures if p.content_hash not in chosen], held_out


def validation_share(pictures: Iterable[Picture], share: float, seed: int) -> set[str]:
    """Contents to hold out: a share of all different ones, at least one, never all; adding pictures changes few."""
    contents = sorted({p.content_hash for p in pictures}, key=lambda mark: Draws(seed, "held out", mark).word())
    count = min(max(1, round(len(contents) * share)), len(contents) - 1) if share > 0 else 0
    return set(contents[: max(0, count)])


def no_pictures(sources: Sequence[Subset], findings: Findings, all_held_out: bool) -> str:
    """The sentence for a dataset with nothing to train on."""
    names = shown([Path(s.folder).name for s in sources if s.folder]) or "the folder"
    if all_held_out:
        return "Every picture is held out, none is left to train on: name another held-out folder."
    if not findings.faults:
        return f"No pictures were found in {names}: name a folder with .png, .jpg or .webp files."
    listed = "; ".join(f"{fault.name}: {fault.reason}" for fault in findings.faults)
    return f"None of {len(findings.faults)} files in {names} can be used. {listed}."
