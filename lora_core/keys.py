"""Names of tensors and modules: canonical (diffusers) <-> the checkpoint's own <-> kohya <-> PEFT.

Everything is enumerated forwards from an Architecture and inverted as a dict; no name is ever taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lora_core.keys_text import text_tensors
from lora_core.keys_unet import Module, unet_modules
from lora_core.keys_vae import vae_modules
from lora_core.shapes import TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE, Architecture, TextEncoderShape, VaeShape

COMFYUI_ENCODERS = {
    "sd1": {TEXT_ENCODER: "clip_l"},
    "sd2": {TEXT_ENCODER: "clip_h"},
    "sdxl": {TEXT_ENCODER: "clip_l", TEXT_ENCODER_2: "clip_g"},
}


@dataclass(frozen=True)
class TensorKey:
    """One tensor of a module and where a checkpoint keeps it.

    `name` is the name in the diffusers/transformers module's state_dict, `source` the name in the file, `shape` that
    of the module. To get one from the other: take `slice_rows` (begin, end) of the first axis if given, then apply
    `transform`: "" (as is), "transpose" (swap the two axes) or "squeeze" (drop the trailing 1x1 if there is one).
    """

    name: str
    source: str
    shape: tuple[int, ...]
    slice_rows: tuple[int, int] | None = None
    transform: str = ""
    target: str = ""


@dataclass(frozen=True)
class ModuleKey:
    """A layer that can carry a LoRA.

    `canonical` is component + module path ("unet.down_blocks.0.attentions.0.proj_in"), `kohya` the prefix of its three
    tensors in a LoRA file, `base` the name of its weight in the checkpoint's own layout, `shape` that of the weight in
    the diffusers module ([out, in] or [out, in, kh, kw]), `slice_rows` its rows inside a fused OpenCLIP in_proj.
    """

    canonical: str
    kohya: str
    base: str
    shape: tuple[int, ...]
    slice_rows: tuple[int, int] | None = None

    @property
    def component(self) -> str:
        return self.canonical.partition(".")[0]

    @property
    def path(self) -> str:
        """The module path inside its component."""
        return self.canonical.partition(".")[2]

    @property
    def is_conv3x3(self) -> bool:
        return len(self.shape) == 4 and self.shape[2:] != (1, 1)


def checkpoint_tensors(arch: Architecture, component: str) -> tuple[TensorKey, ...]:
    """Every tensor of "unet", "text_encoder", "text_encoder_2" or "vae", each exactly once.

    Raises KeyMismatch when the model has no such component.
    """
    prefix = arch.prefix(component)
    if component == UNET:
        return tuple(_layer_tensors(unet_modules(arch.unet), prefix, arch.layout))
    if component == VAE and arch.vae is not None:
        return vae_tensors(arch.vae, prefix, arch.layout)
    return tuple(_text_keys(arch.text_encoder(component), prefix, is_openclip(arch, component)))


def vae_tensors(shape: VaeShape, prefix: str, layout: str) -> tuple[TensorKey, ...]:
    """Every tensor of a VAE whose names begin with `prefix` ("" in a file of its own)."""
    return tuple(_layer_tensors(vae_modules(shape), prefix, layout))


def is_openclip(arch: Architecture, component: str) -> bool:
    """Whether the file keeps this text encoder in OpenCLIP's naming."""
    return arch.layout == "ldm" and not arch.prefix(component).endswith(("text_model.", "transformer."))


def _layer_tensors(modules: Iterator[Module], prefix: str, layout: str) -> Iterator[TensorKey]:
    for module in modules:
        source = prefix + (module.ldm if layout == "ldm" else module.name)
        transform = "squeeze" if ".attn_1." in module.ldm and len(module.shape) == 2 else ""
        weight = TensorKey(f"{module.name}.weight", f"{source}.weight", module.shape)
        yield TensorKey(weight.name, weight.source, weight.shape, None, transform, module.target)
        if module.bias:
            yield TensorKey(f"{module.name}.bias", f"{source}.bias", module.shape[:1])


def _text_keys(shape: TextEncoderShape, prefix: str, openclip: bool) -> Iterator[TensorKey]:
    inner = prefix.removesuffix("text_model.")
    for t in text_tensors(shape):
        if openclip:
            yield TensorKey(t.name, prefix + t.openclip, t.shape, t.rows, t.transform, t.target)
        elif t.name.startswith("text_model."):
            yield TensorKey(t.name, prefix + t.name.removeprefix("text_model."), t.shape, target=t.target)
        else:
            yield TensorKey(t.name, inner + t.name, t.shape, target=t.target)


def lora_targets(
    arch: Architecture, conv: bool = False, unet: bool = True, text_encoders: bool = True
) -> tuple[ModuleKey, ...]:
    """The modules that kohya's trainer gives a LoRA, in the order of the forward pass, text encoders first.

    `conv` adds the resnets' and the down- and upsamplers' layers (LoCon).
    """
    wanted = ("plain", "conv") if conv else ("plain",)
    found: list[ModuleKey] = []
    for component in (TEXT_ENCODER, TEXT_ENCODER_2, UNET):
        if component not in arch.components or not (unet if component == UNET else text_encoders):
            continue
        kohya = kohya_spellings(arch, component)
        for key in checkpoint_tensors(arch, component):
            if key.target in wanted:
                path = key.name.removesuffix(".weight")
                found.append(ModuleKey(f"{component}.{path}", kohya[path], key.source, key.shape, key.slice_rows))
    return tuple(found)


def kohya_spellings(arch: Architecture, component: str) -> dict[str, str]:
    """Module path -> kohya name, as sd-scripts writes it: SDXL's UNet in SGM names, all else in diffusers'."""
    if component == UNET:
        sgm = arch.family.startswith("sdxl")
        return {m.name: _flat("lora_unet", m.ldm if sgm else m.name) for m in unet_modules(arch.unet) if m.target}
    prefix = "lora_te"
    if arch.family.startswith("sdxl"):
        prefix = "lora_te2" if component == TEXT_ENCODER_2 else "lora_te1"
    tensors = text_tensors(arch.text_encoder(component))
    paths = (t.name.removesuffix(".weight") for t in tensors if t.target)
    return {path: _flat(prefix, path) for path in paths}


def _flat(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"


def kohya_names(arch: Architecture) -> dict[str, ModuleKey]:
    """Every kohya name that readers accept -> module: the written ones, both UNet namings, lora_te and lora_te1."""
    by_name: dict[str, ModuleKey] = {}
    ldm = {m.name: m.ldm for m in unet_modules(arch.unet)}
    for key in lora_targets(arch, conv=True):
        by_name[key.kohya] = key
        if key.component == UNET:
            by_name[_flat("lora_unet", key.path)] = key
            by_name[_flat("lora_unet", ldm[key.path])] = key
        elif key.component == TEXT_ENCODER:
            by_name[_flat("lora_te", key.path)] = key
            by_name[_flat("lora_te1", key.path)] = key
    return by_name


def dotted_names(arch: Architecture) -> dict[str, ModuleKey]:
    """Dotted module names of PEFT, diffusers and ComfyUI files -> module, without a leading "base_model.model."."""
    by_name: dict[str, ModuleKey] = {}
    ldm = {m.name: m.ldm for m in unet_modules(arch.unet)}
    for key in lora_targets(arch, conv=True):
        by_name[key.canonical] = key
        if key.component == UNET:
            by_name[key.path] = key
            by_name[f"diffusion_model.{ldm[key.path]}"] = key
        elif arch.family in COMFYUI_ENCODERS:
            encoder = COMFYUI_ENCODERS[arch.family][key.component]
            by_name[f"text_encoders.{encoder}.transformer.{key.path}"] = key
    return by_name
