"""Running a job from a node: progress and previews on the node, stop forwarded, the result or a sentence."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_core import overlay
from lora_core.desk import Desk
from lora_core.desk_run import needs_child
from lora_core.errors import EngineMissing, LoomError
from lora_core.events import Event, Finished, Loss, Note, Preview, Progress, Saved, Stage, event_to_json
from lora_core.forecast import spoken
from lora_core.run import kind_of

from . import host, places
from .declare import Context

EVENT = "lora_loom"
POLL, BREATH = 0.2, 0.25
CLICK = (
    "Or in ComfyUI-Manager: find LoRA Loom and press Try fix. It goes into a folder of LoRA Loom's own; nothing of "
    "ComfyUI changes."
)
DRAWN_BY_PAGE = ("train",)


@functools.cache
def desk() -> Desk:
    """The one queue of jobs of this ComfyUI."""
    return Desk(host.user_folder() / "jobs")


@dataclass
class Done:
    """What a job left: its id, its events, the last of them."""

    id: str
    events: list[Event] = field(default_factory=list)

    @property
    def finished(self) -> Finished:
        return next((e for e in reversed(self.events) if isinstance(e, Finished)), Finished(()))

    @property
    def notes(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Note)]

    def previews(self) -> list[Preview]:
        return [e for e in self.events if isinstance(e, Preview)]

    def saved(self, kind: str) -> list[Saved]:
        return [e for e in self.events if isinstance(e, Saved) and e.kind == kind]


def perform(context: Context, job: Any, title: str = "") -> Done:
    """Do a job and wait for it. Raises LoomError with a sentence; ends the node as interrupted when stop was pressed.

    ComfyUI's own models leave the graphics memory before the engine's come.
    """
    job = places.checked(job)
    if needs_child(kind_of(job)):
        require_engine()
        with host.models_away():
            return _watched(context, job, title)
    return _watched(context, job, title)


def require_engine() -> None:
    """Raises EngineMissing, with what to click."""
    try:
        overlay.engine()
    except EngineMissing as error:
        raise EngineMissing(f"{error} {CLICK}") from None


def _watched(context: Context, job: Any, title: str) -> Done:
    done = Done(desk().submit(job, title))
    JOBS[context.node_id] = done.id
    page = Page(context.node_id, done.id, kind_of(job) in DRAWN_BY_PAGE)
    last, stopping = 0, False
    while True:
        over = desk().ticket(done.id).over
        rows = desk().wait(done.id, last, POLL)
        for number, event in rows:
            last = number
            done.events.append(event)
        page.show(rows)
        if host.interrupted() and not stopping:
            stopping = True
            desk().stop(done.id)
        if over and not rows:
            break
    page.end()
    return _ended(done, stopping)


def _ended(done: Done, stopped: bool) -> Done:
    ticket = desk().ticket(done.id)
    if stopped:
        host.raise_interrupted()
    if ticket.state != "done" and ticket.state != "stopped":
        raise LoomError(ticket.error or f"The job ended as {ticket.state}.")
    return done


JOBS: dict[str, str] = {}


class Page:
    """What the open pages see of a running job, a few times a second."""

    def __init__(self, node_id: str, id: str, drawn: bool = False) -> None:
        """`drawn`: the page draws the job itself, from events; ComfyUI's bar is enough beside that."""
        self.node_id, self.id, self.drawn = node_id, id, drawn
        self.bar = host.Bar(node_id)
        self.waiting: list[tuple[int, Event]] = []
        self.told = 0.0
        self.stage, self.loss = "", ""
        self.progress = self.reached = Progress(0, 1)
        self.tell()

    def show(self, rows: list[tuple[int, Event]]) -> None:
        self.waiting += rows
        for _, event in rows:
            self._note(event)
        if self.waiting and time.monotonic() - self.told >= BREATH:
            self.tell()

    def _note(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.stage, self.progress = event.title, Progress(0, 1)
        elif isinstance(event, Progress):
            self.progress = self.reached = event
        elif isinstance(event, Loss) and event.average is not None:
            self.loss = f"loss {event.average:.4f}"
        elif isinstance(event, Preview) and not self.drawn:
            self.bar.show(self.progress.done, self.progress.total, picture_or_none(event.path))

    def tell(self) -> None:
        """Send what has come since the last time; paths stay here, pages ask for files by job and number."""
        self.told = time.monotonic()
        self.bar.show(self.progress.done, self.progress.total)
        if not self.drawn:
            self.bar.say(self.line())
        events = [{"n": number, **spoken_of(self.id, event)} for number, event in self.waiting]
        host.tell_pages(EVENT, {"node": self.node_id, "job": self.id, "events": events})
        self.waiting = []

    def line(self) -> str:
        p = self.progress
        if not self.stage:
            return "Starting"
        counted = f"{p.done} of {p.total}" if p.total > 1 or p.done else ""
        left = f"{spoken(p.seconds_left)} left" if p.seconds_left is not None and p.done < p.total else ""
        return " · ".join(part for part in (self.stage, counted, self.loss, left) if part)

    def end(self) -> None:
        self.tell()
        self.bar.show(self.reached.done, self.reached.total)
        host.tell_pages(EVENT, {"node": self.node_id, "job": self.id, "ended": desk().ticket(self.id).state})


def spoken_of(id: str, event: Event) -> dict[str, Any]:
    """An event for a page: files by their number and bare name, never by path."""
    data = event_to_json(event)
    if "path" in data:
        path = data.pop("path")
        files = desk().files(id)
        data |= {"file": files.index(path) if path in files else None, "name": Path(path).name}
    if "outputs" in data:
        data["outputs"] = [Path(path).name for path in data["outputs"]]
    data.pop("report", None)
    return data


def picture_or_none(path: str) -> Any:
    from .pictures import read_picture

    try:
        return read_picture(path).convert("RGB")
    except OSError:
        return None
