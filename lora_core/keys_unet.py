"""The modules of a UNet, forwards from its shape, in diffusers' and in LDM/SGM's names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lora_core.shapes import UNetShape


class Module(NamedTuple):
    """A layer. `target`: "" never a LoRA, "plain" always, "conv" only where convolutions are trained too."""

    name: str
    ldm: str
    shape: tuple[int, ...]
    bias: bool = True
    target: str = ""


def unet_modules(shape: UNetShape) -> Iterator[Module]:
    """Every layer with weights, in the order of the forward pass."""
    first = shape.block_out_channels[0]
    yield Module("conv_in", "input_blocks.0.0", (first, shape.in_channels, 3, 3))
    yield from _embedding("time_embedding", "time_embed", first, first * 4)
    if shape.label_channels is not None:
        yield from _embedding("add_embedding", "label_emb.0", shape.label_channels, first * 4)
    yield from _down(shape)
    yield from _mid(shape)
    yield from _up(shape)
    yield Module("conv_norm_out", "out.0", (first,))
    yield Module("conv_out", "out.2", (shape.out_channels, first, 3, 3))


def _embedding(name: str, ldm: str, width: int, out: int) -> Iterator[Module]:
    yield Module(f"{name}.linear_1", f"{ldm}.0", (out, width))
    yield Module(f"{name}.linear_2", f"{ldm}.2", (out, out))


def _down(shape: UNetShape) -> Iterator[Module]:
    channels, index = shape.block_out_channels[0], 1
    for level, width in enumerate(shape.block_out_channels):
        for layer in range(shape.layers_per_block):
            yield from _layer(shape, f"down_blocks.{level}", layer, f"input_blocks.{index}", (channels, width, level))
            channels, index = width, index + 1
        if level < len(shape.block_out_channels) - 1:
            name = f"down_blocks.{level}.downsamplers.0.conv"
            yield Module(name, f"input_blocks.{index}.0.op", (width, width, 3, 3), target="conv")
            index += 1


def _mid(shape: UNetShape) -> Iterator[Module]:
    width, time = shape.block_out_channels[-1], shape.block_out_channels[0] * 4
    yield from _resnet("mid_block.resnets.0", "middle_block.0", width, width, time)
    yield from _attention("mid_block.attentions.0", "middle_block.1", width, shape.mid_depth, shape)
    yield from _resnet("mid_block.resnets.1", "middle_block.2", width, width, time)


def _up(shape: UNetShape) -> Iterator[Module]:
    skips, index = skip_channels(shape), 0
    channels, levels = shape.block_out_channels[-1], len(shape.block_out_channels)
    for block in range(levels):
        level = levels - 1 - block
        width = shape.block_out_channels[level]
        for layer in range(shape.layers_per_block + 1):
            ends = (channels + skips.pop(), width, level)
            yield from _layer(shape, f"up_blocks.{block}", layer, f"output_blocks.{index}", ends)
            channels, index = width, index + 1
        if level:
            place = 2 if shape.transformer_depth[level] else 1
            ldm = f"output_blocks.{index - 1}.{place}.conv"
            yield Module(f"up_blocks.{block}.upsamplers.0.conv", ldm, (width, width, 3, 3), target="conv")


def skip_channels(shape: UNetShape) -> list[int]:
    """Channels of the skip connections in the order in which the way down makes them."""
    skips = [shape.block_out_channels[0]]
    for level, width in enumerate(shape.block_out_channels):
        last = level == len(shape.block_out_channels) - 1
        skips += [width] * (shape.layers_per_block + (not last))
    return skips


def _layer(shape: UNetShape, block: str, layer: int, ldm: str, ends: tuple[int, int, int]) -> Iterator[Module]:
    """One resnet (channels in, out at a level) and, where the level has any, its attention."""
    channels, width, level = ends
    time = shape.block_out_channels[0] * 4
    yield from _resnet(f"{block}.resnets.{layer}", f"{ldm}.0", channels, width, time)
    depth = shape.transformer_depth[level]
    if depth:
        yield from _attention(f"{block}.attentions.{layer}", f"{ldm}.1", width, depth, shape)


def _resnet(name: str, ldm: str, channels: int, width: int, time: int) -> Iterator[Module]:
    yield Module(f"{name}.norm1", f"{ldm}.in_layers.0", (channels,))
    yield Module(f"{name}.conv1", f"{ldm}.in_layers.2", (width, channels, 3, 3), target="conv")
    yield Module(f"{name}.time_emb_proj", f"{ldm}.emb_layers.1", (width, time), target="conv")
    yield Module(f"{name}.norm2", f"{ldm}.out_layers.0", (width,))
    yield Module(f"{name}.conv2", f"{ldm}.out_layers.3", (width, width, 3, 3), target="conv")
    if channels != width:
        yield Module(f"{name}.conv_shortcut", f"{ldm}.skip_connection", (width, channels, 1, 1), target="conv")


def _attention(name: str, ldm: str, width: int, depth: int, shape: UNetShape) -> Iterator[Module]:
    square = (width, width) if shape.linear_projection else (width, width, 1, 1)
    yield Module(f"{name}.norm", f"{ldm}.norm", (width,))
    yield Module(f"{name}.proj_in", f"{ldm}.proj_in", square, target="plain")
    for i in range(depth):
        for part in _transformer(width, shape.context_dim):
            inner = f"transformer_blocks.{i}.{part.name}"
            yield part._replace(name=f"{name}.{inner}", ldm=f"{ldm}.{inner}")
    yield Module(f"{name}.proj_out", f"{ldm}.proj_out", square, target="plain")


def _transformer(width: int, context: int) -> Iterator[Module]:
    for attention, source in (("attn1", width), ("attn2", context)):
        yield Module(f"norm{attention[-1]}", "", (width,))
        yield Module(f"{attention}.to_q", "", (width, width), False, "plain")
        yield Module(f"{attention}.to_k", "", (width, source), False, "plain")
        yield Module(f"{attention}.to_v", "", (width, source), False, "plain")
        yield Module(f"{attention}.to_out.0", "", (width, width), True, "plain")
    yield Module("norm3", "", (width,))
    yield Module("ff.net.0.proj", "", (width * 8, width), True, "plain")
    yield Module("ff.net.2", "", (width, width * 4), True, "plain")
