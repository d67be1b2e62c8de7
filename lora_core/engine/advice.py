"""What is probably not meant in a dataset, and what to do about it; the safe remedies are settings to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lora_core.captions import fixed_caption, holds
from lora_core.captions import tags as caption_tags
from lora_core.engine.dataset_report import Advice, LongestCaption, shown
from lora_core.engine.epochs import Dataset, Picture, caption_rules
from lora_core.jobs.train import TrainJob
from lora_core.picture_traits import Traits, near_copies
from lora_core.settings import replace_by_name

ENLARGED, CROPPED = 1.25, 0.2
MANY_REPEATS = 200
ENOUGH = 5
ONE_SIDED = (
    "text",
    "letters",
    "eyepatch",
    "eye patch",
    "heterochromia",
    "scar",
    "mole",
    "asymmetrical",
    "side ponytail",
)


def advice(dataset: Dataset, traits: Mapping[str, Traits], longest: LongestCaption | None) -> tuple[Advice, ...]:
    """All findings about the pictures to learn. `traits` by content hash; missing ones are not judged."""
    pictures = [p for p in dataset.pictures if not p.is_class]
    found = [*copies(pictures, traits), *sizes(dataset.job, pictures, traits), *lonely(dataset)]
    found += [*captions(dataset.job, pictures), *triggers(dataset.job, pictures), *lengths(dataset.job, longest)]
    return tuple(found + list(habits(dataset, pictures)))


def advised(job: TrainJob, found: Sequence[Advice]) -> TrainJob:
    """The job with every safe remedy applied."""
    changes: dict[str, Any] = {}
    for one in found:
        changes |= one.change
    return replace_by_name(job, changes)


def copies(pictures: Sequence[Picture], traits: Mapping[str, Traits]) -> Iterator[Advice]:
    groups: dict[str, list[str]] = {}
    for picture in pictures:
        groups.setdefault(picture.content_hash, []).append(picture.name)
    for names in groups.values():
        if len(names) > 1:
            sentence = f"The same picture more than once: {shown(names)}. Once is enough (drop_copies)."
            yield Advice("copies", sentence, tuple(names), {"drop_copies": True})
    single: dict[str, Picture] = {}
    for picture in pictures:
        if picture.content_hash in traits:
            single.setdefault(picture.content_hash, picture)
    marks = list(single)
    for group in near_copies([traits[mark] for mark in marks]):
        names = tuple(single[marks[i]].name for i in group)
        yield Advice(
            "near copies", f"Nearly the same picture: {shown(names)}. Keep the best one, or the LoRA copies it.", names
        )


def sizes(job: TrainJob, pictures: Sequence[Picture], traits: Mapping[str, Traits]) -> Iterator[Advice]:
    scale = {p.name: p.fit.resized[0] / p.size[0] for p in pictures}
    small = tuple(p.name for p in pictures if scale[p.name] > ENLARGED)
    if small:
        most = max(scale[name] for name in small)
        sentence = f"Enlarged up to {most:.1f} times, which teaches blur: {shown(small)}."
        remedy = " Never upscale (no_upscale), use a smaller size, or better pictures."
        yield Advice("enlarged", sentence + remedy, small, {"no_upscale": True} if job.dataset.buckets else {})
    judged = [p for p in pictures if p.content_hash in traits]
    soft = tuple(p.name for p in judged if traits[p.content_hash].is_soft(scale[p.name]))
    if soft:
        yield Advice(
            "soft", f"Blurred or enlarged before, fine detail is missing: {shown(soft)}. Use the originals.", soft
        )
    cut = tuple(p.name for p in pictures if lost(p) > CROPPED)
    if cut:
        most = max(lost(p) for p in pictures)
        if job.dataset.buckets:
            around = "" if job.dataset.focus != "middle" else ", crop around what matters (focus)"
            remedy, change = f"Crop them by hand{around}, or lower the shortest bucket side.", {}
        else:
            remedy, change = "Switch aspect buckets on (buckets).", {"buckets": True}
        yield Advice("cropped", f"Up to {most:.0%} of a picture is cut away: {shown(cut)}. {remedy}", cut, change)


def lost(picture: Picture) -> float:
    """The share of a picture that its bucket cuts away."""
    width, height = picture.fit.resized
    return 1 - picture.fit.bucket[0] * picture.fit.bucket[1] / (width * height)


def lonely(dataset: Dataset) -> Iterator[Advice]:
    size = dataset.job.dataset.batch_size
    uses: Counter[tuple[int, int]] = Counter()
    for picture in dataset.pictures:
        uses[picture.fit.bucket] += picture.subset.repeats
    short = [bucket for bucket, count in uses.items() if count < size]
    if size > 1 and short:
        names = tuple(p.name for p in dataset.pictures if p.fit.bucket in short)
        spelled = ", ".join(f"{w} x {h}" for w, h in sorted(short))
        yield Advice(
            "lonely",
            f"Fewer pictures than a batch of {size} in {spelled}: {shown(names)}. Their batches are smaller; crop them "
            "to a size that others have, or use a larger bucket step.",
            names,
        )


def captions(job: TrainJob, pictures: Sequence[Picture]) -> Iterator[Advice]:
    empty = tuple(p.name for p in pictures if not p.caption)
    if empty and len(empty) < len(pictures):
        yield Advice("no caption", f"No caption: {shown(empty)}. Describe what should stay changeable.", empty)
    texts = {p.caption for p in pictures}
    if len(pictures) >= ENOUGH and len(texts) == 1 and "" not in texts:
        yield Advice(
            "same caption",
            f'Every picture has the same caption ("{pictures[0].caption[:60]}"): what differs between them cannot be '
            "told apart. Describe each.",
        )
    if not any(fixed_caption(p.caption, caption_rules(job, p.subset)) for p in pictures):
        yield Advice(
            "no words",
            "No picture has a caption and no trigger word is set: the LoRA cannot be called by a word.",
        )


def triggers(job: TrainJob, pictures: Sequence[Picture]) -> Iterator[Advice]:
    word, c = job.captions.trigger.strip(), job.captions
    if not word:
        return
    without = tuple(p.name for p in pictures if p.caption and not holds(p.caption, word))
    if without and len(without) < sum(bool(p.caption) for p in pictures):
        yield Advice(
            "trigger missing",
            f"The trigger {word!r} is not in every caption; it is put in front of: {shown(without)}. One that does "
            "not show the subject belongs into a folder of its own.",
            without,
        )
    if c.trigger_first:
        return
    late = tuple(p.name for p in pictures if holds(p.caption, word) and not _leads(p.caption, word, c.separator))
    if late and c.shuffle:
        yield Advice(
            "trigger late",
            f"The trigger {word!r} is not the first tag and is shuffled with the others: {shown(late)}. Move it to the "
            "front (trigger_first).",
            late,
            {"trigger_first": True},
        )
    if c.shuffle and not c.keep_tokens and not c.keep_separator:
        yield Advice(
            "trigger loose",
            f"The trigger {word!r} is shuffled away from the front (keep_tokens 0).",
            (),
            {"keep_tokens": 1},
        )


def _leads(caption: str, word: str, separator: str) -> bool:
    first = caption_tags(caption, separator)[:1]
    return bool(first) and holds(first[0], word)


def lengths(job: TrainJob, longest: LongestCaption | None) -> Iterator[Advice]:
    if longest is None or not longest.over:
        return
    wanted = min(225, -(-longest.tokens // 75) * 75)
    change = {"max_tokens": wanted} if wanted > job.captions.max_tokens else {}
    sentence = f"Longer than {longest.limit} tokens, the rest is cut off: {shown(longest.over)}."
    yield Advice("cut off", f"{sentence} Allow {wanted} (max_tokens) or shorten them.", longest.over, change)


def habits(dataset: Dataset, pictures: Sequence[Picture]) -> Iterator[Advice]:
    c = dataset.job.captions
    tagged = [{tag.casefold() for tag in caption_tags(p.caption, c.separator)} for p in pictures if p.caption]
    everywhere = set.intersection(*tagged) if len(tagged) >= ENOUGH and any(len(tags) > 1 for tags in tagged) else set()
    everywhere = {tag for tag in everywhere if not (c.trigger and holds(tag, c.trigger.strip()))}
    if everywhere:
        names = ", ".join(sorted(everywhere))
        yield Advice(
            "everywhere",
            f"In every caption: {names}. What always belongs to the subject is learned better by the trigger alone: "
            "take such tags out of the captions, or vary the pictures.",
        )
    sided = sorted({word for tags in tagged for word in ONE_SIDED if any(holds(tag, word) for tag in tags)})
    if sided and any(p.subset.flip for p in pictures):
        words = ", ".join(sided)
        yield Advice("flip", f"Captions name {words}, and pictures are mirrored: switch flip off.", (), {"flip": False})
    for folder, repeats in sorted({(p.subset.folder, p.subset.repeats) for p in pictures}):
        if repeats > MANY_REPEATS:
            yield Advice("repeats", f"Each picture of {folder} counts {repeats} times an epoch; is that meant?")
    if dataset.job.dataset.held_out and not dataset.held_out:
        yield Advice(
            "held out", "The held-out folder has no picture that can be used; no held-out loss will be measured."
        )
