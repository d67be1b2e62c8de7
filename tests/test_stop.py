"""A stop is heard while a training prepares itself, and a report that cannot be written does not undo a success."""

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_train import job_for

from lora_core.commands import Commands
from lora_core.engine import loading
from lora_core.engine.picture_index import PictureIndex
from lora_core.engine.train import train
from lora_core.errors import Interrupted
from lora_core.events import HELD, Finished, Note, Progress, Saved, Stage


@pytest.fixture
def folder(tmp_path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        rgb = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(rgb).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"tag{i}")
    return pictures


def stopped_at(job, unit: str) -> list[Progress]:
    """The progress in a unit of a training that is stopped as soon as it tells of it."""
    commands, seen = Commands(), []
    with pytest.raises(Interrupted):
        for event in train(job, commands):
            if isinstance(event, Progress) and event.unit == unit:
                seen.append(event)
                commands.stop = True
    return seen


def test_a_stop_is_heard_while_pictures_are_read(tmp_path, folder, monkeypatch):
    read, look = [], PictureIndex.look
    monkeypatch.setattr(loading, "TOLD_EVERY", -1.0)
    monkeypatch.setattr(PictureIndex, "look", lambda index, path: read.append(path) or look(index, path))
    monkeypatch.setattr(loading, "READERS", 1)
    seen = stopped_at(job_for(tmp_path, folder), "file")
    assert len(seen) == 1 and (seen[0].done, seen[0].total) == (1, 20)
    assert len(read) < 20


def test_a_stop_is_heard_while_captions_are_encoded(tmp_path, folder):
    seen = stopped_at(job_for(tmp_path, folder, train_text_encoder=False, shuffle=False), "caption")
    assert len(seen) == 1 and (seen[0].done, seen[0].total) == (1, 20)


def test_a_pause_is_told_when_the_step_is_done_and_its_memory_given_back(tmp_path, folder, monkeypatch):
    commands, events, released = Commands(), [], []
    monkeypatch.setattr("lora_core.engine.train.release", released.append)
    for event in train(job_for(tmp_path, folder, steps=4), commands):
        events.append(event)
        if isinstance(event, Progress) and event.unit == "step" and event.done == 2:
            commands.pause = True
            before = len(released)
        if event == HELD:
            assert len(released) == before + 1
            commands.pause = False
    assert events.count(HELD) == 1 and isinstance(events[-1], Finished)
    steps = [event.done for event in events[: events.index(HELD)] if isinstance(event, Progress)]
    assert steps[-1] == 2 and events[events.index(HELD) + 1] == Stage("Training")


def test_a_report_that_cannot_be_written_is_told_and_no_failure(tmp_path, folder, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lora_core.engine.saving.write_text", full)
    events = list(train(job_for(tmp_path, folder, steps=1, train_text_encoder=False)))
    assert isinstance(events[-1], Finished) and Path(events[-1].outputs[0]).exists()
    notes = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert "The LoRA is saved; its report report.json could not be written: No space left on device." in notes
    assert any(isinstance(e, Saved) and e.kind == "lora" for e in events)
