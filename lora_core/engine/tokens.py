"""CLIP's byte-pair tokenizer (Radford et al. 2021), from the vocabulary that ships with the package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lora_core.errors import EngineMissing

BOS, EOS = 49406, 49407
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
    """The ids of a text, without begin and end, of any length."""
    return tokenizer().encode(text, add_special_tokens=False).ids


def chunks_needed(texts: Sequence[str]) -> int:
    """How many chunks of 75 tokens the longest of the texts takes; at least one."""
    return max([1, *(-(-len(token_ids(text)) // CHUNK) for text in texts)])


def tokenize(texts: Sequence[str], max_tokens: int = CHUNK, pad: str = "eos") -> torch.Tensor:
    """Ids [n, max_tokens / 75, 77]: each chunk is BOS, up to 75 tokens, EOS, padding; what is longer is cut off.

    `pad`: "eos" as CLIP ViT-L (SD1, SDXL's first encoder), or "zero" as OpenCLIP (SD2, SDXL's second encoder).
    """
    fill = EOS if pad == "eos" else 0
    rows: list[list[int]] = []
    for text in texts:
        ids = token_ids(text)[:max_tokens]
        for start in range(0, max_tokens, CHUNK):
            part = [BOS, *ids[start : start + CHUNK], EOS]
            rows.append(part + [fill] * (CHUNK + 2 - len(part)))
    return torch.tensor(rows, dtype=torch.long).reshape(len(texts), max_tokens // CHUNK, CHUNK + 2)
