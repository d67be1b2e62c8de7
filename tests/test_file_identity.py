"""Hashes of files, made in the background."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lora_core.file_identity import hash_later


def test_the_hash_is_that_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"one" * 1000, b"another" * 500_000):
        path.write_bytes(content)
        assert hash_later(path)() == hash_later(path)() == hashlib.sha256(content).hexdigest()


def test_what_has_no_hash(tmp_path: Path) -> None:
    assert hash_later(tmp_path)() == "" and hash_later(tmp_path / "missing")() == ""
