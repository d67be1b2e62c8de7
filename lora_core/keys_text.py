"""The tensors of a CLIP text model in transformers' names and in OpenCLIP's (fused q/k/v, transposed projection)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lora_core.shapes import TextEncoderShape


class TextTensor(NamedTuple):
    """One tensor: its name within the module, in an OpenCLIP file, its shape, and how to get it from there."""

    name: str
    openclip: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    transform: str = ""
    target: str = ""


def text_tensors(shape: TextEncoderShape) -> Iterator[TextTensor]:
    """Every tensor of the module, in order."""
    width = shape.width
    embeddings = "text_model.embeddings"
    yield TextTensor(f"{embeddings}.token_embedding.weight", "token_embedding.weight", (shape.vocab, width))
    yield TextTensor(f"{embeddings}.position_embedding.weight", "positional_embedding", (shape.positions, width))
    for i in range(shape.layers):
        for part in _layer(shape):
            name, source = f"text_model.encoder.layers.{i}.{part.name}", f"transformer.resblocks.{i}.{part.openclip}"
            yield part._replace(name=name, openclip=source)
    for kind in ("weight", "bias"):
        yield TextTensor(f"text_model.final_layer_norm.{kind}", f"ln_final.{kind}", (width,))
    if shape.projection is not None:
        projection = (shape.projection, width)
        yield TextTensor("text_projection.weight", "text_projection", projection, transform="transpose")


def _layer(shape: TextEncoderShape) -> Iterator[TextTensor]:
    width, inner = shape.width, shape.intermediate
    for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
        rows = (i * width, (i + 1) * width)
        yield TextTensor(f"self_attn.{part}.weight", "attn.in_proj_weight", (width, width), rows, target="plain")
        yield TextTensor(f"self_attn.{part}.bias", "attn.in_proj_bias", (width,), rows)
    yield from _linear("self_attn.out_proj", "attn.out_proj", (width, width))
    yield from _linear("mlp.fc1", "mlp.c_fc", (inner, width))
    yield from _linear("mlp.fc2", "mlp.c_proj", (width, inner))
    for ours, theirs in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2")):
        for kind in ("weight", "bias"):
            yield TextTensor(f"{ours}.{kind}", f"{theirs}.{kind}", (width,))


def _linear(name: str, openclip: str, shape: tuple[int, int]) -> Iterator[TextTensor]:
    yield TextTensor(f"{name}.weight", f"{openclip}.weight", shape, target="plain")
    yield TextTensor(f"{name}.bias", f"{openclip}.bias", shape[:1])
