"""Text encoder outputs of captions that never change, computed once and kept on disk."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch
from torch import nn

from lora_core.engine.cache import TensorCache
from lora_core.engine.conditioning import Encode, TextRules, live_encoder, stack, to_cpu
from lora_core.engine.epochs import Dataset, Item
from lora_core.engine.prompt import Conditioning
from lora_core.errors import FileError
from lora_core.events import Event, Progress


def cached_encoder(
    rules: TextRules, dataset: Dataset, mark: str, load: Callable[[], tuple[nn.Module, ...]], folder: Path
) -> Generator[Event, None, Encode]:
    """Looks up the conditioning of a dataset's fixed captions; the encoders are loaded only when one is missing.

    `mark` names the encoders' weights and precision. Of many captions, those used lately stay in memory.
    """
    cache = TensorCache(folder)
    texts = all_captions(dataset)
    missing = [text for text in texts if cache.get(caption_key(text, rules, mark)) is None]
    if missing:
        live = live_encoder(load(), rules)
        for done, text in enumerate(missing, 1):
            with torch.no_grad():
                cache.put(caption_key(text, rules, mark), to_tensors(to_cpu(live([text]))))
            yield Progress(done, len(missing), None, "caption")
        del live
        gc.collect()

    def encode(wanted: Sequence[str]) -> Conditioning:
        found = [cache.get(caption_key(text, rules, mark)) for text in wanted]
        kept = [from_tensors(tensors) for tensors in found if tensors is not None]
        if len(kept) < len(wanted):
            raise FileError(f"The cache in {folder} was changed while it was in use; start the training again.")
        return stack(kept)

    return encode


def all_captions(dataset: Dataset) -> list[str]:
    items = [Item(place) for place in range(len(dataset.pictures))]
    items += [item for batch in dataset.held_out_batches() for item in batch.items]
    return sorted({dataset.caption(item, 0) for item in items})


def caption_key(text: str, rules: TextRules, mark: str) -> str:
    parts = (text, rules.clip_skip, rules.max_tokens, rules.architecture.family, mark)
    parts += ("weighted",) * rules.weighted
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def to_tensors(text: Conditioning) -> dict[str, torch.Tensor]:
    tensors = {"context": text.context}
    return tensors if text.pooled is None else tensors | {"pooled": text.pooled}


def from_tensors(tensors: dict[str, torch.Tensor]) -> Conditioning:
    return Conditioning(tensors["context"], tensors.get("pooled"))
