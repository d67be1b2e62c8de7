"""A file is replaced at once or stays as it was."""

import os

import pytest

from lora_core.whole_files import write_text


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "file.json"
    for text in ("one", "zwei \N{SNOWMAN}"):
        write_text(path, text)
        assert path.read_text("utf-8") == text
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_what_was_there_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    path.write_text("kept")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "kept" and [p.name for p in tmp_path.iterdir()] == ["file.json"]
