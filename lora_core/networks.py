"""LoRA-like files of every dialect and algorithm: what each tensor is, told from the header; read one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from lora_core.algorithms import change
from lora_core.errors import FileError, KeyMismatch, NotFinite
from lora_core.families import TITLES
from lora_core.layers import Layer, layer_names, released_layers
from lora_core.lora import LoraModule
from lora_core.lora_names import FAMILIES, family_by_metadata, family_by_shape
from lora_core.lora_names import PARTS as LORA_PARTS
from lora_core.old_networks import no_lora
from lora_core.shapes import Architecture
from lora_core.tensors import open_tensors

_MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight")
_OWN_NAMES = (
    *("dora_scale", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("on_input", "oft_blocks", "oft_diag", "alpha", "scale"),
)
PARTS: dict[str, str] = {
    **LORA_PARTS,
    **{f".{name}": name for name in _OWN_NAMES},
    **dict.fromkeys(_MAGNITUDES, "magnitude"),
    **{f".{name}.weight": f"glora_{name}" for name in ("a1", "a2", "b1", "b2")},
    **{".diff": "diff", ".diff_b": "diff_b", ".w_norm": "diff", ".b_norm": "diff_b"},
}
_BY_PART = {
    **{"hada_w1_a": "loha", "lokr_w1": "lokr", "lokr_w1_a": "lokr", "oft_blocks": "oft", "oft_diag": "oft"},
    **{"glora_a1": "glora", "on_input": "ia3", "up": "lora", "down": "lora", "diff": "full", "diff_b": "full"},
}
ALGORITHMS = {
    **{"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "ia3": "IA3", "full": "full difference", "norm": "norms"},
    **{"oft": "OFT", "glora": "GLoRA"},
}


@dataclass(frozen=True)
class Change:
    """What a file does to one layer: the layer's name there, the algorithm, and part -> tensor name."""

    name: str
    algorithm: str
    parts: dict[str, str]
    layer: Layer

    @cached_property
    def style(self) -> str:
        """The naming: "kohya", "lycoris", "peft", "comfyui", "diffusers", "diffusers old"."""
        if self.name.startswith("lora_"):
            return "kohya"
        if self.name.startswith("lycoris_"):
            return "lycoris"
        if next(iter(self.parts.values())).startswith("base_model.model."):
            return "peft"
        if self.name.startswith(("diffusion_model.", "text_encoders.", "clip_l.", "clip_g.", "clip_h.")):
            return "comfyui"
        old = any(
            mark in name
            for mark in (".lora.down.", "_lora.down.", ".lora_linear_layer.")
            for name in self.parts.values()
        )
        return "diffusers old" if old else "diffusers"

    @property
    def is_dora(self) -> bool:
        return "dora_scale" in self.parts or "magnitude" in self.parts

    @property
    def is_plain(self) -> bool:
        """Whether the weight's change is a LoRA or LoCon as it stands."""
        return self.algorithm == "lora" and not self.is_dora


def split(keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Group tensor names: module -> part -> tensor name, and the names that are no part of anything."""
    names = list(keys)
    ia3 = {name.removesuffix(".on_input") for name in names if name.endswith(".on_input")}
    groups: dict[str, dict[str, str]] = {}
    rest: list[str] = []
    for name in names:
        ending = ending_of(name)
        if not ending and name.endswith(".weight") and name.removesuffix(".weight") in ia3:
            groups.setdefault(name.removesuffix(".weight"), {})["weight"] = name
            continue
        part = PARTS.get(ending, "")
        module = module_name(name.removesuffix(ending))
        if not part or part in groups.get(module, {}):
            rest.append(name)
        else:
            groups.setdefault(module, {})[part] = name
    for module in [m for m, parts in groups.items() if not any(part in _BY_PART for part in parts)]:
        rest += groups.pop(module).values()
    return groups, rest


def ending_of(name: str) -> str:
    """The longest known ending of a tensor's name, "" if there is none."""
    found, place = "", len(name)
    for _ in range(4):
        place = name.rfind(".", 0, place)
        if place < 0:
            break
        if name[place:] in PARTS:
            found = name[place:]
    return found or next((e for e in ("_lora.down.weight", "_lora.up.weight") if name.endswith(e)), "")


def module_name(name: str) -> str:
    """Without what PEFT and old diffusers put around a module's name."""
    return name.removeprefix("base_model.model.").replace(".processor.", ".")


def algorithm_of(parts: Mapping[str, str]) -> str:
    """The algorithm from the parts of a module."""
    found = next((_BY_PART[part] for part in _BY_PART if part in parts), "unknown")
    norm = found == "full" and any(name.endswith(("norm",)) for name in parts.values())
    return "norm" if norm else found


class NetworkFile:
    """A LoRA-like file, opened: `changes` by canonical name, `unmatched` tensor names, `family`, `metadata`.

    With `arch` names and shapes are that base's. Raises FileError; KeyMismatch when no tensor belongs to a known model,
    also for hypernetworks and textual inversions, which are named as what they are.
    """

    def __init__(self, path: str | Path, arch: Architecture | None = None) -> None:
        self.path = Path(path)
        try:
            self._open(arch)
        except (FileError, KeyMismatch) as error:
            if other := no_lora(self.path):
                raise KeyMismatch(other) from error
            raise

    def _open(self, arch: Architecture | None) -> None:
        self.source = open_tensors(self.path)
        try:
            self.metadata: dict[str, str] = dict(self.source.metadata)
            self.shapes = dict(self.source.shapes)
            groups, self.unmatched = split(self.shapes)
            self.family = family(groups, self.shapes, self.metadata, self.path.name)
            if arch is not None and arch.family != self.family:
                raise KeyMismatch(
                    f"{self.path.name} was made for {TITLES[self.family]}; this base is {TITLES[arch.family]}."
                )
            names = layer_names(arch) if arch is not None else released_layers(self.family)
            self.changes: dict[str, Change] = {}
            for name, parts in groups.items():
                self._add(name, parts, names)
        except BaseException:
            self.source.close()
            raise

    def _add(self, name: str, parts: dict[str, str], names: Mapping[str, Layer]) -> None:
        layer = names.get(name)
        if layer is None or layer.key.canonical in self.changes:
            self.unmatched += parts.values()
        else:
            self.changes[layer.key.canonical] = Change(name, algorithm_of(parts), parts, layer)

    def __enter__(self) -> NetworkFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def rank(self, canonical: str) -> int | None:
        """The rank by which alpha is divided; None for algorithms without one. From the header."""
        parts = self.changes[canonical].parts
        for part in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if part in parts:
                return self.shapes[parts[part]][0]
        return None

    def tensors(self, canonical: str) -> dict[str, torch.Tensor]:
        """The parts of one change, as stored. Raises NotFinite."""
        found = {part: self.source.read(name) for part, name in self.changes[canonical].parts.items()}
        for part, tensor in found.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                raise NotFinite(f"{self.changes[canonical].parts[part]} holds NaN or infinity: the file is broken.")
        return found

    def delta(self, canonical: str, weight: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor | None:
        """The change of the layer's weight of `shape`, float32; None for a change of the bias alone."""
        one = self.changes[canonical]
        try:
            return change(one.algorithm, self.tensors(canonical), shape, weight)
        except KeyMismatch as error:
            raise KeyMismatch(f"{self.path.name}: {one.name} cannot be used: {error}.") from None

    def module(self, canonical: str) -> LoraModule:
        """A plain LoRA module in the layer's own shape (flat kernels get theirs back). Raises KeyMismatch."""
        one, parts = self.changes[canonical], self.tensors(canonical)
        if not one.is_plain or "down" not in parts or "up" not in parts:
            kind = "DoRA" if one.is_dora else ALGORITHMS.get(one.algorithm, one.algorithm)
            raise KeyMismatch(f"{self.path.name}: {one.name} is no complete plain LoRA but {kind}; convert it first.")
        down, up, kernel = parts["down"], parts["up"], one.layer.key.shape[2:]
        rank = down.shape[0]
        alpha = float(rank)
        if "scale" in parts:
            alpha = float(parts["scale"].reshape(-1)[0]) * rank
        elif "alpha" in parts:
            alpha = float(parts["alpha"].reshape(-1)[0])
        if "mid" in parts:
            return LoraModule(down.reshape(rank, -1, 1, 1), up.reshape(*up.shape[:2], 1, 1), alpha, parts["mid"])
        ones = (1,) * len(kernel)
        try:
            return LoraModule(down.reshape(rank, -1, *kernel), up.reshape(-1, rank, *ones), alpha)
        except RuntimeError:
            raise KeyMismatch(
                f"{self.path.name}: the factors of {one.name}, {list(down.shape)} and {list(up.shape)}, do not fit "
                f"together or to a layer of shape {list(one.layer.key.shape)}."
            ) from None


def family(
    groups: Mapping[str, Mapping[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    file: str,
) -> str:
    """The family whose layers most of the modules name; metadata and widths decide between equals."""
    hits = Counter({f: sum(name in released_layers(f) for name in groups) for f in FAMILIES})
    most = max(hits.values())
    if not most:
        some = ", ".join(sorted(groups or shapes)[:3])
        raise KeyMismatch(f"{file} names no layer of Stable Diffusion 1, 2 or SDXL: {some or 'it is empty'}.")
    fitting = [f for f in FAMILIES if hits[f] == most]
    said = family_by_metadata(metadata)
    if said in fitting or len(fitting) == 1:
        return said if said in fitting else fitting[0]
    downs = {name: shapes[parts["down"]] if "down" in parts else None for name, parts in groups.items()}
    return family_by_shape(_telling(downs, fitting[0]), fitting)


def _telling(downs: dict[str, tuple[int, ...] | None], family: str) -> dict[str, tuple[int, ...] | None]:
    """Without proj_in and proj_out where kernels are stored flat: there, linear and 1x1 layers look the same."""
    names = released_layers(family)
    flat = any(shape and len(shape) == 2 and names[n].key.is_conv3x3 for n, shape in downs.items() if n in names)
    return {n: s for n, s in downs.items() if not (flat and n.endswith(("proj_in", "proj_out")))}
