"""Pre-train the demo base's text encoder without pictures: its last positions must tell every attribute of a caption.

Real CLIP learns that from pictures; the tags of the demo world name the attributes, so a few minutes suffice here.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from course import course
from modules import pad, text_encoder, tokenizer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizerFast
from world import UNSAID, WORDS, WORK, attributes, caption

STEPS = 2500
BATCH = 48
RATE = 1e-3


def noise_words(clip: CLIPTokenizerFast) -> list[str]:
    """Whole words of the vocabulary, to stand for words that mean nothing in the demo world."""
    words = [w.removesuffix("</w>") for w in clip.get_vocab() if w.endswith("</w>")]
    return sorted(w for w in words if w.isascii() and w.isalpha() and len(w) > 2)


def batch(rows: list[dict[str, str]], words: list[str], rng: np.random.Generator) -> tuple[list[str], torch.Tensor]:
    """Captions and the index of what each says of each attribute [b, attributes]."""
    texts, labels = [], []
    for row in (rows[i] for i in rng.integers(len(rows), size=BATCH)):
        text, said = caption(row, rng, words)
        texts.append(text)
        labels.append([[UNSAID, *WORDS[name]].index(said[name]) for name in WORDS])
    return texts, torch.tensor(labels)


def told(model: nn.Module, heads: nn.ModuleList, ids: torch.Tensor, whole: bool) -> list[torch.Tensor]:
    """Each attribute's logits at the last padding position and at the end token [2, b, values]."""
    end = (ids != 49407).sum(1)
    hidden = model(ids if whole else ids[:, : int(end.max()) + 6]).last_hidden_state
    spots = torch.stack([hidden[:, -1], hidden[torch.arange(len(ids)), end]])
    return [head(spots) for head in heads]


def train(model: nn.Module, heads: nn.ModuleList, clip: CLIPTokenizerFast, minutes: float) -> None:
    rng, rows, words = np.random.default_rng(0), attributes(), noise_words(clip)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=RATE, weight_decay=0.01)
    for step in course(optimizer, STEPS, minutes, warmup=100):
        texts, labels = batch(rows, words, rng)
        ids = pad(clip(texts, truncation=True, max_length=77).input_ids)
        logits = told(model, heads, ids, whole=step % 4 == 0)
        losses = [nn.functional.cross_entropy(x.flatten(0, 1), labels[:, i].repeat(2)) for i, x in enumerate(logits)]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            right = [(x[0].argmax(1) == labels[:, i]).float().mean() for i, x in enumerate(logits)]
            print(f"text {step} loss {loss.item():.4f} right {torch.stack(right).mean():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--resume", action="store_true", help="go on with the saved weights")
    options = parser.parse_args()
    torch.manual_seed(0)
    clip, model = tokenizer(), text_encoder()
    if options.resume:
        model.load_state_dict(load_file(WORK / "text_encoder.safetensors"))
    heads = nn.ModuleList(nn.Linear(64, len(words) + 1) for words in WORDS.values())
    train(model, heads, clip, options.minutes)
    save_file(model.state_dict(), WORK / "text_encoder.safetensors")


if __name__ == "__main__":
    main()
