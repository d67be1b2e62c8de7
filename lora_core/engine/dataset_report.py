"""What was found in the folders of pictures, for a person to read before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_core.buckets import Size

CountTokens = Callable[[str], int]
SHOWN = 10


@dataclass(frozen=True)
class Fault:
    """A picture that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class SubsetCount:
    """A folder's share: pictures, how often each counts in an epoch, and the words used where a caption is missing."""

    name: str
    pictures: int
    repeats: int
    class_words: str = ""


@dataclass(frozen=True)
class BucketCount:
    """A training size and how many uses of pictures an epoch has of it (repeats included)."""

    size: Size
    count: int


@dataclass(frozen=True)
class CaptionPreview:
    """The exact text of a picture's first use; `cut` is its end that lies beyond the token limit."""

    name: str
    text: str
    cut: str = ""


@dataclass(frozen=True)
class LongestCaption:
    """The caption with the most tokens (begin and end marks not counted), and the names of those over the limit."""

    name: str
    tokens: int
    limit: int
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """One finding: `sentence` says what and what to do; `change` holds settings that do it safely, if any do."""

    kind: str
    sentence: str
    names: tuple[str, ...] = ()
    change: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetReport:
    """Figures and sentences about a dataset; names are paths relative to the folder that the job names."""

    pictures: int = 0
    captioned: int = 0
    uncaptioned: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    subsets: tuple[SubsetCount, ...] = ()
    buckets: tuple[BucketCount, ...] = ()
    held_out: int = 0
    class_pictures: int = 0
    batches_per_epoch: int = 0
    steps_per_epoch: int = 0
    steps: int = 0
    longest: LongestCaption | None = None
    previews: tuple[CaptionPreview, ...] = ()
    notes: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()

    def text(self) -> list[str]:
        """The report as lines for a person."""
        lines = [f"{_count(self.pictures, 'picture')} to train on, {self.captioned} of {self.pictures} captioned."]
        if self.uncaptioned:
            lines.append(f"Without a caption: {shown(self.uncaptioned)}.")
        lines += [_subset_line(subset) for subset in self.subsets]
        lines.append(
            "Training sizes: " + ", ".join(f"{b.size[0]} x {b.size[1]} ({b.count})" for b in self.buckets) + "."
        )
        lines.append(
            f"{_count(self.batches_per_epoch, 'batch', 'batches')} and {_count(self.steps_per_epoch, 'step')} "
            f"per epoch, {_count(self.steps, 'step')} in all."
        )
        if self.class_pictures:
            lines.append(f"{_count(self.class_pictures, 'class picture')}, seen as often as the others together.")
        if self.held_out:
            lines.append(f"{_count(self.held_out, 'picture')} held out to measure the loss.")
        lines += self._token_lines()
        lines += [
            f'Caption of {p.name}: "{p.text}"' + (f' (cut off: "{p.cut}")' if p.cut else "") for p in self.previews
        ]
        return lines + self.warnings()

    def warnings(self) -> list[str]:
        """The part of the report that a person should act on."""
        lines = list(self.notes)
        if self.faults:
            listed = "; ".join(f"{fault.name}: {fault.reason}" for fault in self.faults)
            lines.append(f"{_count(len(self.faults), 'file')} left out. {listed}.")
        return lines + [one.sentence for one in self.advice]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the fields' names."""
        return dataclasses.asdict(self)

    def _token_lines(self) -> list[str]:
        if not self.longest:
            return []
        line = f"Longest caption: {self.longest.tokens} of {self.longest.limit} tokens ({self.longest.name})."
        return [line]


def longest_caption(captions: dict[str, str], limit: int, count: CountTokens) -> LongestCaption | None:
    """The longest of {name: caption} in tokens, and those over the limit."""
    if not captions:
        return None
    lengths = {name: count(text) for name, text in captions.items()}
    name = max(lengths, key=lambda key: lengths[key])
    return LongestCaption(name, lengths[name], limit, tuple(n for n, length in lengths.items() if length > limit))


def cut_at(text: str, limit: int, count: CountTokens) -> tuple[str, str]:
    """(what fits into `limit` tokens, the rest), divided between words."""
    if count(text) <= limit:
        return text, ""
    words = text.split(" ")
    low, high = 0, len(words)
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(" ".join(words[:middle])) <= limit else (low, middle)
    return " ".join(words[:low]), " ".join(words[low:])


def shown(names: tuple[str, ...] | list[str]) -> str:
    """Names separated by commas; long lists end in "and N more"."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _subset_line(subset: SubsetCount) -> str:
    words = f', class words "{subset.class_words}"' if subset.class_words else ""
    return f"Folder {subset.name}: {_count(subset.pictures, 'picture')}, each {subset.repeats} x per epoch{words}."


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
