"""The header of a safetensors file: parsed with every check, built in a fixed order.

Format: 8 bytes little-endian length, that many bytes of JSON, then the data section.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lora_core.errors import FileError

MAX_HEADER = 100_000_000
_SPELLED = (
    ("BOOL", "bool"),
    ("U8", "uint8"),
    ("I8", "int8"),
    ("F8_E5M2", "float8_e5m2"),
    ("F8_E4M3", "float8_e4m3fn"),
    ("I16", "int16"),
    ("U16", "uint16"),
    ("F16", "float16"),
    ("BF16", "bfloat16"),
    ("I32", "int32"),
    ("U32", "uint32"),
    ("F32", "float32"),
    ("F64", "float64"),
    ("I64", "int64"),
    ("U64", "uint64"),
)
ORDER = {name: place for place, (name, _) in enumerate(_SPELLED)}
TORCH: dict[str, torch.dtype] = {name: getattr(torch, attr) for name, attr in _SPELLED if hasattr(torch, attr)}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH.items()}
WIDTH = {name: 1 if name.startswith(("BOOL", "F8")) else int(name.lstrip("UIBF")) // 8 for name, _ in _SPELLED}


@dataclass(frozen=True)
class TensorInfo:
    """`begin` and `end` are byte offsets into the data section."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself; `data_start` is the file offset of the data section."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


def open_file(path: Path) -> BinaryIO:
    """Open for reading, unbuffered. Raises FileError with a sentence."""
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the path and the spelling.") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder, not a file.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_header(path: str | Path) -> Header:
    """Parse and check the header. Raises FileError: missing, no safetensors, truncated, false offsets."""
    path = Path(path)
    with open_file(path) as file:
        return parse_header(file, path.name)


def parse_header(file: BinaryIO, name: str) -> Header:
    """`read_header` on an open file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > min(size - 8, MAX_HEADER):
        raise FileError(_no_header(name, file, size, length))
    try:
        data = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
        metadata = data.pop("__metadata__", None) or {}
        tensors = {key: _info(value) for key, value in data.items()}
        if not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("metadata values must be texts")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{name} is no valid safetensors file: its header is damaged ({error}).") from None
    header = Header(tensors, metadata, 8 + length)
    _check_layout(tensors.items(), size - header.data_start, name)
    return header


def _no_header(name: str, file: BinaryIO, size: int, length: int) -> str:
    file.seek(0)
    start = file.read(64)
    if not size:
        return f"{name} is empty. Copy or download it again."
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return f"{name} is a pickled checkpoint, not safetensors; give it the ending .ckpt or convert it."
    if all(32 <= b < 127 or b in b"\t\r\n" for b in start):
        kind = "a web page or text" if b"<" in start or b"{" in start else "a text"
        if start.startswith(b"version https://git-lfs"):
            kind = "a Git LFS pointer (the weights were not downloaded)"
        return f"{name} is no safetensors file but {kind}. Download it again."
    if 2 <= length <= MAX_HEADER:
        return f"{name} is cut off: its header alone needs {length:,} bytes and the file has {size:,}. Copy it again."
    return f"{name} is no safetensors file: its first bytes are no header length."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _info(value: Mapping[str, Any]) -> TensorInfo:
    begin, end = value["data_offsets"]
    shape = tuple(value["shape"])
    dtype = value["dtype"]
    numbers = (*shape, begin, end)
    if set(map(type, numbers)) != {int} or min(numbers) < 0:
        raise ValueError("a shape or an offset is not a whole number")
    if dtype not in WIDTH:
        raise ValueError(f"number format {dtype!r} is not known")
    if end - begin != math.prod(shape) * WIDTH[dtype]:
        raise ValueError(f"a tensor of shape {list(shape)} does not take {end - begin} bytes")
    return TensorInfo(dtype, shape, begin, end)


def _check_layout(tensors: Iterable[tuple[str, TensorInfo]], room: int, name: str) -> None:
    place = 0
    for key, info in sorted(tensors, key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != place:
            raise FileError(f"{name} is no valid safetensors file: the bytes of {key} overlap others or leave a gap.")
        place = info.end
    if place > room:
        raise FileError(f"{name} is cut off: {place - room:,} bytes of weights are missing. Copy or download it again.")
    if place < room:
        raise FileError(f"{name} is no valid safetensors file: {room - place:,} bytes after its weights are not named.")


def plan(infos: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    """Offsets in safetensors' own order: widest number format first, then by name."""
    spelled = {name: NAMES[dtype] for name, (dtype, _) in infos.items()}
    found: dict[str, TensorInfo] = {}
    place = 0
    for name in sorted(infos, key=lambda n: (-ORDER[spelled[n]], n)):
        shape = tuple(infos[name][1])
        size = math.prod(shape) * WIDTH[spelled[name]]
        found[name] = TensorInfo(spelled[name], shape, place, place + size)
        place += size
    return found


def build_header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces so that the data section begins at a multiple of 8."""
    data: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for name, info in tensors.items():
        data[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.begin, info.end]}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
