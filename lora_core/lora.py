"""A LoRA as values: pairs of low-rank factors by canonical module name (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LoraModule:
    """The change of one layer: delta W = up @ down * alpha / rank.

    Linear: down [r, in], up [out, r]. Convolution: down [r, in, kh, kw], up [out, r, 1, 1]; with `mid` [r, r, kh, kw]
    (Tucker form) down is [r, in, 1, 1].
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    mid: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the base weight that this changes."""
        kernel = (self.mid if self.mid is not None else self.down).shape[2:]
        return (int(self.up.shape[0]), int(self.down.shape[1]), *(int(n) for n in kernel))

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.down, self.up) if self.mid is None else (self.down, self.up, self.mid)

    def delta(self) -> torch.Tensor:
        """The change of the base weight, float32, in its shape [out, in] or [out, in, kh, kw]."""
        up, down = self.up.float().flatten(1), self.down.float()
        if self.mid is None:
            return (up @ down.flatten(1)).mul_(self.scale).reshape(self.shape)
        # [out, r] x [r, s, kh, kw] x [s, in] -> [out, in, kh, kw]
        return torch.einsum("or,rskl,si->oikl", up, self.mid.float(), down.flatten(1)).mul_(self.scale)


@dataclass(frozen=True)
class Lora:
    """Modules by canonical name, the file's metadata, and the family of the base: "sd1", "sd2" or "sdxl"."""

    modules: dict[str, LoraModule]
    metadata: dict[str, str]
    family: str
