"""The SHA-256 of large files, computed beside other work and once per file and process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from lora_core.tensors import file_hashes


def hash_later(path: str | Path) -> Callable[[], str]:
    """Begin to hash a file in a thread (which lets others compute meanwhile); calling the result waits for it.

    "" for a folder, and for a file that is missing or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return lambda: ""
    stat = path.stat()
    begun = _begun(path.resolve(), stat.st_mtime_ns, stat.st_size)
    return lambda: begun.result()


@functools.lru_cache(64)
def _begun(path: Path, *_: int) -> Future[str]:
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(file_hashes(path)[1])
        except OSError:
            future.set_result("")

    threading.Thread(target=work, daemon=True).start()
    return future
