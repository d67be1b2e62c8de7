"""What a desk keeps on disk: one folder a job with its settings, its ticket and a bounded list of its events."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lora_core.errors import ConfigError, FileError, LoomError
from lora_core.events import Event, Loss, Progress, event_from_json, event_to_json
from lora_core.whole_files import write_text
from lora_core.wire import job_from_wire, job_to_wire, plain

QUEUED, RUNNING, PAUSED = "queued", "running", "paused"
DONE, STOPPED, FAILED, INTERRUPTED = "done", "stopped", "failed", "interrupted"
WAITING_OR_RUNNING = (QUEUED, RUNNING, PAUSED)
MAX_EVENTS, MAX_LOSSES, MAX_OTHERS, MAX_JOBS = 6000, 1000, 1000, 200
SECONDS_BETWEEN_PROGRESS = 2.0
HOST_DIED = "The program that ran this job ended before the job did."
_ID = re.compile(r"[0-9a-f]{12}")
Row = tuple[int, Event]
T = TypeVar("T")


@dataclass(frozen=True)
class Ticket:
    """What is known of a job at a glance. `state`: queued, running, paused, done, stopped, failed, interrupted.

    `created`, `started`, `ended`: seconds since 1970, None while it has not happened. `error`: a sentence, or "".
    """

    id: str
    kind: str
    title: str
    state: str = QUEUED
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    error: str = ""
    outputs: tuple[str, ...] = ()
    resumable: bool = False

    @property
    def over(self) -> bool:
        return self.state not in WAITING_OR_RUNNING


def thinned(points: Sequence[T], steps: Sequence[int], limit: int) -> list[T]:
    """At most `limit` of the points, spread evenly over their ascending steps; the last one of each interval."""
    if len(points) <= limit:
        return list(points)
    first, span = steps[0], max(steps[-1] - steps[0], 0) + 1
    return list({(step - first) * limit // span: point for point, step in zip(points, steps)}.values())


def compacted(rows: Iterable[Row]) -> list[Row]:
    """The rows without old progress, with fewer points of the loss curve, and with the latest of everything else."""
    rows = list(rows)
    progress = [row for row in rows if isinstance(row[1], Progress)][-1:]
    losses = [row for row in rows if isinstance(row[1], Loss)]
    measured = [row for row in losses if isinstance(row[1], Loss) and row[1].held_out is not None]
    others = [row for row in rows if not isinstance(row[1], (Progress, Loss))][-MAX_OTHERS:]
    kept = {row[0]: row for row in progress + others}
    for points in (losses, measured):
        steps = [row[1].step for row in points if isinstance(row[1], Loss)]
        kept.update({row[0]: row for row in thinned(points, steps, MAX_LOSSES)})
    return [kept[number] for number in sorted(kept)]


class EventLog:
    """The events of one job, numbered from 1, in memory and in a file; both stay bounded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = read_rows(path)
        self.last = self.rows[-1][0] if self.rows else 0
        self._progress_written = -math.inf

    def append(self, event: Event) -> int:
        """Keep an event and return its number. A full disk loses nothing but the file's copy."""
        self.last += 1
        self.rows.append((self.last, event))
        if len(self.rows) > MAX_EVENTS:
            self.rows = compacted(self.rows)
            with contextlib.suppress(OSError):
                write_text(self.path, "".join(as_line(row) for row in self.rows))
        elif self.worth_writing(event):
            with contextlib.suppress(OSError), open(self.path, "a", encoding="ascii", newline="\n") as file:
                file.write(as_line(self.rows[-1]))
        return self.last

    def worth_writing(self, event: Event) -> bool:
        """Progress is written every other second: it is of use only until the next."""
        if not isinstance(event, Progress):
            return True
        now = time.monotonic()
        if now - self._progress_written < SECONDS_BETWEEN_PROGRESS:
            return False
        self._progress_written = now
        return True

    def after(self, number: int) -> list[Row]:
        """The rows behind `number`, oldest first."""
        low, high = 0, len(self.rows)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.rows[middle][0] <= number else (low, middle)
        return self.rows[low:]


def as_line(row: Row) -> str:
    return json.dumps({"n": row[0], **event_to_json(row[1])}, ensure_ascii=True, default=plain) + "\n"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; lines that a crash cut off, or that another version wrote, are left out."""
    rows: list[Row] = []
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                values = json.loads(line)
                number = int(values.pop("n"))
                if not rows or number > rows[-1][0]:
                    rows.append((number, event_from_json(values)))
    return rows


class Store:
    """The folders of a desk's jobs below `folder`: ID/job.json, ID/ticket.json, ID/events.jsonl, ID/log.txt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder for jobs {folder} cannot be made ({error.strerror or error}).") from error

    def path(self, id: str, name: str = "") -> Path:
        return self.folder / id / name

    def add(self, ticket: Ticket, job: Any) -> None:
        """Make a job's folder. Raises FileError when that cannot be written."""
        try:
            self.path(ticket.id).mkdir(parents=True, exist_ok=True)
            write_text(self.path(ticket.id, "job.json"), json.dumps(job_to_wire(job), indent=1, default=plain))
            self.write(ticket)
        except OSError as error:
            raise FileError(f"The job cannot be written to {self.folder} ({error.strerror or error}).") from error

    def write(self, ticket: Ticket) -> None:
        write_text(self.path(ticket.id, "ticket.json"), json.dumps(dataclasses.asdict(ticket), indent=1))

    def job(self, id: str) -> Any:
        """The job as it was submitted. Raises ConfigError when this version no longer understands it."""
        try:
            return job_from_wire(json.loads(self.path(id, "job.json").read_text("utf-8")))
        except (OSError, ValueError, KeyError) as error:
            raise FileError(f"The settings of the job {id} cannot be read ({error}).") from error

    def tickets(self) -> list[Ticket]:
        """The tickets found on disk, oldest first; those that were not over are marked as interrupted."""
        found: list[Ticket] = []
        for folder in sorted(self.folder.iterdir()):
            if _ID.fullmatch(folder.name):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    values = json.loads((folder / "ticket.json").read_text("utf-8"))
                    found.append(Ticket(**{**values, "id": folder.name, "outputs": tuple(values["outputs"])}))
        return [self.settled(ticket) for ticket in sorted(found, key=lambda ticket: ticket.created)]

    def settled(self, ticket: Ticket) -> Ticket:
        if ticket.over:
            return ticket
        resumable = ticket.kind == "train"
        ticket = dataclasses.replace(ticket, state=INTERRUPTED, error=HOST_DIED, resumable=resumable)
        with contextlib.suppress(OSError):
            self.write(ticket)
        return ticket

    def remove(self, id: str) -> None:
        shutil.rmtree(self.path(id), ignore_errors=True)


def is_resumable(ticket: Ticket, job: Any) -> bool:
    """Whether starting the same job again goes on where it ended."""
    return ticket.kind == "train" and ticket.state in (STOPPED, FAILED, INTERRUPTED) and bool(job.resume)


def sentence(error: BaseException) -> str:
    """A fault in words: of our own errors the sentence, of others what Python says."""
    if isinstance(error, ConfigError):
        return "\n".join(error.problems)
    return str(error) if isinstance(error, LoomError) else f"{type(error).__name__}: {error}"
