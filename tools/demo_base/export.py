"""Write the trained parts as one LDM-layout (CompVis SD1) checkpoint in fp16: `python export.py [OUT]`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from world import WORK

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_core.families import reference
from lora_core.keys import TensorKey, checkpoint_tensors
from lora_core.shapes import Architecture
from lora_core.tensors import write_tensors

METADATA = {
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.title": "LoRA Loom demo base",
    "modelspec.license": "CC0-1.0",
    "modelspec.description": "A small SD1 model trained from scratch on portraits of @dicebear/pixel-art (CC0 1.0).",
    "modelspec.resolution": "128x128",
    "modelspec.prediction_type": "epsilon",
    "format": "pt",
}


def architecture() -> Architecture:
    """SD1.x at the demo base's widths."""
    sd1 = reference("sd1")
    text = replace(sd1.text_encoders[0], width=64, heads=1, intermediate=256)
    unet = replace(sd1.unet, block_out_channels=(64, 96, 128, 128), context_dim=64)
    vae = replace(sd1.vae, block_out_channels=(12, 24, 24, 48), norm_groups=4)  # type: ignore[type-var]
    return replace(sd1, unet=unet, text_encoders=(text,), vae=vae)


def stored(tensor: torch.Tensor, key: TensorKey) -> torch.Tensor:
    """A module's tensor as the checkpoint holds it."""
    if key.transform == "squeeze":
        tensor = tensor[..., None, None]
    return tensor.half().contiguous()


def collect() -> dict[str, torch.Tensor]:
    arch = architecture()
    tensors = {f"{arch.prefix('text_encoder')}embeddings.position_ids": torch.arange(77)[None]}
    for component in arch.components:
        state = load_file(WORK / f"{component}.safetensors")
        for key in checkpoint_tensors(arch, component):
            name = key.name if key.name in state else f"text_model.{key.name}"
            tensors[key.source] = stored(state.pop(name), key)
        if state:
            raise SystemExit(f"{component}: tensors without a place: {sorted(state)[:5]}")
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=WORK / "demo_base.safetensors")
    out = parser.parse_args().out
    write_tensors(out, collect(), METADATA)
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
