"""LoRA-like files of other algorithms, read for applying: LoHa, LoKr, (IA)3, OFT, DoRA, full differences, norms."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_core.algorithms import change
from lora_core.architecture import Architecture
from lora_core.errors import KeyMismatch
from lora_core.lora import Lora
from lora_core.lora_file import read_lora
from lora_core.networks import ALGORITHMS, NetworkFile


@dataclass(frozen=True)
class OtherModule:
    """What a file does to one layer: an algorithm and its tensors, and the shape of the layer's weight."""

    name: str
    algorithm: str
    parts: Mapping[str, torch.Tensor]
    shape: tuple[int, ...]

    def delta(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The change of `weight`, fp32; None where only the bias changes. Raises KeyMismatch."""
        parts = {name: part.to(weight.device) for name, part in self.parts.items()}
        try:
            return change(self.algorithm, parts, tuple(weight.shape), weight.float())
        except KeyMismatch as error:
            kind = ALGORITHMS.get(self.algorithm, self.algorithm)
            raise KeyMismatch(f"{self.name} ({kind}) cannot be applied: {error}.") from None

    @property
    def bias(self) -> torch.Tensor | None:
        """The change of the bias, fp32."""
        found = self.parts.get("diff_b")
        return None if found is None else found.float()


@dataclass(frozen=True)
class OtherNetwork:
    """Like a `Lora`, with modules of any algorithm by canonical name."""

    modules: Mapping[str, OtherModule]
    metadata: Mapping[str, str]
    family: str


def read_any(path: str | Path, arch: Architecture) -> Lora | OtherNetwork:
    """A LoRA where the file is one, else its changes of any algorithm. Raises FileError, KeyMismatch, NotFinite."""
    try:
        return read_lora(path, arch)
    except KeyMismatch:
        found = _others(path, arch)
        if found is None:
            raise
        return found


def _others(path: str | Path, arch: Architecture) -> OtherNetwork | None:
    """None where the file is of another family, holds strange tensors, or nothing but plain LoRA."""
    with contextlib.suppress(KeyMismatch), NetworkFile(path, arch) as file:
        strange = [key for key in file.unmatched if not key.startswith("bundle_emb.")]
        if strange or all(c.is_plain and "diff_b" not in c.parts for c in file.changes.values()):
            return None
        return OtherNetwork(
            {n: OtherModule(c.name, c.algorithm, file.tensors(n), c.layer.key.shape) for n, c in file.changes.items()},
            file.metadata,
            file.family,
        )
    return None
