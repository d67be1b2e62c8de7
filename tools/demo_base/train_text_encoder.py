"""Pre-train the demo base's text encoder without pictures: its last positions must tell every attribute of a caption.

Real CLIP learns that from pictures; the tags of the demo world name the attributes, so a few minutes suffice here.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from modules import pad, text_encoder, tokenizer
from safetensors.torch import load_file, save_file
from torch import nn
from world import UNSAID, WORDS, WORK, attributes, caption

STEPS = 2500
BATCH = 48


def noise_words(clip: object) -> list[str]:
    """Whole words of the vocabulary, to stand for words that mean nothing in the demo world."""
    vocabulary = clip.get_vocab()  # type: ignore[attr-defined]
    words = [w.removesuffix("</w>") for w in vocabulary if w.endswith("</w>")]
    return sorted(w for w in words if w.isascii() and w.isalpha() and len(w) > 2)


def batch(rows: list[dict[str, str]], words: list[str], rng: np.random.Generator) -> tuple[list[str], torch.Tensor]:
    """Captions and the index of what each says of each attribute [b, attributes]."""
    texts, labels = [], []
    for row in (rows[i] for i in rng.integers(len(rows), size=BATCH)):
        text, said = caption(row, rng, words)
        texts.append(text)
        labels.append([[UNSAID, *WORDS[name]].index(said[name]) for name in WORDS])
    return texts, torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--resume", action="store_true", help="go on with the saved weights")
    options = parser.parse_args()
    limit = options.minutes * 60
    torch.manual_seed(0)
    rng, clip, model = np.random.default_rng(0), tokenizer(), text_encoder()
    if options.resume:
        model.load_state_dict(load_file(WORK / "text_encoder.safetensors"))
    heads = nn.ModuleList(nn.Linear(64, len(words) + 1) for words in WORDS.values())
    rows, words = attributes(), noise_words(clip)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=0.01)
    began = time.monotonic()
    for step in range(STEPS):
        part = max(step / STEPS, (time.monotonic() - began) / limit)
        if part >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * (1 + np.cos(np.pi * part)) / 2)
        texts, labels = batch(rows, words, rng)
        ids = pad(clip(texts, truncation=True, max_length=77).input_ids)
        longest = int((ids != 49407).sum(1).max()) + 6
        hidden = model(ids[:, :longest] if step % 4 else ids).last_hidden_state
        spots = torch.stack([hidden[:, -1], hidden[torch.arange(len(ids)), (ids != 49407).sum(1)]])
        losses = [nn.functional.cross_entropy(h(spots).flatten(0, 1), labels[:, i].repeat(2)) for i, h in enumerate(heads)]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            right = [(h(spots[0]).argmax(1) == labels[:, i]).float().mean() for i, h in enumerate(heads)]
            took = time.monotonic() - began
            print(f"text {step} loss {loss.item():.4f} right {torch.stack(right).mean():.3f} {took:.0f} s", flush=True)
    save_file(model.state_dict(), WORK / "text_encoder.safetensors")
    print("text encoder done")


if __name__ == "__main__":
    main()
