"""Before hours of work: can the results be written at all?"""

from __future__ import annotations

import contextlib
import glob
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from lora_core.errors import DiskFull, FileError, LoomError
from lora_core.lock import locked


def require_writable(folders: Iterable[Path]) -> None:
    """Make the folders and write a byte into each. Raises FileError."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"0")
        except OSError as error:
            reason = error.strerror or str(error)
            raise FileError(f"The folder {folder} cannot be written to ({reason}). Choose another one.") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the working folder, so that no second run of the same job writes into it. Raises LoomError, FileError."""
    require_writable([folder])
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder / "lock", patience=0))
        except TimeoutError as error:
            raise LoomError(f"Another training is using {folder}. Wait for it, or choose another name.") from error
        yield


def sweep(folder: Path, stem: str) -> None:
    """Remove what a killed run left half-written under names beginning with `stem` (older than a minute)."""
    for leftover in folder.glob(f".{glob.escape(stem)}*.safetensors.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 60:
                leftover.unlink()


def require_room(folders: Iterable[Path], parameters: Iterable[torch.Tensor]) -> None:
    """Room for one LoRA and one state (factors and two optimizer buffers in fp32) in each folder. Raises DiskFull."""
    needed = sum(p.numel() for p in parameters) * 4 * 4
    for folder in folders:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise DiskFull(
                f"The disk of {folder} has {free / 1e6:.0f} MB left; the training needs {needed / 1e6:.0f} MB for the "
                "LoRA and a state to resume from. Free some space or choose another folder."
            )
