"""The modules of an AutoencoderKL, forwards from its shape, in diffusers' and in LDM's names."""

from __future__ import annotations

from collections.abc import Iterator

from lora_core.keys_unet import Module
from lora_core.shapes import VaeShape


def vae_modules(shape: VaeShape) -> Iterator[Module]:
    """Every layer with weights. The attention is Linear in diffusers and a 1x1 convolution in LDM."""
    latent, widths = shape.latent_channels, shape.block_out_channels
    yield from _encoder(shape)
    yield Module("quant_conv", "quant_conv", (latent * 2, latent * 2, 1, 1))
    yield Module("post_quant_conv", "post_quant_conv", (latent, latent, 1, 1))
    yield Module("decoder.conv_in", "decoder.conv_in", (widths[-1], latent, 3, 3))
    yield from _mid("decoder", widths[-1])
    yield from _decoder_blocks(shape)
    yield from _end("decoder", widths[0], 3)


def _encoder(shape: VaeShape) -> Iterator[Module]:
    widths = shape.block_out_channels
    channels = widths[0]
    yield Module("encoder.conv_in", "encoder.conv_in", (channels, 3, 3, 3))
    for level, width in enumerate(widths):
        name, ldm = f"encoder.down_blocks.{level}", f"encoder.down.{level}"
        for layer in range(shape.layers_per_block):
            yield from _resnet(f"{name}.resnets.{layer}", f"{ldm}.block.{layer}", channels, width)
            channels = width
        if level < len(widths) - 1:
            yield Module(f"{name}.downsamplers.0.conv", f"{ldm}.downsample.conv", (width, width, 3, 3))
    yield from _mid("encoder", channels)
    yield from _end("encoder", channels, shape.latent_channels * 2)


def _decoder_blocks(shape: VaeShape) -> Iterator[Module]:
    widths = shape.block_out_channels
    channels = widths[-1]
    for block in range(len(widths)):
        level = len(widths) - 1 - block
        name, ldm, width = f"decoder.up_blocks.{block}", f"decoder.up.{level}", widths[level]
        for layer in range(shape.layers_per_block + 1):
            yield from _resnet(f"{name}.resnets.{layer}", f"{ldm}.block.{layer}", channels, width)
            channels = width
        if level:
            yield Module(f"{name}.upsamplers.0.conv", f"{ldm}.upsample.conv", (width, width, 3, 3))


def _mid(side: str, width: int) -> Iterator[Module]:
    name, ldm = f"{side}.mid_block", f"{side}.mid"
    yield from _resnet(f"{name}.resnets.0", f"{ldm}.block_1", width, width)
    yield Module(f"{name}.attentions.0.group_norm", f"{ldm}.attn_1.norm", (width,))
    for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        yield Module(f"{name}.attentions.0.{ours}", f"{ldm}.attn_1.{theirs}", (width, width))
    yield from _resnet(f"{name}.resnets.1", f"{ldm}.block_2", width, width)


def _end(side: str, width: int, out: int) -> Iterator[Module]:
    yield Module(f"{side}.conv_norm_out", f"{side}.norm_out", (width,))
    yield Module(f"{side}.conv_out", f"{side}.conv_out", (out, width, 3, 3))


def _resnet(name: str, ldm: str, channels: int, width: int) -> Iterator[Module]:
    yield Module(f"{name}.norm1", f"{ldm}.norm1", (channels,))
    yield Module(f"{name}.conv1", f"{ldm}.conv1", (width, channels, 3, 3))
    yield Module(f"{name}.norm2", f"{ldm}.norm2", (width,))
    yield Module(f"{name}.conv2", f"{ldm}.conv2", (width, width, 3, 3))
    if channels != width:
        yield Module(f"{name}.conv_shortcut", f"{ldm}.nin_shortcut", (width, channels, 1, 1))
