"""The demo base's modules: SD1.5's topology at small width."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

CLIP = Path(__file__).parents[2] / "lora_core" / "assets" / "clip"
SCALE = 0.18215


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(12, 24, 24, 48), layers_per_block=2, latent_channels=4, norm_num_groups=4,
        scaling_factor=SCALE,
    )  # fmt: skip


def text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=12, num_attention_heads=1, vocab_size=49408,
            hidden_act="quick_gelu", max_position_embeddings=77,
        )
    )  # fmt: skip


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(64, 96, 128, 128), layers_per_block=2, cross_attention_dim=64, attention_head_dim=8,
    )  # fmt: skip


def tokenizer() -> CLIPTokenizerFast:
    return CLIPTokenizerFast(str(CLIP / "vocab.json"), str(CLIP / "merges.txt"), model_max_length=77)


def tokens(clip: CLIPTokenizerFast, texts: list[str]) -> torch.Tensor:
    """[n, 77] ids, padded with the end token as SD1 does."""
    return pad(clip(texts, truncation=True, max_length=77).input_ids)


def pad(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor([row + [49407] * (77 - len(row)) for row in rows])


def alphas_bar() -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()
