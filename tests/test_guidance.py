"""Guidance over the evaluations of the UNet; what single prompts become is in test_prompt_hosts.py."""

from __future__ import annotations

import prompt_cases
import pytest
import torch

from lora_core.engine.guidance import PromptOptions, guidance_of
from lora_core.errors import ConfigError, KeyMismatch

LONG = "cat " * 80


def lengths(conds) -> tuple[list[int], int | None]:
    rows = [row.context.shape[1] for picture in conds.positive for row, _ in picture]
    return rows, None if conds.negative is None else conds.negative.context.shape[1]


def guidance(prompts: list[str], negative: str = "", cfg: float = 7.0, kind: str = "sd15", **options):
    return guidance_of(prompt_cases.models(kind), PromptOptions(**options), prompts, negative, cfg)


def test_the_same_object_until_something_changes() -> None:
    made = guidance(["a [cat:dog:3]"], "x [y:7]", steps=10)
    seen = [made.at(call) for call in range(10)]
    assert [[id(other) for other in seen].index(id(conds)) for conds in seen] == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert seen[0].negative is seen[4].negative
    assert seen[4].positive[0][0][0] is seen[8].positive[0][0][0]


@pytest.mark.parametrize(("options", "change"), [({}, 6), ({"second_order": True}, 11), ({"hires_steps": 4}, 99)])
def test_steps_of_the_sampler(options: dict[str, object], change: int) -> None:
    made = guidance(["[cat:dog:5]" if "hires_steps" in options else "[cat:dog:0.5]"], steps=10, **options)
    first = made.at(0)
    changed = next((call for call in range(99) if made.at(call) is not first), 99)
    assert changed == change


def test_fractions_of_the_second_pass_count_from_one() -> None:
    made = guidance(["[cat:dog:1.5]"], steps=10, hires_steps=4)
    assert [made.at(call) is made.at(0) for call in range(5)] == [True, True, True, False, False]


def test_negative_is_left_out_where_it_has_no_influence() -> None:
    for arithmetic in ("a1111", "comfyui"):
        assert guidance(["a cat"], "bad", 1.0, arithmetic=arithmetic).at(0).negative is None
        assert guidance(["a cat"], "bad", 1.1, arithmetic=arithmetic).at(0).negative is not None
    assert guidance(["a cat AND dog :0.5"], "bad", 1.0).at(0).negative is not None
    assert guidance(["a cat:0.5 AND dog :0.5"], "bad", 1.0).at(0).negative is None


def test_lengths_of_rows() -> None:
    prompts = ["a cat", LONG]
    assert lengths(guidance(prompts).at(0)) == ([154, 154], 77)
    assert lengths(guidance(prompts, LONG * 2).at(0)) == ([154, 154], 231)
    assert lengths(guidance(prompts, LONG * 2, arithmetic="comfyui").at(0)) == ([462, 462], 462)
    assert lengths(guidance(prompts, LONG * 2, padding="empty").at(0)) == ([231, 231], 231)
    assert lengths(guidance(prompts, LONG * 2, padding="last").at(0)) == ([154, 154], 154)


def test_empty_negative_of_sdxl() -> None:
    zeros = guidance(["a cat"], "", kind="sdxl").at(0).negative
    assert zeros is not None and zeros.pooled is not None
    assert not zeros.context.any() and not zeros.pooled.any()
    encoded = guidance(["a cat"], "", kind="sdxl", arithmetic="comfyui").at(0).negative
    assert encoded is not None
    assert encoded.context.any()


@pytest.mark.parametrize(
    ("prompt", "options", "error", "words"),
    [
        ("a (cat:1.2.3)", {}, ConfigError, "no number"),
        ("a cat", {"clip_skip": 13}, KeyMismatch, "12 layers"),
        ("embedding:gone", {"arithmetic": "comfyui"}, ConfigError, "gone"),
        ("embedding:", {"arithmetic": "comfyui"}, None, ""),
        ("embedding:,", {"arithmetic": "comfyui"}, None, ""),
    ],
)
def test_what_cannot_be_read(
    prompt: str, options: dict[str, object], error: type[Exception] | None, words: str
) -> None:
    if error is None:
        assert guidance([prompt], **options).at(0).positive
        return
    with pytest.raises(error, match=words):
        guidance([prompt], **options)


def test_embeddings_for_other_models() -> None:
    """A1111 takes their names for words, ComfyUI's prompts name them on purpose."""
    from lora_core.embeddings import EmbeddingFolders

    folders = EmbeddingFolders([prompt_cases.embeddings("sd2")])
    wide = {name: type(folders[name])(name, {"emb": torch.ones(2, 7)}) for name in folders}
    plain = guidance(["a loomstyle"]).at(0).positive[0][0][0].context
    assert torch.equal(guidance(["a loomstyle"], embeddings=wide).at(0).positive[0][0][0].context, plain)
    with pytest.raises(ConfigError, match="loomstyle"):
        guidance(["a embedding:loomstyle"], arithmetic="comfyui", embeddings=wide)


def test_gradients_and_hooks_are_left_as_they_were() -> None:
    encoder = prompt_cases.models("sd15").text_encoders[0]
    folder = prompt_cases.options("a1111", "sd15", prompt_cases.Case("")).embeddings
    with_embedding = guidance(["loomstyle"], embeddings=folder).at(0).positive[0][0][0].context
    without = guidance(["loomstyle"]).at(0).positive[0][0][0].context
    assert not torch.allclose(with_embedding, without)
    assert not encoder.get_input_embeddings()._forward_hooks
