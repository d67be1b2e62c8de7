"""Polish the demo base's VAE (L1 and a little KL) and scale its latents so that std * 0.18215 = 1."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from course import course
from diffusers import AutoencoderKL
from modules import SCALE, vae
from safetensors.torch import save_file
from vae_start import start
from world import WORK, enlarge, portraits, to_unit

STEPS = 1000
RATE = 5e-5


def recolour(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Half of the pictures in other colours, so that colours the portraits never show survive the VAE too."""
    b = len(x)
    mixed = torch.stack([row[torch.randperm(3, generator=g)] for row in x])
    gain, shift = (torch.rand(b, 3, 1, 1, generator=g) for _ in range(2))
    mixed = (mixed * (0.4 + 0.9 * gain) + (shift - 0.5)).clamp(-1, 1)
    keep = torch.rand(b, 1, 1, 1, generator=g) < 0.5
    return torch.where(keep, x, mixed)


def batch(cells: np.ndarray, size: int, count: int, g: torch.Generator) -> torch.Tensor:
    """Random crops of `size` cells, recoloured, as pixels."""
    rows = torch.randint(len(cells), (count,), generator=g).tolist()
    corners = torch.randint(0, 17 - size, (count, 2), generator=g).tolist()
    crops = np.stack([cells[r, y : y + size, x : x + size] for r, (y, x) in zip(rows, corners)])
    return enlarge(recolour(to_unit(crops), g)).contiguous(memory_format=torch.channels_last)


def polish(model: AutoencoderKL, cells: np.ndarray, minutes: float) -> None:
    """Crops first, whole pictures in the last part."""
    g = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4)
    for step in course(optimizer, STEPS, minutes, warmup=50):
        whole = step % 3 == 2
        x = batch(cells, 16 if whole else 8, 4 if whole else 8, g)
        posterior = model.encode(x).latent_dist
        out = model.decode(posterior.sample()).sample
        loss = (out - x).abs().mean() + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"vae {step} loss {loss.item():.4f}", flush=True)


def encode(model: AutoencoderKL, cells: np.ndarray) -> torch.Tensor:
    return model.encode(enlarge(to_unit(cells))).latent_dist.mean


@torch.no_grad()
def normalise(model: AutoencoderKL, cells: np.ndarray) -> None:
    """Give each latent channel mean 0 and std 1 (after 0.18215) inside the two 1x1 convolutions."""
    sample = encode(model, cells)
    spread, centre = sample.std((0, 2, 3)), sample.mean((0, 2, 3))
    factor = 1 / (SCALE * spread)
    model.post_quant_conv.bias += model.post_quant_conv.weight[:, :, 0, 0] @ centre
    model.post_quant_conv.weight /= factor[None, :, None, None]
    model.quant_conv.bias[:4] = (model.quant_conv.bias[:4] - centre) * factor  # rows 0-3: mean, 4-7: log variance
    model.quant_conv.bias[4:] += 2 * factor.log()
    model.quant_conv.weight[:4] *= factor[:, None, None, None]


@torch.no_grad()
def save(model: AutoencoderKL, cells: np.ndarray) -> None:
    """The VAE and the scaled latents of all portraits."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, WORK / "vae.safetensors")
    latents = torch.cat([encode(model, cells[i : i + 64]) for i in range(0, len(cells), 64)]) * SCALE
    save_file({"latents": latents.half().contiguous()}, WORK / "latents.safetensors")
    x = enlarge(to_unit(cells[:64]))
    error = (model.decode(encode(model, cells[:64])).sample - x).abs().mean().item() / 2
    print(f"vae: mean absolute error {error:.4f} of the full range, latent std {latents.std().item():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    minutes = parser.parse_args().minutes
    torch.manual_seed(0)
    cells, model = portraits(), vae()
    start(model)
    model.to(memory_format=torch.channels_last)
    polish(model, cells, minutes)
    normalise(model, cells[:256])
    save(model, cells)


if __name__ == "__main__":
    main()
