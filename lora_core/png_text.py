"""Texts in PNG files: read, and added beside the pixels, whose bytes stay as they are."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from lora_core.errors import FileError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END_OF_HEADER = len(SIGNATURE) + 25


def text_chunk(key: str, text: str) -> bytes:
    """tEXt where Latin-1 holds the text, else iTXt in UTF-8 (PNG specification, 11.3.3)."""
    name = key.encode("latin-1", "replace")[:79] + b"\0"
    try:
        kind, data = b"tEXt", name + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, data = b"iTXt", name + b"\0\0\0\0" + text.encode("utf-8")
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def add_texts(source: Path, target: Path, texts: Mapping[str, str]) -> None:
    """Write `source` to `target` with more texts behind its header. Raises FileError when it is no PNG."""
    data = source.read_bytes()
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise FileError(f"{source.name} is no PNG file: texts cannot be added.")
    chunks = b"".join(text_chunk(key, text) for key, text in texts.items())
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_bytes(data[:END_OF_HEADER] + chunks + data[END_OF_HEADER:])
    os.replace(temporary, target)
