"""Train the demo base's UNet on cached latents: epsilon, SD's scaled-linear schedule, caption dropout, min-SNR, EMA."""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import torch
from course import course
from modules import alphas_bar, pad, text_encoder, tokenizer, unet
from safetensors.torch import load_file, save_file
from torch import nn
from train_text_encoder import noise_words
from world import WORK, attributes, caption

BATCH = 16
RATE = 8e-4
DROPOUT = 0.1
DECAY = 0.999


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


def timesteps(count: int, second: bool) -> torch.Tensor:
    """Uniform; in the second round the later of two draws, because the late ones decide the colours of large areas."""
    draws = torch.randint(0, 1000, (2, count))
    return draws.amax(0) if second else draws[0]


def loss_of(
    model: nn.Module, x: torch.Tensor, context: torch.Tensor, bar: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """Min-SNR-5 weighted epsilon error of a batch [b, 4, 16, 16] at timesteps [b]."""
    a = bar[t]
    noise = torch.randn_like(x)
    noisy = a.sqrt()[:, None, None, None] * x + (1 - a).sqrt()[:, None, None, None] * noise
    out = model(noisy.contiguous(memory_format=torch.channels_last), t, context, return_dict=False)[0]
    snr = a / (1 - a)
    return ((out - noise).square().mean((1, 2, 3)) * snr.clamp(max=5) / snr).mean()


def save(model: nn.Module) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, WORK / "unet.safetensors")


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int) -> None:
    """One step of the exponential moving average."""
    decay = min(DECAY, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def train(model: nn.Module, average: nn.Module, options: argparse.Namespace) -> None:
    latents = load_file(WORK / "latents.safetensors")["latents"].float()
    run = torch.compile(model) if options.compile else model
    seed = 2 if options.second else 0
    captions, bar, rng = Captions(seed), alphas_bar(), np.random.default_rng(seed + 1)
    rate = RATE / 2 if options.second else RATE
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
    saved, mean = time.monotonic(), 1.0
    for step in course(optimizer, options.steps, options.minutes, warmup=200):
        picked = rng.integers(len(latents), size=BATCH)
        loss = loss_of(run, latents[picked], captions(picked), bar, timesteps(BATCH, options.second))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        follow(average, model, step)
        mean += (loss.item() - mean) * max(0.01, 1 / (step + 1))
        if step % 50 == 0:
            print(f"{time.strftime('%H:%M:%S')} unet {step} loss {mean:.4f}", flush=True)
        if time.monotonic() - saved > options.save_minutes * 60:
            saved = time.monotonic()
            save(average)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--second", action="store_true", help="go on from the saved UNet at half the rate")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; takes minutes to begin")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = unet().to(memory_format=torch.channels_last)
    if options.second:
        model.load_state_dict(load_file(WORK / "unet.safetensors"))
    average = copy.deepcopy(model).requires_grad_(False)
    train(model, average, options)
    save(average)


if __name__ == "__main__":
    main()
