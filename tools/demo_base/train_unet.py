"""Train the demo base's UNet on cached latents: epsilon, SD's scaled-linear schedule, caption dropout, min-SNR, EMA."""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from modules import alphas_bar, pad, text_encoder, tokenizer, unet
from safetensors.torch import load_file, save_file
from train_text_encoder import noise_words
from world import WORK, attributes, caption

BATCH = 16
RATE = 8e-4
DROPOUT = 0.1


class Captions:
    """Draws captions and encodes them with the frozen text encoder."""

    def __init__(self, seed: int) -> None:
        self.rng, self.clip, self.rows = np.random.default_rng(seed), tokenizer(), attributes()
        self.words = noise_words(self.clip)
        self.encoder = text_encoder().eval().requires_grad_(False)
        self.encoder.load_state_dict(load_file(WORK / "text_encoder.safetensors"))

    @torch.no_grad()
    def __call__(self, picked: np.ndarray) -> torch.Tensor:
        drawn = [caption(self.rows[i], self.rng, self.words)[0] for i in picked]
        texts = ["" if self.rng.random() < DROPOUT else text for text in drawn]
        return self.encoder(pad(self.clip(texts, truncation=True, max_length=77).input_ids)).last_hidden_state


def loss_of(model: torch.nn.Module, x: torch.Tensor, context: torch.Tensor, bar: torch.Tensor) -> torch.Tensor:
    """Min-SNR-5 weighted epsilon error of a batch [b, 4, 16, 16]."""
    t = torch.randint(0, 1000, (len(x),))
    a = bar[t]
    noise = torch.randn_like(x)
    noisy = a.sqrt()[:, None, None, None] * x + (1 - a).sqrt()[:, None, None, None] * noise
    out = model(noisy.contiguous(memory_format=torch.channels_last), t, context, return_dict=False)[0]
    snr = a / (1 - a)
    return ((out - noise).square().mean((1, 2, 3)) * snr.clamp(max=5) / snr).mean()


def rate(step: int, part: float) -> float:
    return RATE * min(1, (step + 1) / 200) * (0.01 + 0.99 * (1 + np.cos(np.pi * part)) / 2)


def save(model: torch.nn.Module, path: Path) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=85)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    latents = load_file(WORK / "latents.safetensors")["latents"].float()
    model = unet().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    old, new = list(average.parameters()), list(model.parameters())
    run = torch.compile(model) if options.compile else model
    captions, bar, rng = Captions(0), alphas_bar(), np.random.default_rng(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    began, saved, mean = time.monotonic(), 0.0, 1.0
    for step in range(options.steps):
        took = time.monotonic() - began
        part = max(step / options.steps, took / options.minutes / 60)
        if part >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(step, part)
        picked = rng.integers(len(latents), size=BATCH)
        loss = loss_of(run, latents[picked], captions(picked), bar)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(old, new, 1 - decay)
        mean += (loss.item() - mean) * max(0.01, 1 / (step + 1))
        if step % 50 == 0:
            print(f"unet {step} loss {mean:.4f} {took:.0f} s", flush=True)
        if took - saved > options.save_minutes * 60:
            saved = took
            save(average, WORK / "unet.safetensors")
    save(average, WORK / "unet.safetensors")
    print("unet done", flush=True)


if __name__ == "__main__":
    main()
