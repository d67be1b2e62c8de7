"""The child process: reads jobs and commands on stdin, writes events on a private copy of stdout, logs on stderr.

Ends when stdin closes (its host died), when it had nothing to do for a while, or when its parent is gone.
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
    inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=listen, args=(source, inbox, options.grace), daemon=True).start()
    threading.Thread(target=watch_parent, args=(options.grace,), daemon=True).start()
    serve(inbox, out, options.idle or None)
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


def listen(stdin: BinaryIO, inbox: queue.Queue[dict[str, Any] | None], grace: float) -> None:
    """Put jobs with fresh Commands into the inbox and commands onto the newest of them, until stdin closes."""
    commands = Commands()
    for line in stdin:
        try:
            message = decode(line)
            if "job" in message:
                commands = Commands()
                inbox.put({**message, "commands": commands})
            elif message.get("command") == "release":
                inbox.put(message)
            else:
                commands.obey(str(message.get("command")))
        except ValueError as error:
            sys.stderr.write(f"Message not understood: {error}\n")
    commands.stop = True
    inbox.put(None)
    end_within(grace)


def end_within(seconds: float) -> None:
    """End this process after `seconds` whatever it does then: this needs no interpreter lock."""
    with contextlib.suppress(Exception):
        faulthandler.dump_traceback_later(seconds, exit=True)
        return
    time.sleep(seconds)
    os._exit(CRASHED)


def watch_parent(grace: float) -> None:
    """Another process may have inherited the pipe and keep it open: a change of the parent tells that the host died."""
    if os.name != "posix":
        return
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    end_within(grace)


def serve(inbox: queue.Queue[dict[str, Any] | None], out: BinaryIO, idle: float | None) -> None:
    """Do what comes in until None comes, or nothing for `idle` seconds."""
    while True:
        try:
            message = inbox.get(timeout=idle)
        except queue.Empty:
            return
        if message is None:
            return
        if "job" in message:
            work(message, out)
        else:
            release()
            send(out, RELEASED)


def work(message: dict[str, Any], out: BinaryIO) -> None:
    """Run one job and write its events; a fault that no one foresaw ends the process with its traceback in the log."""
    try:
        for event in run(job_from_wire(message), message["commands"]):
            send(out, event_to_json(event))
    except LoomError as error:
        traceback.print_exc()
        send(out, error_to_wire(error))
    except BaseException as error:
        traceback.print_exc()
        known = translate(error)
        if known is None:
            sys.stderr.flush()
            os._exit(CRASHED)
        send(out, error_to_wire(known))
    send(out, ENDED)


def send(out: BinaryIO, message: dict[str, Any]) -> None:
    """Write one line. A closed pipe means that nobody listens any more: the process ends."""
    data = memoryview(encode(message))
    try:
        while data:
            data = data[out.write(data) :]
    except OSError:
        os._exit(0)
