"""A1111's picture parameters."""

from __future__ import annotations

from lora_core.infotext import infotext, quote, read_hashes, written_hashes
from lora_core.infotext_fields import before_1_9


def test_infotext() -> None:
    text = infotext("a\nb", "", {"Steps": 20, "CFG scale": 7.0, "Clip skip": None, "Model": "x, y"})
    assert text == 'a\nb\nSteps: 20, CFG scale: 7, Model: "x, y"'
    assert infotext("a", "n", {"Seed": 1}) == "a\nNegative prompt: n\nSeed: 1"


def test_quoting() -> None:
    assert [quote(v) for v in (7.5, 8.0, "plain", "a: b", 'say "x", y')] == [
        "7.5",
        "8",
        "plain",
        '"a: b"',
        '"say \\"x\\", y"',
    ]


def test_lora_hashes() -> None:
    assert written_hashes([("a", "0123456789abcdef"), ("b", "")]) == "a: 0123456789ab"
    text = written_hashes([("in:lora", "a long name, of a LoRA")])
    assert text == "inlora: a long name of a LoRA" and read_hashes(text) == (("inlora", "a long name of a LoRA"),)


def test_the_schedule_goes_into_the_samplers_name_before_1_9() -> None:
    text = "Sampler: DPM2, Schedule type: Karras\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 1"
    assert before_1_9(text) == "Sampler: DPM2, Schedule type: Karras\nSteps: 2, Sampler: DPM++ 2M Karras, Seed: 1"
    assert before_1_9("Sampler: Euler, Schedule type: Karras") == "Sampler: Euler, Schedule type: karras"
    assert before_1_9("a cat\nSteps: 2, Sampler: Euler") == "a cat\nSteps: 2, Sampler: Euler"
