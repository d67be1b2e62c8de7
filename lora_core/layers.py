"""Every layer of a base model by every name that LoRA-like files use for it, not just those of kohya's table."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from lora_core.families import reference
from lora_core.keys import COMFYUI_ENCODERS, ModuleKey, checkpoint_tensors
from lora_core.keys_unet import unet_modules
from lora_core.shapes import TEXT_ENCODER, TEXT_ENCODER_2, UNET, Architecture


@dataclass(frozen=True)
class Layer:
    """A layer with a weight; `key` names it, `transform` says how the checkpoint keeps the weight (see TensorKey).

    `bias` is the checkpoint's tensor of the bias ("" if there is none). `listed` is true for the modules of kohya's
    table (LoRA or LoCon).
    """

    key: ModuleKey
    transform: str
    bias: str
    listed: bool
    ldm: str = ""


def layers(arch: Architecture) -> tuple[Layer, ...]:
    """Every layer of the text encoders and the UNet, text encoders first."""
    found: list[Layer] = []
    ldm = {module.name: module.ldm for module in unet_modules(arch.unet)}
    for component in (TEXT_ENCODER, TEXT_ENCODER_2, UNET):
        if component in arch.components:
            found += _component_layers(arch, component, ldm)
    return tuple(found)


def _component_layers(arch: Architecture, component: str, ldm: dict[str, str]) -> Iterator[Layer]:
    tensors = checkpoint_tensors(arch, component)
    biases = {t.name.removesuffix(".bias"): t.source for t in tensors if t.name.endswith(".bias")}
    sdxl = arch.family.startswith("sdxl")
    for t in tensors:
        if not t.name.endswith(".weight"):
            continue
        path = t.name.removesuffix(".weight")
        spelled = ldm[path] if component == UNET and sdxl else path
        kohya = f"{kohya_prefix(component, sdxl)}_{spelled.replace('.', '_')}"
        key = ModuleKey(f"{component}.{path}", kohya, t.source, t.shape, t.slice_rows)
        yield Layer(key, t.transform, biases.get(path, ""), bool(t.target), ldm.get(path, ""))


def kohya_prefix(component: str, sdxl: bool) -> str:
    if component == UNET:
        return "lora_unet"
    return "lora_te2" if component == TEXT_ENCODER_2 else "lora_te1" if sdxl else "lora_te"


def spellings(layer: Layer, family: str) -> Iterator[str]:
    """Every name of a layer in LoRA-like files, without PEFT's leading "base_model.model."."""
    key = layer.key
    flat = key.path.replace(".", "_")
    yield from (key.kohya, key.canonical)
    if key.component == UNET:
        yield from (key.path, f"diffusion_model.{layer.ldm}", f"lora_unet_{flat}")
        yield from (f"lora_unet_{layer.ldm.replace('.', '_')}", f"lycoris_{flat}")
    else:
        yield from (f"lora_te1_{flat}", f"lora_te_{flat}") if key.component == TEXT_ENCODER else (f"lora_te2_{flat}",)
        encoder = COMFYUI_ENCODERS[family][key.component]
        yield from (f"{encoder}.transformer.{key.path}", f"text_encoders.{encoder}.transformer.{key.path}")
        if key.path == "text_projection":
            yield f"text_encoders.{encoder}.text_projection"


def layer_names(arch: Architecture) -> dict[str, Layer]:
    """Every spelling -> layer, the table's modules first."""
    names: dict[str, Layer] = {}
    for layer in sorted(layers(arch), key=lambda one: not one.listed):
        for name in spellings(layer, arch.family):
            names.setdefault(name, layer)
            if name.endswith(("to_out.0", "to_out_0")):
                names.setdefault(name[:-2], layer)
    return names


@functools.cache
def released_layers(family: str) -> dict[str, Layer]:
    """`layer_names` of the released model of a family."""
    return layer_names(reference(family))
