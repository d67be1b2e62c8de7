"""How a desk's jobs are run: in its child process or in a thread, always ending in a state and a sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lora_core import overlay
from lora_core.commands import Commands
from lora_core.desk_store import DONE, FAILED, STOPPED, Store, sentence
from lora_core.errors import Interrupted, LoomError
from lora_core.events import Event, Finished, Note, Saved
from lora_core.remote import Child, Running, Worker
from lora_core.run import RUNNERS, kind_of, run, translate
from lora_core.whole_files import write_text

LOG_BYTES = 64_000
OLD_LOG_BYTES = 4_000_000
IDLE_SECONDS = 300.0
Around = Callable[[Any], AbstractContextManager[Any]]
Heard = Callable[[str, Any, Event], None]


def needs_child(kind: str) -> bool:
    """Whether jobs of this kind load the engine; the others are tools of `lora_core` itself."""
    module = RUNNERS[kind].function.partition(":")[0]
    return not module.startswith("lora_core.") or module.startswith(("lora_core.engine", "lora_core.demo"))


def engine_child() -> Child:
    """A child with the engine that install.py prepared. Raises EngineMissing when there is none."""
    return Child(overlay=overlay.engine().folders, idle=IDLE_SECONDS)


@contextlib.contextmanager
def nothing_around(job: Any) -> Iterator[bool]:
    yield True


class Doing:
    """A job that is being done: takes commands, also those that come before it has really begun."""

    def __init__(self) -> None:
        self.early: list[str] = []
        self.obey: Callable[[str], None] = self.early.append
        self.running: Running | None = None
        self.killed = False

    def begin(self, obey: Callable[[str], None], running: Running | None = None) -> None:
        self.obey, self.running = obey, running
        for name in self.early:
            obey(name)


class Bench:
    """Runs jobs that a desk takes from its queue, and passes commands on to them."""

    def __init__(self, folder: Path, child: Child | Callable[[], Child] | None, around: Around | None) -> None:
        self.folder, self.child, self.around = folder, child or engine_child, around or nothing_around
        self.worker: Worker | None = None
        self.doing: dict[str, Doing] = {}
        self.lock = threading.RLock()

    def expect(self, id: str) -> None:
        """From now on the job takes commands."""
        self.doing[id] = Doing()

    def command(self, id: str, name: str) -> None:
        with self.lock:
            if id in self.doing:
                self.doing[id].obey(name)

    def stop(self, id: str, now: bool) -> None:
        """Ask the job to end; `now`: end the child that does it."""
        self.command(id, "stop")
        doing = self.doing.get(id)
        if now and doing is not None and doing.running is not None:
            doing.killed = True
            doing.running.worker.close(2.0)

    def do(self, id: str, store: Store, say: Heard) -> dict[str, Any]:
        """Do one job to its end; what to change in its ticket. Never raises."""
        saved: list[str] = []
        try:
            job = store.job(id)

            def heard(event: Event) -> None:
                if isinstance(event, Saved) and event.kind != "state":
                    saved.append(event.path)
                say(id, job, event)

            changes = (self.child_job if needs_child(kind_of(job)) else self.thread_job)(id, job, heard)
        except Exception as error:
            changes = self.failed(id, error)
        with self.lock:
            del self.doing[id]
        return {"outputs": tuple(saved), **changes}

    def thread_job(self, id: str, job: Any, heard: Callable[[Event], None]) -> dict[str, Any]:
        commands = Commands()
        with self.lock:
            self.doing[id].begin(commands.obey)
        return outcome(run(job, commands), heard)

    def child_job(self, id: str, job: Any, heard: Callable[[Event], None]) -> dict[str, Any]:
        """`around` is left on every path; a fault while leaving it becomes a note, for the job itself is over."""
        changes: dict[str, Any] | None = None
        try:
            with self.around(job) as keep:
                try:
                    changes = self.job_in_child(id, job, heard)
                except Exception as error:
                    changes = self.failed(id, error)
                if not keep and self.worker is not None:
                    self.worker.release(30.0)
        except Exception as error:
            if changes is None:
                return self.failed(id, error)
            heard(Note(f"The host's models could not be brought back: {sentence(error)}", "warning"))
        return changes

    def job_in_child(self, id: str, job: Any, heard: Callable[[Event], None]) -> dict[str, Any]:
        if "stop" in self.doing[id].early:
            raise Interrupted("The job was stopped before it began.")
        running = self.ready_worker().run(job)
        with self.lock:
            self.doing[id].begin(running.command, running)
        try:
            return outcome(running, heard)
        finally:
            with contextlib.suppress(OSError):
                write_text(self.folder / id / "log.txt", self.log(id))
            running.close()

    def ready_worker(self) -> Worker:
        """The living worker, or a new one: the engine may have been installed meanwhile."""
        if self.worker is None or not self.worker.alive:
            child = self.child() if callable(self.child) else self.child
            log = Path(child.log or self.folder / "child.log")
            with contextlib.suppress(OSError):
                if log.stat().st_size > OLD_LOG_BYTES:
                    log.unlink()
            self.worker = Worker(dataclasses.replace(child, log=str(log)))
        return self.worker

    def failed(self, id: str, error: Exception) -> dict[str, Any]:
        """What became of a job that raised; the traceback is kept beside its ticket."""
        if isinstance(error, Interrupted) or self.doing[id].killed:
            return {"state": STOPPED}
        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        with contextlib.suppress(OSError):
            write_text(self.folder / id / "fault.txt", lines[-LOG_BYTES:])
        return {"state": FAILED, "error": sentence(translate(error) or error)}

    def log(self, id: str) -> str:
        """The end of the log of a job, running or over."""
        doing = self.doing.get(id)
        if doing is not None and doing.running is not None:
            return end_of(Path(doing.running.worker.log), doing.running.log_begin)
        kept = (end_of(self.folder / id / name) for name in ("log.txt", "fault.txt"))
        return "\n".join(text for text in kept if text)

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()


def outcome(events: Iterable[Event], heard: Callable[[Event], None]) -> dict[str, Any]:
    """Listen to a job until its end; what its last event says about it."""
    last: Event | None = None
    for last in events:
        heard(last)
    if not isinstance(last, Finished):
        raise LoomError("The job ended without saying how.")
    return {"state": STOPPED if last.stopped else DONE, "outputs": last.outputs}


def end_of(path: Path, begin: int = 0) -> str:
    """The text of a file from the byte `begin` on, at most the last 64 kB, beginning with a whole line."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(begin, size - LOG_BYTES)
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
        return text.partition("\n")[2] if start > begin else text
    return ""
