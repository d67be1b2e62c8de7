"""The doctor's look at the engine from inside a child: versions, device, arithmetic, memory, and a tiny base to try."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from lora_core.engine.device import DTYPES, pick_device, pick_dtype
from lora_core.overlay import ENGINE

GB = 1024**3
UNET: dict[str, Any] = {
    "block_out_channels": (32, 64, 96, 96),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 12,
    "num_attention_heads": 1,
}
VAE: dict[str, Any] = {
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 16,
}


def main(folder: str) -> None:
    """Write the findings as JSON lines to stdout, and a tiny base and pictures into `folder`."""
    for name, text in (
        ("packages", packages()),
        ("device", device()),
        ("precision", precision()),
        ("memory", memory()),
    ):
        sys.stdout.write(json.dumps({"name": name, "ok": True, "text": text}) + "\n")
    write_tiny_base(Path(folder) / "base")
    write_pictures(Path(folder) / "pictures")


def packages() -> str:
    """The versions that this child really imports."""
    found = {p.name: importlib.import_module(p.imported_as) for p in ENGINE}
    return "the child imports " + ", ".join(f"{name} {module.__version__}" for name, module in found.items()) + "."


def device() -> str:
    where = pick_device("auto")
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__} on {where} ({name})."


def precision() -> str:
    """Which number formats the device multiplies, by doing it."""
    where = pick_device("auto")
    chosen = next(name for name, dtype in DTYPES.items() if dtype == pick_dtype("auto", where))
    return f"{', '.join(working(where))} work; auto takes {chosen}."


def working(where: torch.device) -> Iterator[str]:
    for name, dtype in DTYPES.items():
        try:
            square = torch.ones(8, 8, device=where, dtype=dtype)
            if bool(torch.isfinite(square @ square).all()):
                yield name
        except RuntimeError:
            continue


def memory() -> str:
    import psutil

    main_memory = psutil.virtual_memory()
    text = f"{main_memory.available / GB:.1f} of {main_memory.total / GB:.1f} GB free"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        text += f"; on the device {free / GB:.1f} of {total / GB:.1f} GB"
    return text + "."


def write_tiny_base(folder: Path) -> None:
    """A diffusers folder with SD1's topology and random weights, 10 MB."""
    torch.manual_seed(0)
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)).save_pretrained(folder / "text_encoder")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")


def write_pictures(folder: Path) -> None:
    """Two pictures of noise, 64 x 64."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"noise {index}", "utf-8")
