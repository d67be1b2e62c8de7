"""A lock between processes that the system releases when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

HELD = {errno.EAGAIN, errno.EACCES, getattr(errno, "EDEADLOCK", errno.EAGAIN)}


@contextlib.contextmanager
def locked(path: Path, patience: float, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`; `waiting` is called once if another has it. Raises TimeoutError after `patience` s."""
    begin = time.monotonic()
    with open(path, "a+b") as file:
        told = False
        while not taken(file):
            if not told:
                waiting()
                told = True
            if time.monotonic() - begin > patience:
                raise TimeoutError(f"{path} was held for {patience:g} seconds.")
            time.sleep(0.2)
        yield


def taken(file: IO[bytes]) -> bool:
    """Try once. File systems without locks count as taken: a rename decides there."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in HELD
    return True
