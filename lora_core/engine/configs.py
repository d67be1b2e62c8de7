"""From an Architecture to the constructor arguments of diffusers' and transformers' modules."""

from __future__ import annotations

from typing import Any

from lora_core.engine.tokens import BOS, EOS
from lora_core.errors import KeyMismatch
from lora_core.shapes import Architecture, TextEncoderShape, VaeShape

SIZE_NUMBERS = 6


def unet_config(arch: Architecture) -> dict[str, Any]:
    """Arguments of UNet2DConditionModel. (diffusers calls the number of heads `attention_head_dim`.)"""
    u = arch.unet
    attends = [depth > 0 for depth in u.transformer_depth]
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    depths = [max(depth, 1) for depth in u.transformer_depth]
    if attends[-1] and depths[-1] != u.mid_depth:
        raise KeyMismatch(f"The middle of this UNet has {u.mid_depth} transformer blocks, its last level {depths[-1]}.")
    depths[-1] = u.mid_depth
    return {
        "in_channels": u.in_channels,
        "out_channels": u.out_channels,
        "block_out_channels": u.block_out_channels,
        "layers_per_block": u.layers_per_block,
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "transformer_layers_per_block": tuple(depths),
        "cross_attention_dim": u.context_dim,
        "attention_head_dim": u.heads,
        "use_linear_projection": u.linear_projection,
        "norm_num_groups": u.norm_groups,
        **_size_conditioning(arch),
    }


def _size_conditioning(arch: Architecture) -> dict[str, Any]:
    """SDXL adds pooled text and six size numbers, each as a sinusoid, to the time embedding."""
    width = arch.unet.label_channels
    if width is None:
        return {}
    pooled = arch.text_encoders[-1].projection if arch.text_encoders else None
    each = (width - pooled) // SIZE_NUMBERS if pooled else 256
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": each,
        "projection_class_embeddings_input_dim": width,
    }


def text_config(shape: TextEncoderShape) -> dict[str, Any]:
    """Arguments of CLIPTextConfig."""
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.positions,
        "hidden_act": shape.activation,
        "projection_dim": shape.projection or shape.width,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }


def vae_config(shape: VaeShape) -> dict[str, Any]:
    """Arguments of AutoencoderKL."""
    levels = len(shape.block_out_channels)
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": shape.block_out_channels,
        "layers_per_block": shape.layers_per_block,
        "latent_channels": shape.latent_channels,
        "norm_num_groups": shape.norm_groups,
        "scaling_factor": shape.scaling_factor,
    }
