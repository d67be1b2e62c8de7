"""LoRA tags and A1111's picture parameters."""

from __future__ import annotations

import pytest

from lora_core.errors import ConfigError
from lora_core.infotext import LoraTag, infotext, lora_hashes, quote, split_lora_tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<lora:a>", LoraTag("a")),
        ("<lora:a b:0.8>", LoraTag("a b", 0.8, 0.8)),
        ("<lora:a:0.5:0.9>", LoraTag("a", 0.9, 0.5)),
        ("<lora:a:-1>", LoraTag("a", -1.0, -1.0)),
        ("<lora:a:unet=0.3:te=0.2>", LoraTag("a", 0.3, 0.2)),
        ("<lora:a:0.7:unet=0>", LoraTag("a", 0.0, 0.7)),
        ("<lora:a:0.7:lbw=IN*=0.5,OUT*=0>", LoraTag("a", 0.7, 0.7, "IN*=0.5,OUT*=0")),
    ],
)
def test_tags(text: str, tag: LoraTag) -> None:
    assert split_lora_tags(f"cat, {text}dog") == ("cat, dog", (tag,))


@pytest.mark.parametrize("text", ["<lora:>", "<lora:a:x>", "<lora:a:1:2:3>", "<lora:a:dyn=4>"])
def test_unreadable_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tag"):
        split_lora_tags(text)


def test_other_brackets_are_left_alone() -> None:
    assert split_lora_tags("a <hypernet:b:1> <3 (c:1.2)") == ("a <hypernet:b:1> <3 (c:1.2)", ())


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
    assert lora_hashes([("a", "0123456789abcdef"), ("b", "")]) == "a: 0123456789ab"
