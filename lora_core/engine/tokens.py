"""CLIP's byte-pair tokenizer (Radford et al. 2021), from the vocabulary that ships with the package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lora_core.errors import EngineMissing
from lora_core.prompt_a1111 import segments

BOS, EOS = 49406, 49407
FIRST_NEW, PRIVATE = 49408, 0xF0000
CHUNK = 75
VOCABULARY = Path(__file__).parent.parent / "assets" / "clip"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """The tokenizer without special tokens; the same ids as transformers' CLIPTokenizerFast."""
    try:
        import tokenizers
    except ImportError as error:
        raise EngineMissing(f"The package tokenizers cannot be imported: {error}.") from error
    files = str(VOCABULARY / "vocab.json"), str(VOCABULARY / "merges.txt")
    t: Any = tokenizers  # its stubs lack half of its interface
    model = t.models.BPE.from_file(
        *files, unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>"
    )
    made = t.Tokenizer(model)
    made.normalizer = t.normalizers.Sequence(
        [t.normalizers.NFC(), t.normalizers.Replace(t.Regex(r"\s+"), " "), t.normalizers.Lowercase()]
    )
    made.pre_tokenizer = t.pre_tokenizers.Sequence(
        [
            t.pre_tokenizers.Split(t.Regex(PATTERN), behavior="removed", invert=True),
            t.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return made


def token_ids(text: str) -> list[int]:
    """The ids of a text, without begin and end, of any length.

    Private characters from U+F0000 on are new tokens, with ids behind the vocabulary.
    """
    if max(text, default="") < chr(PRIVATE):
        return tokenizer().encode(text, add_special_tokens=False).ids
    parts = re.split(f"([{chr(PRIVATE)}-{chr(PRIVATE + 0xFFF)}])", text)
    known = [[FIRST_NEW + ord(part) - PRIVATE] if n % 2 else token_ids(part) for n, part in enumerate(parts)]
    return [token for tokens in known for token in tokens]


def chunks_needed(texts: Sequence[str]) -> int:
    """How many chunks of 75 tokens the longest of the texts takes; at least one."""
    return max([1, *(-(-len(token_ids(text)) // CHUNK) for text in texts)])


def tokenize(texts: Sequence[str], max_tokens: int = CHUNK, pad: str = "eos") -> torch.Tensor:
    """Ids [n, max_tokens / 75, 77]: each chunk is BOS, up to 75 tokens, EOS, padding; what is longer is cut off.

    `pad`: "eos" as CLIP ViT-L (SD1, SDXL's first encoder), or "zero" as OpenCLIP (SD2, SDXL's second encoder).
    """
    rows = [_chunked(token_ids(text), max_tokens, (BOS, EOS), EOS if pad == "eos" else 0) for text in texts]
    return torch.tensor(rows, dtype=torch.long).reshape(len(texts), -1, CHUNK + 2)


def tokenize_weighted(
    texts: Sequence[str], max_tokens: int = CHUNK, pad: str = "eos"
) -> tuple[torch.Tensor, torch.Tensor]:
    """`tokenize` of texts with (words:1.2), each stretch by itself, and the weight of each token [n, chunks, 77]."""
    ids: list[list[int]] = []
    weights: list[list[float]] = []
    for text in texts:
        stretches = [(token_ids(s.text), s.weight) for s in segments(text) if not s.new_chunk]
        found = [(token, weight) for tokens, weight in stretches for token in tokens]
        ids.append(_chunked([token for token, _ in found], max_tokens, (BOS, EOS), EOS if pad == "eos" else 0))
        weights.append(_chunked([weight for _, weight in found], max_tokens, (1.0, 1.0), 1.0))
    shape = (len(texts), -1, CHUNK + 2)
    return torch.tensor(ids, dtype=torch.long).reshape(shape), torch.tensor(weights).reshape(shape)


def _chunked(values: list[Any], max_tokens: int, marks: tuple[Any, Any], fill: Any) -> list[Any]:
    """Chunks of 75 between two marks, filled up, one after the other."""
    row: list[Any] = []
    for start in range(0, max_tokens, CHUNK):
        part = [marks[0], *values[start : min(start + CHUNK, max_tokens)], marks[1]]
        row += part + [fill] * (CHUNK + 2 - len(part))
    return row
