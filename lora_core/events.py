"""What a running job says: a stream of small frozen values that survive a trip through JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A new part of the job begins, e.g. "Loading the base"."""

    title: str


HELD = Stage("Paused")  # a runner has stopped between two steps because a person asked for a pause


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of the current stage; `seconds_left` is an estimate (None while unknown)."""

    done: int
    total: int
    seconds_left: float | None = None
    unit: str = "step"


@dataclass(frozen=True)
class Loss:
    """Training loss after optimizer step `step`, None where it was not finite or, at step 0, there is none yet;
    `average` is over the last 100 steps; `held_out` is set on the steps that measured it."""

    step: int
    loss: float | None
    average: float | None
    learning_rate: float
    held_out: float | None = None


@dataclass(frozen=True)
class Change:
    """How far training has moved the weights after `step` steps: |dW| / |W|, the mean and that of each block."""

    step: int
    mean: float
    blocks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """A picture on disk that shows the state after `step` (0 = before training, or a generation step)."""

    step: int
    path: str
    prompt: str = ""


@dataclass(frozen=True)
class Saved:
    """A file that was written, re-opened and checked. `kind`: "lora", "embedding", "state", "picture", ...."""

    path: str
    kind: str
    step: int = 0


@dataclass(frozen=True)
class Note:
    """A sentence for a person. `level`: "info" or "warning"."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class Finished:
    """Always the last event of a job that succeeded (a stopped training succeeds with `stopped` true).

    `outputs` lists the paths of the results, the main one first; `report` holds figures by name.
    """

    outputs: tuple[str, ...]
    report: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False


Event = Union[Stage, Progress, Loss, Change, Preview, Saved, Note, Finished]

KINDS: dict[str, type] = {cls.__name__: cls for cls in (Stage, Progress, Loss, Change, Preview, Saved, Note, Finished)}


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object with its kind under "event"."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def event_from_json(data: dict[str, Any]) -> Event:
    """Inverse of `event_to_json`. Raises KeyError for an unknown kind."""
    values = dict(data)
    kind = KINDS[values.pop("event")]
    if "outputs" in values:
        values["outputs"] = tuple(values["outputs"])
    return kind(**values)


def end_of(work: Generator[Event, None, T]) -> T:
    """The result of a generator of events, which are thrown away."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
