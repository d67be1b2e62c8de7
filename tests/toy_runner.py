"""A runner without an engine for the tests of processes: it registers itself as the kind "toy" when imported."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_core import errors
from lora_core.commands import Commands
from lora_core.events import HELD, Event, Finished, Loss, Preview, Progress, Saved, Stage
from lora_core.run import RUNNERS, Runner
from lora_core.settings import problems, setting


@dataclass(frozen=True)
class ToyJob:
    act: str = setting("count", "Act")
    steps: int = setting(3, "Steps", min=0, max=1_000_000)
    seconds: float = setting(0.0, "Seconds per step", min=0)
    path: str = setting("", "File")

    def problems(self) -> list[str]:
        return problems(self)


RUNNERS["toy"] = Runner(ToyJob, "toy_runner:toy")


def toy(job: ToyJob, commands: Commands) -> Iterator[Event]:
    yield Stage(f"Toy: {job.path}")
    for step in range(job.steps):
        act(job, step)
        time.sleep(job.seconds)
        if commands.pause:
            yield HELD
            commands.wait_while_paused()
        if commands.take("save"):
            yield Saved(job.path, "state", step)
        if commands.stop:
            if job.act == "keep":
                yield Progress(step, job.steps)
                Path(job.path).write_text(f"{step} steps")
            yield Finished((job.path,), {"steps": step}, stopped=True)
            return
        yield Progress(step + 1, job.steps)
    yield Loss(job.steps, 0.1, float("inf"), 1e-4, None)
    yield Preview(1, job.path, 'a "quoted"\nprompt 中文')
    yield Finished((job.path,), {"steps": job.steps, "executable": sys.executable, "cwd": os.getcwd()})


def act(job: ToyJob, step: int) -> None:
    if job.act in errors.BY_NAME:
        raise errors.BY_NAME[job.act](f"A sentence about {job.path} of the class {job.act}.")
    if job.act == "print":
        print("library noise on stdout, ü 中文 \udc80")
        os.write(1, b"raw noise on fd 1\n")
        subprocess.run(
            [sys.executable, "-c", "import sys; print('noise of a grandchild', sys.stdin.read())"], check=True
        )
    if job.act == "full":
        raise OSError(errno.ENOSPC, "No space left on device", job.path)
    if job.act == "memory":
        raise MemoryError
    if job.act == "bug":
        raise KeyError("a bug")
    if job.act == "die":
        sys.stderr.write("the last words\n")
        sys.stderr.flush()
        os._exit(3)
    if job.act == "hang":
        one_long_call_into_c()


def one_long_call_into_c() -> None:
    """Minutes inside one call that polls nothing, as a large matrix product."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
