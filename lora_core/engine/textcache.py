"""Text encoder outputs of captions that never change, computed once and kept on disk."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lora_core.engine.cache import TensorCache
from lora_core.engine.conditioning import TextRules, live_encoder, to_cpu
from lora_core.engine.epochs import Dataset
from lora_core.engine.prompt import Conditioning


def cached_outputs(
    rules: TextRules, dataset: Dataset, mark: str, load: Callable[[], tuple[nn.Module, ...]], folder: Path
) -> dict[str, Conditioning]:
    """Conditioning of every caption of a dataset with fixed captions; encoders are loaded only when one is missing.

    `mark` names the encoders' weights and precision.
    """
    cache = TensorCache(folder)
    texts = all_captions(dataset)
    keys = {text: caption_key(text, rules, mark) for text in texts}
    found = {text: cache.get(key) for text, key in keys.items()}
    missing = [text for text, tensors in found.items() if tensors is None]
    known = {text: from_tensors(tensors) for text, tensors in found.items() if tensors is not None}
    if missing:
        encode = live_encoder(load(), rules)
        for text in missing:
            with torch.no_grad():
                known[text] = to_cpu(encode([text]))
            cache.put(keys[text], to_tensors(known[text]))
        gc.collect()
    return known


def all_captions(dataset: Dataset) -> list[str]:
    items = [item for batch in dataset.epoch(0) for item in batch.items]
    items += [item for batch in dataset.held_out_batches() for item in batch.items]
    return sorted({dataset.caption(item, 0) for item in items})


def caption_key(text: str, rules: TextRules, mark: str) -> str:
    parts = (text, rules.clip_skip, rules.max_tokens, rules.architecture.family, mark)
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def to_tensors(text: Conditioning) -> dict[str, torch.Tensor]:
    tensors = {"context": text.context}
    return tensors if text.pooled is None else tensors | {"pooled": text.pooled}


def from_tensors(tensors: dict[str, torch.Tensor]) -> Conditioning:
    return Conditioning(tensors["context"], tensors.get("pooled"))
