"""The text chunks of a PNG, read without decoding the picture: whole, truncated or enormous ones alike."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 64 << 20
KINDS = (b"tEXt", b"zTXt", b"iTXt", b"comf")  # comf: how ComfyUI writes tEXt into animations


def png_texts(file: BinaryIO) -> dict[str, str]:
    """Keyword -> text of every chunk of KINDS; the first of a keyword counts. Damaged chunks are left out.

    `file` stands behind the PNG signature.
    """
    found: dict[str, str] = {}
    for kind, data in _text_chunks(file):
        key, zero, rest = data.partition(b"\0")
        text = _text(kind, rest) if zero else None
        if text is not None:
            found.setdefault(key.decode("latin-1"), text)
    return found


def _text_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    room = MAX_TEXT
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind not in KINDS or length > room:
            file.seek(length + 4, 1)
            continue
        data = file.read(length)
        file.seek(4, 1)
        if len(data) < length:
            return
        room -= length
        yield kind, data


def _text(kind: bytes, rest: bytes) -> str | None:
    if kind in (b"tEXt", b"comf"):
        return _latin_or_utf8(rest)
    if kind == b"zTXt":
        data = inflate(rest[1:])
        return None if data is None else _latin_or_utf8(data)
    packed, body = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
    if len(body) < 3:
        return None
    data = inflate(body[2]) if packed else body[2]
    return None if data is None else data.decode("utf-8", "replace")


def _latin_or_utf8(data: bytes) -> str:
    """tEXt is Latin-1 by the standard; programs that write UTF-8 into it are believed."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def inflate(data: bytes, wbits: int = zlib.MAX_WBITS) -> bytes | None:
    """Decompress at most `MAX_TEXT` bytes; None for damaged data or more than that."""
    worker = zlib.decompressobj(wbits)
    try:
        result = worker.decompress(data, MAX_TEXT)
    except zlib.error:
        return None
    return None if worker.unconsumed_tail else result
