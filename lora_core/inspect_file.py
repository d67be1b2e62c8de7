"""What is in a LoRA-like file: dialect, family, ranks, verdicts, hashes, and (when asked) the numbers themselves."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lora_core.block_weights import block_of
from lora_core.dialects import Verdict, dialect, family_reason, stranger, verdicts
from lora_core.errors import FileError, KeyMismatch
from lora_core.families import TITLES, reference
from lora_core.keys import ModuleKey, lora_targets
from lora_core.networks import ALGORITHMS, NetworkFile
from lora_core.old_networks import no_lora
from lora_core.shapes import Architecture
from lora_core.tensor_writer import data_hash, legacy_hash
from lora_core.tensors import TensorFile, open_tensors, read_header
from lora_core.tool_files import base_architecture

TOP_TAGS = 12


@dataclass(frozen=True)
class BlockFacts:
    """One block of the model: its layers, their ranks and alphas (value -> layers), and the norm of its change."""

    layers: int
    ranks: dict[str, int]
    alphas: dict[str, int]
    norm: float | None = None
    share_of_base: float | None = None


@dataclass(frozen=True)
class Numbers:
    """What only reading the weights tells. `norms` is by canonical name; a hash is (stated, computed)."""

    norms: dict[str, float]
    base_norms: dict[str, float]
    not_finite: tuple[str, ...]
    zero: tuple[str, ...]
    hashes: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Inspection:
    """The facts about one file."""

    file: str
    size: int
    family: str
    why: str
    dialect: str
    components: dict[str, int]
    algorithms: dict[str, int]
    dtypes: dict[str, int]
    blocks: dict[str, BlockFacts]
    unmatched: tuple[str, ...]
    outside: int
    missing: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    triggers: tuple[str, ...]
    metadata: dict[str, str] = field(repr=False)
    numbers: Numbers | None = None


def inspect_network(path: str | Path, base: str = "", numbers: bool = False) -> Inspection:
    """Inspect a LoRA-like file; only its header and alphas are read unless `numbers`.

    With `base`, names and widths are that base's.

    Raises FileError; KeyMismatch for a file of an unknown kind, with what it seems to be.
    """
    arch = base_architecture(base)
    try:
        file = NetworkFile(path, arch)
    except (FileError, KeyMismatch) as error:
        other = no_lora(path)
        if other or not isinstance(error, KeyMismatch):
            raise (KeyMismatch(other) if other else error) from None
        words = stranger(_names(path))
        seems = words if "not a LoRA" in words else f"for {words}"
        raise KeyMismatch(f"{error} It seems to be {seems}." if words else str(error)) from None
    with file:
        read = _numbers(file, base, arch) if numbers else None
        return _inspection(file, arch, read)


def _names(path: str | Path) -> list[str]:
    with open_tensors(path) as source:
        return list(source.shapes)


def _inspection(file: NetworkFile, arch: Architecture | None, read: Numbers | None) -> Inspection:
    changes = file.changes
    blocks: dict[str, list[str]] = {}
    for canonical in changes:
        component = canonical.partition(".")[0]
        label = block_of(canonical, file.family)
        blocks.setdefault(component if label == "TE" else label, []).append(canonical)
    source = file.source
    header = source.header.tensors if isinstance(source, TensorFile) else {}
    listed = {name for name, change in changes.items() if change.layer.listed}
    return Inspection(
        file=str(file.path),
        size=file.path.stat().st_size,
        family=file.family,
        why=family_reason(file),
        dialect=dialect(file),
        components=dict(Counter(name.partition(".")[0] for name in changes)),
        algorithms=dict(Counter(ALGORITHMS.get(c.algorithm, c.algorithm) for c in changes.values())),
        dtypes=dict(Counter(info.dtype for info in header.values())),
        blocks={label: _block(file, names, read) for label, names in sorted(blocks.items())},
        unmatched=tuple(sorted(file.unmatched)),
        outside=len(changes) - len(listed),
        missing=missing(file, arch),
        verdicts=verdicts(file),
        triggers=trigger_words(file.metadata),
        metadata=file.metadata,
        numbers=read,
    )


def missing(file: NetworkFile, arch: Architecture | None) -> tuple[str, ...]:
    """Layers of kohya's table that the file leaves alone, in the components that it changes.

    3x3 convolutions and their kin count only where the file changes any of them.
    """
    changed = file.changes.values()
    conv = any(change.layer.key.is_conv3x3 for change in changed)
    components = {change.layer.key.component for change in changed}
    wanted = lora_targets(arch, conv) if arch is not None else released_targets(file.family, conv)
    return tuple(key.canonical for key in wanted if key.component in components and key.canonical not in file.changes)


@functools.cache
def released_targets(family: str, conv: bool) -> tuple[ModuleKey, ...]:
    """`lora_targets` of the released model of a family."""
    return lora_targets(reference(family), conv)


def _block(file: NetworkFile, names: list[str], read: Numbers | None) -> BlockFacts:
    ranks = Counter(str(file.rank(name) or "none") for name in names)
    alphas: Counter[str] = Counter()
    for name in names:
        part = file.changes[name].parts.get("alpha")
        alphas["none" if part is None else f"{file.source.number(part):g}"] += 1
    if read is None:
        return BlockFacts(len(names), dict(ranks), dict(alphas))
    norm = math.sqrt(sum(read.norms.get(name, 0.0) ** 2 for name in names))
    whole = math.sqrt(sum(read.base_norms.get(name, 0.0) ** 2 for name in names))
    return BlockFacts(len(names), dict(ranks), dict(alphas), norm, norm / whole if whole else None)


def _numbers(file: NetworkFile, base: str, arch: Architecture | None) -> Numbers:
    norms: dict[str, float] = {}
    base_norms: dict[str, float] = {}
    broken: list[str] = []
    source = open_tensors(base) if base and arch else None
    try:
        for canonical, change in file.changes.items():
            key = change.layer.key
            weight = None
            if source is not None:
                weight = source.read(key.base, torch.float32, key.slice_rows)
                weight = weight.t() if change.layer.transform == "transpose" else weight
                base_norms[canonical] = float(torch.linalg.vector_norm(weight))
            found = layer_norm(file, canonical, weight)
            if found is None:
                continue
            norms[canonical] = found
            if not math.isfinite(found):
                broken.append(canonical)
    finally:
        if source is not None:
            source.close()
    zero = tuple(name for name, norm in norms.items() if norm == 0)
    return Numbers(norms, base_norms, tuple(broken), zero, hashes(file.path, file.metadata))


def layer_norm(file: NetworkFile, canonical: str, weight: torch.Tensor | None) -> float | None:
    """The Frobenius norm of a change; NaN for a broken one; None where the base would be needed or only a bias changes.

    Plain LoRA never forms the change.
    """
    from lora_core.errors import NotFinite
    from lora_core.factors import norm

    change = file.changes[canonical]
    try:
        if change.is_plain:
            return norm(file.module(canonical))
        if (change.is_dora or change.algorithm == "ia3") and weight is None:
            return None
        shape = tuple(weight.shape) if weight is not None else change.layer.key.shape
        delta = file.delta(canonical, weight, shape)
    except NotFinite:
        return math.nan
    return None if delta is None else float(torch.linalg.vector_norm(delta))


def hashes(path: Path, metadata: dict[str, str]) -> dict[str, tuple[str, str]]:
    """sshs_model_hash and sshs_legacy_hash: as stated in the file and as its bytes give them."""
    if path.suffix.lower() != ".safetensors":
        return {}
    computed = {"sshs_model_hash": data_hash(path), "sshs_legacy_hash": legacy_hash(path)}
    return {name: (metadata.get(name, ""), value) for name, value in computed.items()}


def trigger_words(metadata: dict[str, str]) -> tuple[str, ...]:
    """The trigger phrase, else the most frequent tags of the training."""
    phrase = metadata.get("modelspec.trigger_phrase", "")
    if phrase:
        return (phrase,)
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "") or "{}")
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError):
        return ()
    return tuple(tag for tag, _ in counts.most_common(TOP_TAGS))


def lines(found: Inspection) -> Iterator[str]:
    """The facts for a person."""
    layers = ", ".join(f"{name} x {count}" for name, count in found.components.items())
    kinds = ", ".join(f"{name} x {count}" for name, count in found.algorithms.items())
    yield f"{found.file}: {found.dialect}, {found.size / 1e6:.1f} MB"
    yield f"  family: {TITLES[found.family]} ({found.why})"
    yield f"  layers: {layers}; {kinds}; {', '.join(f'{n} x {c}' for n, c in found.dtypes.items())}"
    for label, block in found.blocks.items():
        yield f"  {label}: {block_line(block)}"
    if found.unmatched:
        yield f"  {len(found.unmatched)} tensors fit no layer: {', '.join(found.unmatched[:3])} ..."
    for verdict in found.verdicts:
        yield f"  {verdict.program} applies it {verdict.answer}" + (f": {verdict.reason}" if verdict.reason else "")
    if found.missing:
        yield f"  {len(found.missing)} layers of the model are left alone, e.g. {found.missing[0]}"
    if found.triggers:
        yield f"  trigger words: {', '.join(found.triggers)}"
    if found.numbers is not None:
        yield from number_lines(found.numbers)


def block_line(block: BlockFacts) -> str:
    ranks = ", ".join(f"{rank} x {count}" for rank, count in block.ranks.items())
    alphas = ", ".join(f"{alpha} x {count}" for alpha, count in block.alphas.items())
    norm = "" if block.norm is None else f"; |dW| {block.norm:.4g}"
    share = "" if block.share_of_base is None else f" ({block.share_of_base:.3%} of the base)"
    return f"rank {ranks}; alpha {alphas}{norm}{share}"


def number_lines(numbers: Numbers) -> Iterator[str]:
    for words, names in (("hold NaN or infinity", numbers.not_finite), ("change nothing (zero)", numbers.zero)):
        if names:
            yield f"  {len(names)} layers {words}, e.g. {names[0]}"
    for name, (stated, computed) in numbers.hashes.items():
        yield f"  {name}: " + ("right" if stated == computed else f"WRONG, {stated or 'missing'}; it is {computed}")


def checkpoint_facts(path: str | Path) -> dict[str, Any]:
    """What a base model is. Raises FileError or KeyMismatch."""
    from lora_core.architecture import architecture_of

    arch = architecture_of(path)
    return {
        "family": arch.family,
        "layout": arch.layout,
        "prediction": arch.prediction,
        "zero_terminal_snr": arch.zero_terminal_snr,
        "inpainting": arch.inpainting,
        "components": list(arch.components),
    }


def is_network(path: str | Path) -> bool:
    """Whether a file holds anything that NetworkFile reads; told from the header."""
    from lora_core.networks import split

    if Path(path).suffix.lower() == ".safetensors":
        return bool(split(read_header(path).tensors)[0])
    try:
        return bool(split(_names(path))[0])
    except FileError:
        return False
