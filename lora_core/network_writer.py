"""Writing LoRA files in any dialect: modules, and changes of norms and biases, under given names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from lora_core.errors import KeyMismatch, NotFinite
from lora_core.lora import LoraModule
from lora_core.lora_file import write_kohya_tensors


class Extra(NamedTuple):
    """A change of a norm's weight and of a bias, either may be None."""

    diff: torch.Tensor | None
    bias: torch.Tensor | None


class Naming(NamedTuple):
    """Canonical name -> name in the file, and the endings of the factors."""

    names: Mapping[str, str]
    down: str
    up: str

    @property
    def is_kohya(self) -> bool:
        return next(iter(self.names.values())).startswith("lora_")


def write_network(
    path: Path,
    content: tuple[Mapping[str, LoraModule], Mapping[str, Extra]],
    naming: Naming,
    dtype: torch.dtype | None,
    metadata: Mapping[str, str],
) -> None:
    """Write modules and extras, given by canonical name.

    `dtype` None keeps each tensor's own format. Alphas stay float32; the sshs hashes are those of the final bytes; the
    file is verified before it gets its name.
    Raises KeyMismatch, NotFinite, FileError or DiskFull.
    """
    modules, extras = content
    names = naming.names
    tensors: dict[str, torch.Tensor] = {}
    for canonical, module in modules.items():
        name = names[canonical]
        tensors[f"{name}.alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
        tensors[name + naming.down] = module.down
        tensors[name + naming.up] = module.up
        if module.mid is not None:
            tensors[f"{name}.lora_mid.weight"] = module.mid
        if naming.down != ".lora_down.weight":
            del tensors[f"{name}.alpha"]
    for canonical, extra in extras.items():
        norm = naming.is_kohya and extra.diff is not None and extra.bias is not None
        for ending, tensor in zip((".w_norm", ".b_norm") if norm else (".diff", ".diff_b"), extra):
            if tensor is not None:
                tensors[names[canonical] + ending] = tensor
    if not tensors:
        raise KeyMismatch("Nothing is left to write: every layer was dropped.")
    broken = next((n for n, t in tensors.items() if not bool(torch.isfinite(t.float()).all())), "")
    if broken:
        raise NotFinite(f"{broken} holds NaN or infinity. The LoRA was not saved.")
    write_kohya_tensors(path, tensors, dtype, metadata)
