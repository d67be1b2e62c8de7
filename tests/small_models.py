"""Narrow models of SD1.x's topology with random weights that the real A1111 loads: checkpoint, config and hub cache.

A1111 takes a checkpoint's widths from the .yaml of the same name beside it, and the text encoder's from the hub cache.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

WIDTH, CONTEXT, VAE_WIDTH = 32, 64, 32
CLIP = "openai--clip-vit-large-patch14"
CLIP_CONFIG = {
    "model_type": "clip",
    "projection_dim": CONTEXT,
    "text_config": {
        "hidden_size": CONTEXT,
        "intermediate_size": 4 * CONTEXT,
        "num_hidden_layers": 3,
        "num_attention_heads": 1,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
}


def write_small_model(folder: Path, inpainting: bool = False, seed: int = 0) -> Path:
    """NAME.safetensors and NAME.yaml in `folder`; `inpainting`: with 9 input channels."""
    from random_checkpoint import write_architecture

    from lora_core.shapes import Architecture, TextEncoderShape, UNetShape, VaeShape

    channels = 9 if inpainting else 4
    widths = tuple(WIDTH * m for m in (1, 2, 4, 4))
    unet = UNetShape(channels, 4, widths, 2, (1, 1, 1, 0), 1, CONTEXT, (8, 8, 8, 8), False)
    vae = VaeShape(tuple(VAE_WIDTH * m for m in (1, 2, 2, 2)), 4, 2, 32, 0.18215)
    text = TextEncoderShape(CONTEXT, 3, 1, 4 * CONTEXT, 49408, 77, "quick_gelu")
    prefixes = (
        ("unet", "model.diffusion_model."),
        ("text_encoder", "cond_stage_model.transformer.text_model."),
        ("vae", "first_stage_model."),
    )
    arch = Architecture("sd1", "ldm", "epsilon", False, inpainting, unet, (text,), vae, prefixes)
    path = folder / f"small{'_inpainting' if inpainting else ''}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    write_architecture(arch, path, seed, path.stem)
    path.with_suffix(".yaml").write_text(json.dumps(_config(channels)))  # JSON is YAML
    return path


def write_small_sdxl(folder: Path, seed: int = 0) -> Path:
    """SDXL's topology in small: NAME.safetensors. Its second encoder is OpenCLIP's ViT-S-16-alt, the smallest there."""
    from random_checkpoint import write_architecture

    from lora_core.families import TEXT_PREFIXES
    from lora_core.shapes import Architecture, TextEncoderShape, UNetShape, VaeShape

    first = TextEncoderShape(CONTEXT, 3, 1, 4 * CONTEXT, 49408, 77, "quick_gelu")
    second = TextEncoderShape(256, 10, 4, 1024, 49408, 77, "gelu", 256)
    widths, contexts = tuple(WIDTH * m for m in (1, 2, 4)), CONTEXT + 256
    unet = UNetShape(4, 4, widths, 2, (0, 2, 10), 10, contexts, (1, 1, 2), True, 256 + 6 * 256)
    vae = VaeShape(tuple(VAE_WIDTH * m for m in (1, 2, 2, 2)), 4, 2, 32, 0.13025)
    prefixes = (("unet", "model.diffusion_model."), *TEXT_PREFIXES["sdxl"], ("vae", "first_stage_model."))
    arch = Architecture("sdxl", "ldm", "epsilon", False, False, unet, (first, second), vae, prefixes)
    folder.mkdir(parents=True, exist_ok=True)
    write_architecture(arch, folder / "small_sdxl.safetensors", seed, "small SDXL")
    return folder / "small_sdxl.safetensors"


SDXL_LIKE_A1111 = {  # what differs from A1111's own configuration of SDXL
    "model_channels: 320": f"model_channels: {WIDTH}",
    "adm_in_channels: 2816": "adm_in_channels: 1792",
    "context_dim: 2048": f"context_dim: {CONTEXT + 256}",
    "layer_idx: 11": "layer_idx: 2",
    "arch: ViT-bigG-14": "arch: ViT-S-16-alt",
    "ch: 128": f"ch: {VAE_WIDTH}",
    "ch_mult: [1, 2, 4, 4]": "ch_mult: [1, 2, 2, 2]",
}
SDXL_LIKE_COMFYUI = {
    "kind": "sdxl",
    "unet": {"model_channels": WIDTH, "context_dim": CONTEXT + 256, "adm_in_channels": 1792},
    "encoders": [
        {"hidden_size": w, "intermediate_size": 4 * w, "num_attention_heads": w // 64, "num_hidden_layers": n}
        for w, n in ((CONTEXT, 3), (256, 10))
    ],
    "vae": VAE_WIDTH,
}


def _config(channels: int) -> dict[str, object]:
    unet = {
        "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "params": {
            "image_size": 32,
            "in_channels": channels,
            "out_channels": 4,
            "model_channels": WIDTH,
            "attention_resolutions": [4, 2, 1],
            "num_res_blocks": 2,
            "channel_mult": [1, 2, 4, 4],
            "num_heads": 8,
            "use_spatial_transformer": True,
            "transformer_depth": 1,
            "context_dim": CONTEXT,
            "use_checkpoint": False,
            "legacy": False,
        },
    }
    first = {
        "target": "ldm.models.autoencoder.AutoencoderKL",
        "params": {
            "embed_dim": 4,
            "monitor": "val/rec_loss",
            "ddconfig": {
                "double_z": True,
                "z_channels": 4,
                "resolution": 256,
                "in_channels": 3,
                "out_ch": 3,
                "ch": VAE_WIDTH,
                "ch_mult": [1, 2, 2, 2],
                "num_res_blocks": 2,
                "attn_resolutions": [],
                "dropout": 0.0,
            },
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }
    name = "LatentDiffusion" if channels == 4 else "LatentInpaintDiffusion"
    params = {
        "linear_start": 0.00085,
        "linear_end": 0.0120,
        "timesteps": 1000,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "conditioning_key": "crossattn" if channels == 4 else "hybrid",
        "monitor": "val/loss_simple_ema",
        "scale_factor": 0.18215,
        "unet_config": unet,
        "first_stage_config": first,
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"},
    }
    if channels == 9:
        params["finetune_keys"] = None
    return {"model": {"target": f"ldm.models.diffusion.ddpm.{name}", "params": params}}


def write_small_hub(home: Path) -> None:
    """A hub cache whose CLIP has the small models' width, with the vocabulary that we ship."""
    snapshot = home / "hub" / f"models--{CLIP}" / "snapshots" / "local"
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(ROOT / "lora_core" / "assets" / "clip" / file, snapshot)
    (snapshot / "config.json").write_text(json.dumps(CLIP_CONFIG))
    (snapshot / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
    (snapshot.parents[1] / "refs" / "main").write_text("local")
