"""A host's desk: jobs are handed in, done one after another, and can be looked at, stopped and started again.

Jobs of the engine run in a child process, one at a time; tools on files run in a thread of this process, one at a
time, and do not wait for a training. What is known of every job is on disk, so that a reloaded page or a restarted
host shows it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.desk_run import Around, Bench, Heard, needs_child
from lora_core.desk_store import (
    INTERRUPTED,
    MAX_JOBS,
    PAUSED,
    QUEUED,
    RUNNING,
    STOPPED,
    EventLog,
    Row,
    Store,
    Ticket,
    is_resumable,
)
from lora_core.desk_view import files, snapshot
from lora_core.errors import ConfigError, LoomError
from lora_core.events import Event
from lora_core.known_classes import class_faults
from lora_core.lock import taken
from lora_core.remote import Child
from lora_core.run import kind_of

MAX_WAITING = 100
MAX_DESKS = 10
CHILD, THREAD = "child", "thread"
LOGGER = logging.getLogger("lora_loom")


class Desk:
    """One queue of jobs. All methods may be called from any thread; unknown ids raise ConfigError.

    `folder`: where jobs are kept; a second process at the same time gets `folder-2`. `child`: how the child is
    started, or a function that says it each time (None: with the engine that install.py prepared). `around(job)` is
    entered before a job runs in the child and left after it, whatever happens; when it yields True the child keeps
    its models in memory for the next job.
    `heard(id, job, event)` is told every event, in the lane's thread.
    """

    def __init__(
        self,
        folder: Path,
        child: Child | Callable[[], Child] | None = None,
        around: Around | None = None,
        heard: Heard | None = None,
    ) -> None:
        self._lock_file, folder = own_folder(Path(folder))
        self._store = Store(folder)
        self._changed = threading.Condition(threading.RLock())
        self._tickets = {ticket.id: ticket for ticket in self._store.tickets()}
        self._logs: dict[str, EventLog] = {}
        self._waiting: dict[str, deque[str]] = {CHILD: deque(), THREAD: deque()}
        self._threads: dict[str, threading.Thread] = {}
        self._closed = False
        self._bench = Bench(folder, child, around)
        self._heard = heard
        self._forget_old()

    folder = property(lambda self: self._store.folder)

    def submit(self, job: Any, title: str = "") -> str:
        """Put a job into the queue; its id. Raises ConfigError for a job that cannot run or when the queue is full."""
        kind = kind_of(job)
        faults = [*job.problems(), *class_faults(job)]
        if faults:
            raise ConfigError(faults)
        with self._changed:
            if self._closed:
                raise LoomError("LoRA Loom is closing: no job is taken any more.")
            if sum(map(len, self._waiting.values())) >= MAX_WAITING:
                raise ConfigError(f"{MAX_WAITING} jobs are waiting already: remove some first.")
            title = title or str(getattr(job, "name", "") or getattr(job, "title", "") or kind)
            ticket = Ticket(uuid.uuid4().hex[:12], kind, title[:200], created=time.time())
            self._store.add(ticket, job)
            self._tickets[ticket.id] = ticket
            lane = CHILD if needs_child(kind) else THREAD
            self._waiting[lane].append(ticket.id)
            self._start(lane)
            self._forget_old()
            self._changed.notify_all()
        return ticket.id

    def again(self, id: str) -> str:
        """Submit the same job once more; a training goes on where it ended."""
        title = self.ticket(id).title
        return self.submit(self._store.job(id), title)

    def tickets(self) -> tuple[Ticket, ...]:
        """All jobs, the newest last."""
        with self._changed:
            return tuple(self._tickets.values())

    def ticket(self, id: str) -> Ticket:
        with self._changed:
            try:
                return self._tickets[id]
            except KeyError:
                raise ConfigError(f"There is no job {id[:20]!r}; it may have been removed.") from None

    def job(self, id: str) -> Any:
        """The job itself. Raises FileError or ConfigError when another version wrote it and it no longer reads."""
        return self._store.job(self.ticket(id).id)

    def events(self, id: str, after: int = 0) -> list[Row]:
        """The numbered events behind `after`; the loss curve and progress of long jobs are thinned out."""
        with self._changed:
            return self._log(id).after(after)

    def wait(self, id: str, after: int, seconds: float) -> list[Row]:
        """As `events`, but wait up to `seconds` for the first of them; return at once when the job is over."""
        with self._changed:
            log = self._log(id)
            self._changed.wait_for(lambda: log.last > after or id not in self._tickets or self.ticket(id).over, seconds)
            return log.after(after)

    def snapshot(self, id: str) -> dict[str, Any]:
        """What a page shows: the ticket, stage, progress, curves, pictures, notes; `ahead`: jobs before it."""
        with self._changed:
            ticket, rows = self.ticket(id), self.events(id)
            before = [t.id for t in self._tickets.values() if not t.over and needs_child(t.kind)]
            waits = ticket.state == QUEUED and id in before
            return {**snapshot(ticket, rows), "ahead": before.index(id) if waits else 0}

    def files(self, id: str) -> tuple[str, ...]:
        """The files that the job spoke of; places in this list never change while it runs."""
        with self._changed:
            return files(self.ticket(id), self.events(id))

    def log(self, id: str) -> str:
        """The end of what the job's libraries wrote."""
        self.ticket(id)
        return self._bench.log(id)

    def stop(self, id: str, now: bool = False) -> None:
        """End a job soon and keep what there is; one that waits is taken out. `now`: end the child by force."""
        with self._changed:
            ticket = self.ticket(id)
            if ticket.state == QUEUED:
                for lane in self._waiting.values():
                    with contextlib.suppress(ValueError):
                        lane.remove(id)
                self._end(id, {"state": STOPPED})
                return
        if not ticket.over:
            self._bench.stop(id, now)

    def cancel(self, id: str) -> None:
        """Take a job out that has not begun. Raises ConfigError when it has."""
        with self._changed:
            if self.ticket(id).state != QUEUED:
                raise ConfigError(f"The job {id} is not waiting: stop it instead.")
            self.stop(id)

    def save(self, id: str) -> None:
        """Save the LoRA as it is now."""
        self._command(id, "save")

    def sample(self, id: str) -> None:
        """Draw the previews now."""
        self._command(id, "sample")

    def pause(self, id: str) -> None:
        """Hold a running job after its step until `resume`."""
        self._command(id, "pause", PAUSED)

    def resume(self, id: str) -> None:
        self._command(id, "resume", RUNNING)

    def remove(self, id: str) -> None:
        """Forget a job; its results stay. Raises ConfigError while it runs."""
        with self._changed:
            ticket = self.ticket(id)
            if ticket.state in (RUNNING, PAUSED):
                raise ConfigError("A running job cannot be removed: stop it first.")
            self.stop(id)
            del self._tickets[id]
            self._logs.pop(id, None)
            self._store.remove(id)
            self._changed.notify_all()

    def close(self, seconds: float = 15.0) -> None:
        """Stop what runs, as with `stop`, and wait up to `seconds` for it; then end the child by force."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            running = [ticket.id for ticket in self._tickets.values() if ticket.state in (RUNNING, PAUSED)]
            self._changed.notify_all()
        for id in running:
            self._bench.stop(id, now=False)
        end = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(max(0.0, end - time.monotonic()))
        self._bench.close()
        for thread in self._threads.values():
            thread.join(5.0)
        self._lock_file.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log(self, id: str) -> EventLog:
        self.ticket(id)
        if id not in self._logs:
            self._logs[id] = EventLog(self._store.path(id, "events.jsonl"))
        return self._logs[id]

    def _command(self, id: str, name: str, state: str = "") -> None:
        with self._changed:
            if self.ticket(id).state not in (RUNNING, PAUSED):
                raise ConfigError(f"The job {id} is not running.")
            self._bench.command(id, name)
            if state:
                self._update(id, {"state": state})

    def _update(self, id: str, changes: dict[str, Any]) -> None:
        with self._changed:
            if id in self._tickets:
                self._tickets[id] = dataclasses.replace(self._tickets[id], **changes)
                with contextlib.suppress(OSError):
                    self._store.write(self._tickets[id])
                self._changed.notify_all()

    def _end(self, id: str, changes: dict[str, Any]) -> None:
        with self._changed:
            ticket = dataclasses.replace(self._tickets[id], ended=time.time(), **changes)
            resumable = False
            with contextlib.suppress(LoomError):
                resumable = is_resumable(ticket, self._store.job(id))
            self._update(id, {**changes, "ended": ticket.ended, "resumable": resumable})

    def _start(self, lane: str) -> None:
        if lane not in self._threads:
            self._threads[lane] = threading.Thread(
                target=self._work, args=(lane,), name=f"lora-loom-{lane}", daemon=True
            )
            self._threads[lane].start()

    def _work(self, lane: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting[lane])
                if self._closed:
                    return
                id = self._waiting[lane].popleft()
                self._bench.expect(id)
                self._update(id, {"state": RUNNING, "started": time.time()})
            changes = self._bench.do(id, self._store, self._say)
            if self._closed and not changes.get("outputs"):
                changes["state"] = INTERRUPTED
            self._end(id, changes)

    def _say(self, id: str, job: Any, event: Event) -> None:
        with self._changed:
            self._log(id).append(event)
            self._changed.notify_all()
        if self._heard is not None:
            try:
                self._heard(id, job, event)
            except Exception:
                LOGGER.exception("The host could not take note of an event of the job %s.", id)

    def _forget_old(self) -> None:
        over = [ticket.id for ticket in self._tickets.values() if ticket.over]
        for id in over[: max(0, len(over) - MAX_JOBS)]:
            self.remove(id)


def own_folder(folder: Path) -> tuple[Any, Path]:
    """The first of `folder`, `folder-2`, ... that no living process has, and the open file that holds it."""
    for number in range(1, MAX_DESKS + 1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        Store(place)
        file = open(place / "desk.lock", "a+b")  # noqa: SIM115
        if taken(file):
            return file, place
        file.close()
    raise LoomError(f"{MAX_DESKS} programs use {folder} at the same time: close one.")
