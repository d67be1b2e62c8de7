"""The child process: reads jobs and commands on stdin, writes events on a private copy of stdout, logs on stderr.

Ends when it had nothing to do for a while, or when its host is gone (stdin or stdout is closed, or its parent died): a
job that runs then is stopped, so that it keeps what it has.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from lora_core import reproducible
from lora_core.commands import Commands
from lora_core.errors import LoomError
from lora_core.events import event_to_json
from lora_core.overlay import hide_unneeded
from lora_core.run import release, run, translate
from lora_core.wire import ENDED, RELEASED, decode, encode, error_to_wire, job_from_wire

CRASHED = 70


def main(arguments: list[str] | None = None) -> None:
    """Serve jobs until there is no host. `--grace`: seconds that a job has to end after its host died."""
    parser = argparse.ArgumentParser("lora_core.worker")
    parser.add_argument(
        "--idle", type=float, default=0.0, help="seconds without a job until the process ends; 0 = never"
    )
    parser.add_argument("--grace", type=float, default=20.0)
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    source, out = private_stdin(), private_stdout()
    faulthandler.enable()
    reproducible.ask()
    hide_unneeded()
    for module in options.modules:
        importlib.import_module(module)
    host = Host(out, options.grace)
    threading.Thread(target=listen, args=(source, host), daemon=True).start()
    threading.Thread(target=watch_parent, args=(host,), daemon=True).start()
    serve(host, options.idle or None)
    sys.stderr.flush()
    os._exit(0)


def private_stdin() -> BinaryIO:
    """A copy of fd 0 for jobs and commands alone; fd 0 itself becomes empty, so that no grandchild can wait on it."""
    source = os.fdopen(os.dup(0), "rb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return source


def private_stdout() -> BinaryIO:
    """A copy of fd 1 for events alone; fd 1 itself goes to stderr, where prints of libraries do no harm."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    return out


class Host:
    """The program at the other end: its jobs and commands come in, events go out.

    Once it is gone, what runs is asked to stop, which keeps its work, and has `grace` seconds to do so.
    """

    def __init__(self, out: BinaryIO, grace: float) -> None:
        self.inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.commands = Commands()
        self.gone = threading.Event()
        self.listens = True
        self._out = out
        self._grace = grace

    def lost(self, listens: bool = False) -> None:
        """Nobody is there any more, or only somebody who still listens. Safe from any thread, and more than once."""
        self.listens = self.listens and listens
        if not self.gone.is_set():
            self.gone.set()
            self.commands.stop = True
            self.inbox.put(None)
            end_within(self._grace)

    def take(self, message: dict[str, Any]) -> None:
        """A job, with commands of its own from now on. One that comes as the host goes is stopped at once."""
        self.commands = Commands()
        self.commands.stop = self.gone.is_set()
        self.inbox.put({**message, "commands": self.commands})

    def send(self, message: dict[str, Any]) -> None:
        """Write one line, or nothing once nobody listens."""
        data = memoryview(encode(message))
        try:
            while data and self.listens:
                data = data[self._out.write(data) :]
        except OSError:
            self.lost()


def listen(stdin: BinaryIO, host: Host) -> None:
    """Put jobs into the inbox and commands onto the newest of them, until stdin closes."""
    for line in stdin:
        try:
            message = decode(line)
            if "job" in message:
                host.take(message)
            elif message.get("command") == "release":
                host.inbox.put(message)
            else:
                host.commands.obey(str(message.get("command")))
        except ValueError as error:
            sys.stderr.write(f"Message not understood: {error}\n")
    host.lost(listens=True)


def end_within(seconds: float) -> None:
    """End this process after `seconds` whatever it does then: this needs no interpreter lock."""
    with contextlib.suppress(Exception):
        faulthandler.dump_traceback_later(seconds, exit=True)
        return
    time.sleep(seconds)
    os._exit(CRASHED)


def watch_parent(host: Host) -> None:
    """Another process may have inherited the pipe and keep it open: a change of the parent tells that the host died."""
    if os.name != "posix":
        return
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    host.lost()


def serve(host: Host, idle: float | None) -> None:
    """Do what comes in until None comes, or nothing for `idle` seconds."""
    while True:
        try:
            message = host.inbox.get(timeout=idle)
        except queue.Empty:
            return
        if message is None:
            return
        if "job" in message:
            work(message, host)
        else:
            release()
            host.send(RELEASED)


def work(message: dict[str, Any], host: Host) -> None:
    """Run one job and send its events; a fault that no one foresaw ends the process with its traceback in the log."""
    try:
        for event in run(job_from_wire(message), message["commands"]):
            host.send(event_to_json(event))
    except LoomError as error:
        traceback.print_exc()
        host.send(error_to_wire(error))
    except BaseException as error:
        traceback.print_exc()
        known = translate(error)
        if known is None:
            sys.stderr.flush()
            os._exit(CRASHED)
        host.send(error_to_wire(known))
    host.send(ENDED)
