"""Which module and which part of it a tensor of a LoRA file is, and for which family the file was made."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lora_core.errors import KeyMismatch
from lora_core.families import reference
from lora_core.keys import ModuleKey, dotted_names, kohya_names
from lora_core.shapes import Architecture

PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".scale": "scale",
    ".lora.down.weight": "down",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora.up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
}
OTHER_KINDS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".oft_blocks": "OFT",
    ".oft_diag": "OFT",
    ".a1.weight": "GLoRA",
    ".diff": "full difference",
    ".on_input": "IA3",
}
FAMILIES = ("sd1", "sdxl", "sd2")


@dataclass(frozen=True)
class Named:
    """A tensor of a LoRA file: its module's name there and its part ("down", "up", "mid", "alpha", "scale")."""

    key: str
    module: str
    part: str


def split_keys(keys: Iterable[str], file: str) -> list[Named]:
    """Take the known endings off. Raises KeyMismatch that names the kind of network, or the keys that fit nothing.

    Embeddings that are bundled in the file (`lora_core.embeddings`) are no modules and are left out.
    """
    found: list[Named] = []
    rest: list[str] = []
    for key in keys:
        if key.startswith("bundle_emb."):
            continue
        ending = next((e for e in PARTS if key.endswith(e)), None)
        if ending is None:
            rest.append(key)
            continue
        module = key.removesuffix(ending).removeprefix("base_model.model.")
        found.append(Named(key, module.replace(".processor.", "."), PARTS[ending]))
    if rest:
        raise KeyMismatch(_unknown(rest, file))
    if not found:
        raise KeyMismatch(f"{file} holds no LoRA.")
    return found


def _unknown(rest: list[str], file: str) -> str:
    if any(key.startswith(("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")) for key in rest):
        return f"{file} is a base model, not a LoRA."
    for mark, kind in OTHER_KINDS.items():
        if any(f"{mark}." in f"{key}." for key in rest):
            return (
                f"{file} is a {kind} network; only LoRA and LoCon can be read here (convert makes a LoRA of it). "
                f"Example: {rest[0]}."
            )
    return f"{file} holds {len(rest)} tensors that belong to no LoRA, e.g. {', '.join(sorted(rest)[:3])}."


@functools.cache
def _released_names(family: str) -> dict[str, ModuleKey]:
    return all_names(reference(family))


def all_names(arch: Architecture) -> dict[str, ModuleKey]:
    """Every spelling of every module that readers accept."""
    names = kohya_names(arch) | dotted_names(arch)
    for name, key in list(names.items()):
        if name.endswith(("to_out.0", "to_out_0")):
            names.setdefault(name[:-2], key)
    return names


def names_for(arch: Architecture | None, family: str) -> dict[str, ModuleKey]:
    return all_names(arch) if arch is not None else _released_names(family)


def family_of(modules: Mapping[str, tuple[int, ...] | None], metadata: Mapping[str, str], file: str) -> str:
    """The family of a LoRA from its module names -> shape of `down`, and its metadata.

    Raises KeyMismatch that names modules when they fit no family.
    """
    missing = {family: [m for m in modules if m not in _released_names(family)] for family in FAMILIES}
    fitting = [family for family in FAMILIES if not missing[family]]
    if not fitting:
        nearest = min(FAMILIES, key=lambda family: len(missing[family]))
        rest = missing[nearest]
        raise KeyMismatch(
            f"{file} holds {len(rest)} modules that Stable Diffusion 1, 2 and SDXL do not have, e.g. "
            f"{', '.join(sorted(rest)[:3])}."
        )
    says = family_by_metadata(metadata)
    if says in fitting:
        return says
    if len(fitting) == 1:
        return fitting[0]
    return family_by_shape(modules, fitting)


def family_by_metadata(metadata: Mapping[str, str]) -> str:
    """The family by A1111's rule: ss_base_model_version, then ss_v2; "" where the metadata say neither."""
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl_"):
        return "sdxl"
    if metadata.get("ss_v2") == "True" or version.startswith("sd_v2"):
        return "sd2"
    return "sd1" if version.startswith("sd_v1") else ""


def family_by_shape(modules: Mapping[str, tuple[int, ...] | None], fitting: list[str]) -> str:
    """SD1 projects with 1x1 convolutions, the others with linear layers; contexts are 768, 1024 and 2048 wide."""
    widths = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
    linear = [f for f in fitting if f != "sd1"]
    for name, shape in modules.items():
        if shape and name.endswith(("proj_in", "proj_out")):
            return "sd1" if len(shape) == 4 and "sd1" in fitting else linear[-1] if len(shape) == 2 else fitting[0]
    for name, shape in modules.items():
        if shape and name.endswith(("attn2_to_k", "attn2.to_k", "self_attn_q_proj", "self_attn.q_proj")):
            family = widths.get(shape[1], "")
            if family in fitting:
                return family
    return "sdxl" if all(name.startswith("lora_te1_") for name in modules) and "sdxl" in fitting else fitting[0]
