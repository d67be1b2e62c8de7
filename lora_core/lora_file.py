"""Reading and writing LoRA files: kohya's format (LoRA and LoCon), and PEFT's and diffusers' spellings for reading."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_core.errors import KeyMismatch, NotFinite
from lora_core.families import TITLES
from lora_core.keys import ModuleKey, lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_names import Named, family_of, names_for, split_keys
from lora_core.shapes import Architecture
from lora_core.tensor_header import TORCH, build_header, plan
from lora_core.tensor_writer import tensor_bytes
from lora_core.tensors import TensorFile, TensorSource, TensorWriter, data_hash, open_tensors, read_header

HASH_KEYS = ("sshs_model_hash", "sshs_legacy_hash")


@dataclass(frozen=True)
class LoraInfo:
    """What a LoRA file's header says: modules per component, how many modules of each rank, number formats."""

    family: str
    modules: dict[str, int]
    ranks: dict[int, int]
    dtypes: dict[str, int]
    metadata: dict[str, str]
    size: int


def inspect_lora(path: str | Path) -> LoraInfo:
    """Read only the header. Raises FileError or KeyMismatch."""
    path = Path(path)
    header = read_header(path)
    named = split_keys(header.tensors, path.name)
    downs = {n.module: header.tensors[n.key].shape for n in named if n.part == "down"}
    family = family_of(_with_shapes(named, downs), header.metadata, path.name)
    names = names_for(None, family)
    return LoraInfo(
        family,
        dict(Counter(names[module].component for module in downs)),
        dict(sorted(Counter(shape[0] for shape in downs.values()).items())),
        dict(Counter(info.dtype for info in header.tensors.values())),
        header.metadata,
        path.stat().st_size,
    )


def _with_shapes(named: list[Named], downs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...] | None]:
    return {n.module: downs.get(n.module) for n in named}


def read_lora(path: str | Path, arch: Architecture | None = None) -> Lora:
    """Read a LoRA; with `arch` every module must be in that base and fit its widths.

    A missing alpha means alpha = rank; a `scale` tensor replaces alpha / rank. Every key is accounted for.
    Raises FileError, KeyMismatch (which names what does not fit) or NotFinite.
    """
    path = Path(path)
    with open_tensors(path) as source:
        named = split_keys(source.shapes, path.name)
        downs = {n.module: tuple(source.shapes[n.key]) for n in named if n.part == "down"}
        family = family_of(_with_shapes(named, downs), source.metadata, path.name)
        if arch is not None and arch.family != family:
            family = _reconcile(arch, family, downs, path.name)
        names = names_for(arch, family)
        modules: dict[str, LoraModule] = {}
        for canonical, parts in _grouped(named, names, path.name).items():
            modules[canonical] = _module(source, parts, names[parts[0].module], arch is not None)
        return Lora(modules, dict(source.metadata), family)


def _reconcile(arch: Architecture, family: str, downs: Mapping[str, tuple[int, ...]], file: str) -> str:
    """A file whose names fit several families is of the base's family if all its modules are there."""
    names = names_for(arch, arch.family)
    fits = all(m in names and shape[1] == names[m].shape[1] for m, shape in downs.items())
    if fits:
        return arch.family
    raise KeyMismatch(f"{file} was made for {TITLES[family]}; this base is {TITLES[arch.family]}.")


def _grouped(named: list[Named], names: Mapping[str, ModuleKey], file: str) -> dict[str, list[Named]]:
    groups: dict[str, list[Named]] = {}
    for n in named:
        if n.module not in names:
            raise KeyMismatch(f"{file}: the base has no module {n.module}.")
        groups.setdefault(names[n.module].canonical, []).append(n)
    for canonical, parts in groups.items():
        found = Counter(n.part for n in parts)
        if found["down"] != 1 or found["up"] != 1 or max(found.values()) > 1:
            raise KeyMismatch(
                f"{file}: {canonical} lacks a factor or has one twice ({', '.join(n.key for n in parts)})."
            )
    return groups


def _module(source: TensorSource, parts: list[Named], key: ModuleKey, strict: bool) -> LoraModule:
    tensors = {n.part: source.read(n.key) for n in parts}
    for n in parts:
        if not bool(torch.isfinite(tensors[n.part].float()).all()):
            raise NotFinite(f"{n.key} holds NaN or infinity: the LoRA is broken.")
    down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
    rank = down.shape[0]
    alpha = float(tensors["alpha"].reshape(-1)[0]) if "alpha" in tensors else float(rank)
    if "scale" in tensors:
        alpha = float(tensors["scale"].reshape(-1)[0]) * rank
    if up.dim() not in (2, 4) or down.dim() not in (2, 4) or up.shape[1] != (mid if mid is not None else down).shape[0]:
        raise KeyMismatch(f"{parts[0].module}: factors {list(down.shape)} and {list(up.shape)} do not fit together.")
    module = LoraModule(*_as_base(down, up, key), alpha, mid)
    if strict and module.shape != key.shape:
        raise KeyMismatch(
            f"{parts[0].module} changes a weight of shape {list(module.shape)}, the base's is {list(key.shape)}: "
            "the LoRA was made for another model."
        )
    return module


def _as_base(down: torch.Tensor, up: torch.Tensor, key: ModuleKey) -> tuple[torch.Tensor, torch.Tensor]:
    """1x1 factors in as many dimensions as the base weight has (some writers use 2 for 4 and the other way round)."""
    if len(key.shape) == 2 and down.dim() == 4 and down.shape[2:] == (1, 1):
        return down.flatten(1), up.flatten(1)
    if len(key.shape) == 4:
        return tuple(t if t.dim() == 4 else t[:, :, None, None] for t in (down, up))  # type: ignore[return-value]
    return down, up.flatten(1) if up.dim() == 4 and down.dim() == 2 else up


def write_lora(
    path: str | Path,
    lora: Lora,
    targets: Iterable[ModuleKey] | Architecture,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Write kohya's format, atomically; the hashes sshs_* are added for the final bytes.

    Factors are cast to `dtype`; alpha stays float32, because half precision would round it (every reader takes both).
    Before the file gets its name it is opened again and its keys, hash and numbers are checked.
    Raises NotFinite, KeyMismatch, FileError or DiskFull; then an older file of that name is as it was.
    """
    keys = lora_targets(targets, conv=True) if isinstance(targets, Architecture) else tuple(targets)
    write_kohya_tensors(path, kohya_tensors(lora, {key.canonical: key for key in keys}), dtype, metadata)


def write_kohya_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None, metadata: Mapping[str, str]
) -> None:
    """Write named tensors with the hashes of a LoRA file, as `write_lora` does: atomically, verified.

    `dtype` None keeps each tensor's own number format. DoRA's magnitudes stay float32: they multiply the base's whole
    weights, and half precision would change those as much as the training did.
    """
    exact = {name for name, t in tensors.items() if not t.dim() or name.endswith(".dora_scale")}
    formats = {
        name: t.dtype if dtype is None else torch.float32 if name in exact else dtype for name, t in tensors.items()
    }
    infos = {name: (formats[name], tuple(t.shape)) for name, t in tensors.items()}
    kept = {k: v for k, v in metadata.items() if k not in HASH_KEYS}
    hashes = dict(zip(HASH_KEYS, _hashes(tensors, infos, kept)))
    with TensorWriter(path, infos, {**kept, **hashes}) as writer:
        for name, tensor in _cast(tensors, infos):
            writer.put(name, tensor)
        writer.close(lambda written: _verify(written, set(infos), hashes["sshs_model_hash"]))


def kohya_tensors(lora: Lora, keys: Mapping[str, ModuleKey]) -> dict[str, torch.Tensor]:
    """The file's tensors by name, uncast. Raises KeyMismatch when a module is not among the keys or does not fit."""
    found: dict[str, torch.Tensor] = {}
    for canonical, module in lora.modules.items():
        key = keys.get(canonical)
        if key is None or key.shape != module.shape:
            shape = f" {list(key.shape)}" if key else ""
            raise KeyMismatch(f"The base has no module {canonical}{shape} for a change of {list(module.shape)}.")
        found[f"{key.kohya}.alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
        found[f"{key.kohya}.lora_down.weight"] = module.down
        found[f"{key.kohya}.lora_up.weight"] = module.up
        if module.mid is not None:
            found[f"{key.kohya}.lora_mid.weight"] = module.mid
    if not found:
        raise KeyMismatch("The LoRA has no modules; there is nothing to write.")
    return found


Infos = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


def _cast(tensors: Mapping[str, torch.Tensor], infos: Infos) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in the file's order and format. Raises NotFinite for what the format cannot hold."""
    for name, info in plan(infos).items():
        tensor = tensors[name].detach().to(device="cpu", dtype=TORCH[info.dtype]).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            whole = bool(torch.isfinite(tensors[name]).all())
            reason = "is too large for fp16; save as bf16 or fp32" if whole else "holds NaN or infinity"
            raise NotFinite(f"{name} {reason}. The LoRA was not saved.")
        yield name, tensor


def _hashes(tensors: Mapping[str, torch.Tensor], infos: Infos, metadata: Mapping[str, str]) -> tuple[str, str]:
    """sshs_model_hash and sshs_legacy_hash of the data section to be written."""
    ss_only = {k: v for k, v in metadata.items() if k.startswith("ss_")}
    begin = 0x100000 - len(build_header(plan(infos), ss_only))
    whole, window, place = hashlib.sha256(), hashlib.sha256(), 0
    for _, tensor in _cast(tensors, infos):
        data = tensor_bytes(tensor)
        whole.update(data)
        window.update(data[max(0, begin - place) : max(0, begin + 0x10000 - place)])
        place += len(data)
    return whole.hexdigest(), window.hexdigest()[:8]


def _verify(path: Path, names: set[str], digest: str) -> None:
    """Raises KeyMismatch or NotFinite when the written file is not what was meant."""
    with TensorFile(path) as file:
        if set(file.header.tensors) != names:
            raise KeyMismatch(f"{path.name} was written with other keys than planned.")
        for name in names:
            if not bool(torch.isfinite(file.read(name)).all()):
                raise NotFinite(f"{name} holds NaN or infinity after writing; the disk may be faulty.")
    if data_hash(path) != digest:
        raise KeyMismatch(f"{path.name} reads back with other bytes than were written; the disk may be faulty.")
