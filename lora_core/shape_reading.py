"""The numbers of each component, read from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

from lora_core.errors import FileError, KeyMismatch
from lora_core.shapes import TEXT_ENCODER_2, TextEncoderShape, UNetShape, VaeShape, group_count, head_count

Shapes = Mapping[str, tuple[int, ...]]
SCALING = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025, "sdxl_refiner": 0.13025}


def below(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {key[len(prefix) :]: tuple(shape) for key, shape in shapes.items() if key.startswith(prefix)}


def _count(shapes: Shapes, template: str) -> int:
    """How many of template.format(0), template.format(1), ... there are."""
    n = 0
    while template.format(n) in shapes:
        n += 1
    return n


def unet_from_ldm(s: Shapes) -> UNetShape:
    """The shape of a UNet in LDM names; a level ends at its `op` (downsampler)."""
    widths: list[int] = []
    depths: list[int] = []
    layers, index, new = 0, 1, True
    while any(key in s for key in (f"input_blocks.{index}.0.op.weight", f"input_blocks.{index}.0.in_layers.2.weight")):
        if f"input_blocks.{index}.0.op.weight" in s:
            new = True
        else:
            if new:
                widths.append(s[f"input_blocks.{index}.0.in_layers.2.weight"][0])
                depths.append(_count(s, f"input_blocks.{index}.1.transformer_blocks.{{}}.norm1.weight"))
            layers, new = layers + 1, False
        index += 1
    middle = "middle_block.1"
    ends = ("input_blocks.0.0", "out.2", "label_emb.0.0")
    return _unet_shape(s, (widths, depths, layers), middle, ends)


def unet_from_diffusers(s: Shapes) -> UNetShape:
    levels = _count(s, "down_blocks.{}.resnets.0.conv1.weight")
    widths = [s[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)]
    depths = [_count(s, f"down_blocks.{i}.attentions.0.transformer_blocks.{{}}.norm1.weight") for i in range(levels)]
    layers = sum(_count(s, f"down_blocks.{i}.resnets.{{}}.conv1.weight") for i in range(levels))
    ends = ("conv_in", "conv_out", "add_embedding.linear_1")
    return _unet_shape(s, (widths, depths, layers), "mid_block.attentions.0", ends)


def _unet_shape(
    s: Shapes, levels: tuple[list[int], list[int], int], middle: str, ends: tuple[str, str, str]
) -> UNetShape:
    widths, depths, layers = levels
    needed = (f"{middle}.proj_in.weight", f"{middle}.transformer_blocks.0.attn2.to_k.weight", f"{ends[1]}.weight")
    missing = [key for key in needed if key not in s]
    if missing or not widths:
        raise KeyMismatch(
            f"The UNet in this file is incomplete or of an unknown kind: {missing or ['levels']} missing."
        )
    label = s.get(f"{ends[2]}.weight")
    return UNetShape(
        in_channels=s[f"{ends[0]}.weight"][1],
        out_channels=s[needed[2]][0],
        block_out_channels=tuple(widths),
        layers_per_block=layers // len(widths),
        transformer_depth=tuple(depths),
        mid_depth=_count(s, f"{middle}.transformer_blocks.{{}}.norm1.weight"),
        context_dim=s[needed[1]][1],
        heads=(),
        linear_projection=len(s[needed[0]]) == 2,
        label_channels=label[1] if label else None,
        norm_groups=group_count(widths),
    )


def text_encoder_from(shapes: Shapes, prefix: str, family: str, name: str) -> TextEncoderShape:
    s = below(shapes, prefix)
    if "token_embedding.weight" in s:
        return _openclip_encoder(s, family)
    vocab, width = s["embeddings.token_embedding.weight"]
    projection = shapes.get(f"{prefix.removesuffix('text_model.')}text_projection.weight")
    gelu = family == "sd2" or name == TEXT_ENCODER_2
    return TextEncoderShape(
        width=width,
        layers=_count(s, "encoder.layers.{}.mlp.fc1.weight"),
        heads=head_count(width),
        intermediate=s["encoder.layers.0.mlp.fc1.weight"][0],
        vocab=vocab,
        positions=s["embeddings.position_embedding.weight"][0],
        activation="gelu" if gelu else "quick_gelu",
        projection=projection[0] if projection and name == TEXT_ENCODER_2 else None,
    )


def _openclip_encoder(s: Shapes, family: str) -> TextEncoderShape:
    """SD2 uses the penultimate layer, so its last block is not part of the model (unless it was already cut off)."""
    vocab, width = s["token_embedding.weight"]
    layers = _count(s, "transformer.resblocks.{}.mlp.c_fc.weight")
    projection = s.get("text_projection")
    if family == "sd2":
        layers, projection = layers - (projection is not None), None
    return TextEncoderShape(
        width=width,
        layers=layers,
        heads=head_count(width),
        intermediate=s["transformer.resblocks.0.mlp.c_fc.weight"][0],
        vocab=vocab,
        positions=s["positional_embedding"][0],
        activation="gelu",
        projection=projection[1] if projection else None,
    )


def vae_from(s: Shapes, layout: str, family: str) -> VaeShape | None:
    if "encoder.conv_in.weight" not in s or "decoder.conv_in.weight" not in s:
        return None
    level, block = ("down.{}.block", "0") if layout == "ldm" else ("down_blocks.{}.resnets", "0")
    count = _count(s, f"encoder.{level}.{block}.conv1.weight")
    widths = [s[f"encoder.{level.format(i)}.0.conv1.weight"][0] for i in range(count)]
    if not widths:
        raise KeyMismatch("The VAE in this file is incomplete: encoder blocks are missing.")
    return VaeShape(
        block_out_channels=tuple(widths),
        latent_channels=s["decoder.conv_in.weight"][1],
        layers_per_block=_count(s, f"encoder.{level.format(0)}.{{}}.conv1.weight"),
        norm_groups=group_count(widths),
        scaling_factor=SCALING[family],
    )


def detect_vae(shapes: Shapes, family: str) -> tuple[VaeShape, str, str]:
    """A VAE in a file of its own or in a checkpoint: its shape, the prefix of its tensors, and the layout."""
    for prefix in ("", "first_stage_model.", "vae."):
        s = below(shapes, prefix)
        for layout, mark in (("ldm", "encoder.down.0.block.0"), ("diffusers", "encoder.down_blocks.0.resnets.0")):
            if f"{mark}.conv1.weight" in s:
                vae = vae_from(s, layout, family)
                if vae is not None:
                    return vae, prefix, layout
    raise FileError("This file holds no VAE of Stable Diffusion (an encoder and a decoder for 4-channel latents).")
