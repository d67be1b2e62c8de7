"""Writing safetensors files: streamed, atomic, in a fixed order; and the hashes that hosts know them by."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch

from lora_core.errors import DiskFull, FileError, KeyMismatch, LoomError
from lora_core.tensor_header import TORCH, build_header, plan, read_header

CHUNK = 1 << 22


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy; valid while the tensor lives."""
    size = tensor.numel() * tensor.element_size()
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B") if size else memoryview(b"")


def sentence_of(error: OSError, path: Path) -> LoomError:
    """An operating system's refusal to write `path`, as an error with a sentence."""
    folder = path.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No room left in {folder} for {path.name}. Free some space; the file was not written.")
    if isinstance(error, FileNotFoundError):
        return FileError(f"The folder {folder} does not exist. Create it or choose another one.")
    if isinstance(error, NotADirectoryError):
        return FileError(f"{folder} is not a folder. Choose another place for {path.name}.")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return FileError(
            f"{path.name} cannot be written in {folder}: no permission, or another program has the file open."
        )
    if error.errno == errno.ENAMETOOLONG:
        return FileError(f"The name {path.name} is too long for the file system of {folder}.")
    return FileError(f"{path.name} cannot be written in {folder}: {error.strerror or error}.")


class TensorWriter:
    """Writes one safetensors file tensor by tensor, in any order; the file appears under its name only in `close()`.

    Used as a context manager it closes at the end and aborts on an exception; an aborted writer leaves nothing behind.
    Raises FileError or DiskFull.
    """

    def __init__(
        self,
        path: str | Path,
        infos: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.tensors = plan(infos)
        self._left = set(self.tensors)
        header = build_header(self.tensors, metadata or {})
        self._start = len(header)
        self._temporary = self.path.with_name(f".{self.path.name[:80]}.{uuid.uuid4().hex[:12]}.tmp")
        self._file: BinaryIO | None = None
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self._temporary, flags, 0o666), "wb", buffering=0)
            self._write(header, 0)
        except OSError as error:
            self.abort()
            raise sentence_of(error, self.path) from None

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor, cast to its planned dtype. Raises KeyMismatch for a name or shape that was not planned."""
        info = self.tensors.get(name)
        if info is None or name not in self._left:
            raise KeyMismatch(f"{name} was not planned for {self.path.name}, or is written twice.")
        if tuple(tensor.shape) != info.shape:
            raise KeyMismatch(f"{name} has shape {list(tensor.shape)}, planned was {list(info.shape)}.")
        tensor = tensor.detach().to(device="cpu", dtype=TORCH[info.dtype]).contiguous()
        try:
            self._write(tensor_bytes(tensor), self._start + info.begin)
        except OSError as error:
            self.abort()
            raise sentence_of(error, self.path) from None
        self._left.discard(name)

    def _write(self, data: bytes | memoryview, place: int) -> None:
        if self._file is None:
            raise FileError(f"{self.path.name} was closed before all of it was written.")
        self._file.seek(place)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view[:CHUNK]) :]

    def close(self, check: Callable[[Path], None] | None = None) -> None:
        """Commit: flush to the disk and move the file to its name in one step. Raises KeyMismatch if tensors lack.

        `check` is called with the path of the finished file before the move; when it raises, the file is given up.
        """
        if self._left:
            missing = sorted(self._left)
            self.abort()
            raise KeyMismatch(f"{self.path.name} lacks {len(missing)} planned tensors, e.g. {missing[0]}.")
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            if check is not None:
                check(self._temporary)
            os.replace(self._temporary, self.path)
            _sync_folder(self.path.parent)
            self._file = None
        except OSError as error:
            self.abort()
            raise sentence_of(error, self.path) from None
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: nothing stays behind. Harmless after `close()`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically, in a fixed order: the same tensors give the same bytes.

    Raises FileError or DiskFull; an existing file of that name stays as it was.
    """
    infos = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with TensorWriter(path, infos, metadata) as writer:
        for name in writer.tensors:
            writer.put(name, tensors[name])


def data_hash(path: str | Path) -> str:
    """sha256 (hex) of the data section: kohya's sshs_model_hash."""
    start = read_header(path).data_start
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def legacy_hash(path: str | Path) -> str:
    """kohya's sshs_legacy_hash: sha256 (8 hex) of 64 KiB from 1 MiB on, as if only ss_* metadata were stored."""
    header = read_header(path)
    kept = {key: value for key, value in header.metadata.items() if key.startswith("ss_")}
    offset = 0x100000 - len(build_header(header.tensors, kept))
    with open(path, "rb") as file:
        file.seek(header.data_start + offset)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def file_hashes(path: str | Path) -> tuple[str, str]:
    """(8 hex digits of bytes from 1 MiB on, sha256 of the whole file): ss_sd_model_hash and ss_new_sd_model_hash."""
    digest, short = hashlib.sha256(), b""
    with open(path, "rb") as file:
        file.seek(0x100000)
        short = file.read(0x10000)
        file.seek(0)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return hashlib.sha256(short).hexdigest()[:8], digest.hexdigest()
