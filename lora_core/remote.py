"""Running a job in a child process: the same events and the same exceptions as `run`, and commands while it runs."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lora_core.child import Child
from lora_core.errors import LoomError, WorkerCrashed
from lora_core.events import Event, event_from_json
from lora_core.wire import decode, encode, error_from_wire, job_to_wire

TAIL_BYTES = 4000
TAIL_LINES = 25


class Worker:
    """A child process that does one job after another and keeps what it has loaded in between.

    It is started by the first job, and again when it has ended in the meantime.
    """

    def __init__(self, child: Child | None = None) -> None:
        self.child = child or Child()
        self.process: subprocess.Popen[bytes] | None = None
        self.running: Running | None = None
        self._own_log = self.child.log is None
        self.log = self.child.log or ""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def run(self, job: Any) -> Running:
        """Send a job and return its events. Raises WorkerCrashed when the child cannot be started or is busy."""
        if self.running is not None and not self.running.ended:
            raise WorkerCrashed("The worker is busy with another job: wait for it or stop it first.")
        line = encode(job_to_wire(job))
        written = os.path.getsize(self.log) if os.path.exists(self.log) else 0  # before the child has the job
        fresh = not (self.alive and self.send(line))
        if fresh:
            self.start(line)
        self.running = Running(self, line, 0 if fresh and self._own_log else written)
        return self.running

    def start(self, line: bytes) -> None:
        """Start a new child and send it the first line."""
        self.close()
        if self._own_log and not self.log:
            handle, self.log = tempfile.mkstemp(prefix="lora-loom-", suffix=".log")
            os.close(handle)
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = self.child.start(log)
        self.send(line)

    def send(self, line: bytes) -> bool:
        """Write one line; False when the child is gone."""
        if self.process is None or self.process.stdin is None:
            return False
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def release(self, seconds: float = 0.0) -> None:
        """Ask the child to drop what it keeps loaded, after the running job if there is one.

        With `seconds`, wait so long for it; a child that has not done it then is ended.
        """
        if not self.send(encode({"command": "release"})) or not seconds:
            return
        process = self.process
        assert process is not None and process.stdout is not None
        done: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=read, args=(process.stdout, done, "released"), daemon=True).start()
        try:
            done.get(timeout=seconds)
        except queue.Empty:
            self.close(0.0)

    def close(self, seconds: float = 5.0) -> None:
        """End the child: by closing its stdin, after `seconds` by force."""
        process, self.process = self.process, None
        if process is not None:
            end(process, seconds)
        if self._own_log and self.log:
            with contextlib.suppress(OSError):
                os.unlink(self.log)
            self.log = ""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    for action in (process.stdin.close if process.stdin else process.terminate, process.terminate, process.kill):
        with contextlib.suppress(OSError):
            action()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def read(events: IO[bytes], inbox: queue.Queue[dict[str, Any] | None], end: str = "ended") -> None:
    """Put the child's messages into the inbox up to the end of one job; None means that the child is gone."""
    with contextlib.suppress(OSError, ValueError):
        for line in events:
            message = decode(line)
            if end in message or "released" not in message:
                inbox.put(message)
            if end in message:
                return
    inbox.put(None)


class Running:
    """One job in a child: iterate its events, or `poll` them; exceptions are those that `run` raises."""

    def __init__(self, worker: Worker, line: bytes, log_begin: int) -> None:
        self.worker, self.line, self.log_begin = worker, line, log_begin
        self.owns_worker = False
        self.ended = False
        self.heard = False
        self.listen()

    def listen(self) -> None:
        process = self.worker.process
        assert process is not None and process.stdout is not None
        self.process = process
        self.inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=read, args=(process.stdout, self.inbox), daemon=True).start()

    def poll(self, seconds: float | None = None) -> Event | None:
        """The next event, or None when none came within `seconds` or the job has `ended`."""
        if self.ended:
            return None
        try:
            message = self.inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is None and not self.heard and self.process.wait(30) == 0:
            return self.again()
        self.heard = True
        if message is not None and "event" in message:
            return event_from_json(message)
        fault = self.finish(message)
        if fault is not None:
            raise fault
        return None

    def again(self) -> None:
        """The child ended its idle time just when the job came: a new one gets it."""
        self.heard = True
        self.worker.start(self.line)
        self.log_begin = 0
        self.listen()

    def finish(self, message: dict[str, Any] | None) -> LoomError | None:
        """The job is over: as planned, with an error, or because the child is gone (None)."""
        fault = self.crash() if message is None else error_from_wire(message) if "error" in message else None
        if fault is not None and message is not None:
            with contextlib.suppress(queue.Empty):
                self.inbox.get(timeout=30)
        self.ended = True
        if self.owns_worker:
            self.worker.close()
        return fault

    def __iter__(self) -> Iterator[Event]:
        while not self.ended:
            event = self.poll()
            if event is not None:
                yield event

    def crash(self) -> WorkerCrashed:
        """Why the child is gone, with the end of its log."""
        code = self.process.wait(30)
        lines = tail(self.worker.log, self.log_begin)
        said = f" The end of its log:\n{lines}" if lines else " It left no log."
        return WorkerCrashed(f"The worker process ended without a result ({cause(code)}).{said}")

    def command(self, name: str) -> None:
        if not self.ended:
            self.worker.send(encode({"command": name}))

    def stop(self) -> None:
        """End soon and keep what there is."""
        self.command("stop")

    def save(self) -> None:
        self.command("save")

    def sample(self) -> None:
        self.command("sample")

    def pause(self) -> None:
        self.command("pause")

    def resume(self) -> None:
        """Go on after `pause`."""
        self.command("resume")

    def close(self) -> None:
        """End the job at once; the child too, unless it was done and stays warm."""
        if not self.ended or self.owns_worker:
            self.ended = True
            self.worker.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tail(path: str, begin: int = 0) -> str:
    """The last lines that were written to a log behind the byte `begin`."""
    with contextlib.suppress(OSError), open(path, "rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(begin, size - TAIL_BYTES))
        return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:])
    return ""


def cause(code: int) -> str:
    """An exit code in words."""
    if code == -getattr(signal, "SIGKILL", 9):
        return "killed by the system, which often means that memory ran out"
    if code < 0:
        return f"signal {-code}"
    return f"exit code {code if code < 2**31 else hex(code)}"


def spawn(
    job: Any,
    python: str = "",
    overlay: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    log: str | os.PathLike[str] | None = None,
    imports: Sequence[str] = (),
) -> Running:
    """Run one job in a child that ends with it. `python` "": this interpreter; `overlay`: the engine's folders."""
    folders = [overlay] if isinstance(overlay, (str, os.PathLike)) else list(overlay or ())
    child = Child(
        python, tuple(os.fspath(folder) for folder in folders), None if log is None else os.fspath(log), tuple(imports)
    )
    running = Worker(child).run(job)
    running.owns_worker = True
    return running
