"""LoRA tags in prompts."""

from __future__ import annotations

import pytest

from lora_core.block_weights import parse_blocks
from lora_core.errors import ConfigError
from lora_core.lora_tags import PRESETS, LoraTag, split_lora_tags, without_other_tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<lora:a>", LoraTag("a")),
        ("<lora:a b:0.8>", LoraTag("a b", 0.8, 0.8)),
        ("<lora:a:0.5:0.9>", LoraTag("a", 0.9, 0.5)),
        ("<lora:a:-1>", LoraTag("a", -1.0, -1.0)),
        ("<lora:a:unet=0.3:te=0.2>", LoraTag("a", 0.3, 0.2)),
        ("<lora:a:0.7:unet=0>", LoraTag("a", 0.0, 0.7)),
        ("<lora:a:te=0.7>", LoraTag("a", 0.7, 0.7)),
        ("<lyco:a:0.7>", LoraTag("a", 0.7, 0.7)),
        ("<lora:a:1:0.5:8>", LoraTag("a", 0.5, 1.0, rank=8)),
        ("<lora:a:0.5:dyn=4>", LoraTag("a", 0.5, 0.5, rank=4)),
        ("<lora:a:0.7:lbw=IN*=0.5,OUT*=0>", LoraTag("a", 0.7, 0.7, "IN*=0.5,OUT*=0")),
        ("<lora:a:0.7:lbw=OUTALL>", LoraTag("a", 0.7, 0.7, PRESETS["OUTALL"])),
        ("<lora:a:0.7:OUTALL>", LoraTag("a", 0.7, 0.7, PRESETS["OUTALL"])),
        ("<lora:a:0.7:0.6:1,0,1>", LoraTag("a", 0.6, 0.7, "1,0,1")),
    ],
)
def test_tags(text: str, tag: LoraTag) -> None:
    assert split_lora_tags(f"cat, {text}dog") == ("cat, dog", (tag,))


@pytest.mark.parametrize(
    "text",
    ["<lora:>", "<lora:a:x>", "<lora:a:1:2:3:4>", "<lora:a:1:start=3>", "<lora:a:1:1,0:lbw=1>", "<lora:a:dyn=x>"],
)
def test_unreadable_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tag"):
        split_lora_tags(text)


def test_other_networks() -> None:
    assert split_lora_tags("a <other:b:1> <3 (c:1.2)") == ("a <other:b:1> <3 (c:1.2)", ())
    assert without_other_tags("a <other:b:1> <3 (c:1.2)") == "a  <3 (c:1.2)"
    with pytest.raises(ConfigError, match="Hypernetworks"):
        without_other_tags("a <hypernet:b:1>")


SEVENTEEN = ("TE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{i:02}" for i in range(3, 12)))


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        ("NONE", "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"),
        ("ALL", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"),
        ("INS", "1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0"),
        ("IND", "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0"),
        ("INALL", "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0"),
        ("MIDD", "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0"),
        ("OUTD", "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0"),
        ("OUTS", "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1"),
        ("OUTALL", "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1"),
        ("ALL0.5", "0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5"),
    ],
)
def test_presets_are_those_of_lora_block_weight(preset: str, numbers: str) -> None:
    from lora_core.families import reference
    from lora_core.keys import lora_targets

    ours, theirs = parse_blocks(PRESETS[preset], "sd1"), parse_blocks(numbers, "sd1")
    for key in lora_targets(reference("sd1")):
        assert ours.of(key.canonical) == theirs.of(key.canonical), key.canonical
