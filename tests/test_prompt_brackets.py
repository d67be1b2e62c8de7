"""Prompts whose brackets do not come in pairs are drawn as the hosts draw them, and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lora_core.engine.generate import generate
from lora_core.engine.series import job_notes
from lora_core.events import Note
from lora_core.jobs.generate import GenerateJob
from lora_core.prompt_a1111 import segments
from lora_core.prompt_brackets import bracket_faults, open_tags
from lora_core.prompt_comfyui import weights


@pytest.mark.parametrize("text", ["a (b) [c]", r"a \( b", "((a:1.2), [b:c:0.5])", "", r"\) (a\)) [\]]"])
def test_pairs_are_silent(text: str) -> None:
    assert bracket_faults(text, "a1111") == bracket_faults(text, "comfyui") == []


def test_sentences() -> None:
    assert bracket_faults("a ((b (c:1.2", "a1111") == [
        'The prompt has 3 "(" that are never closed: A1111 lets them reach to the prompt\'s end.'
    ]
    assert bracket_faults("a) ]", "a1111", "negative prompt") == [
        'The negative prompt has one ")" that was never opened: A1111 takes it as text.',
        'The negative prompt has one "]" that was never opened: A1111 takes it as text.',
    ]
    assert bracket_faults("a (b ] c", "comfyui") == [
        'The prompt has one "(" that is never closed: ComfyUI takes it and all behind it as text.'
    ]


def test_the_sentences_are_true() -> None:
    """What they say about the hosts' reading is what the readers of prompts do."""
    found = segments("a (b c")
    assert [(s.text, round(s.weight, 3)) for s in found] == [("a ", 1.0), ("b c", 1.1)]
    assert [(s.text, s.weight) for s in segments("a) b]")] == [("a) b]", 1.0)]
    assert "".join(text for text, _ in weights("a (b c")) == "a (b c"
    assert {weight for _, weight in weights("a (b c")} == {1.0}
    assert weights("a) b") == [("a) b", 1.0)]


def test_a_tag_without_its_end_is_said() -> None:
    assert open_tags("a cat <lora:mine:1> <lyco:b:0.5>") == open_tags("a < b") == []
    assert open_tags("a <lora:mine:1, b <lora:other:1>") == [
        'The prompt has "<lora:mine:1, b" without a ">" at its end: no LoRA is applied by it.'
    ]
    (note,) = job_notes(GenerateJob(prompt="a cat <lora:mine:1"))
    assert "<lora:mine:1" in note.text and note.level == "warning"
    (note,) = job_notes(GenerateJob(negative_prompt="<lyco:mine", arithmetic="comfyui"))
    assert note.text.startswith("The negative prompt")


def test_a_schedule_that_changes_nothing_is_said() -> None:
    job = GenerateJob(prompt="a", sampler="ddim", scheduler="karras")
    (note,) = job_notes(job)
    assert note == Note("A1111's DDIM has steps of its own: the schedule type karras changes nothing.", "warning")
    others = ({"arithmetic": "comfyui"}, {"scheduler": "automatic"}, {"sampler": "euler"})
    assert [list(job_notes(replace(job, **values))) for values in others] == [[], [], []]


def test_a_job_says_it_once(tmp_path: Path) -> None:
    small = {"width": 64, "height": 64, "steps": 1, "dtype": "fp32", "device": "cpu", "batch_count": 2}
    job = GenerateJob(base=str(tiny.checkpoint("sd15")), output_dir=str(tmp_path), prompt="a ((b)", **small)
    notes = [event for event in generate(job) if isinstance(event, Note)]
    assert [(note.level, note.text) for note in notes] == [("warning", bracket_faults("a ((b)", "a1111")[0])]
