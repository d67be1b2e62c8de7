"""LoHa, LoKr, IA3 and OFT layers around a linear layer or a convolution, with the names and shapes of LyCORIS' files.

LoHa: Hyeon-Woo et al. 2021 (arXiv:2108.06098). LoKr: LyCORIS (arXiv:2309.14859), computed without forming the Kronecker
product. IA3: Liu et al. 2022 (arXiv:2205.05638). OFT: Qiu et al. 2023 (arXiv:2306.07280), Cayley form, no constraint.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lora_core.algorithms import loha, turning
from lora_core.engine.branch import Size
from lora_core.engine.dropping import ModuleDropout
from lora_core.jobs.network import Network as NetworkSettings


class ProductBranch(nn.Module):
    """A layer with parts of its own. Subclasses make the parts and compute."""

    def __init__(self, base: nn.Module, size: Size, settings: NetworkSettings) -> None:
        super().__init__()
        self.base_layer: Any = base
        self.size = size
        self.skips = ModuleDropout(settings.module_dropout)
        self.parts = nn.ParameterDict()
        self.settings = settings

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base_layer.bias

    @property
    def is_linear(self) -> bool:
        return isinstance(self.base_layer, nn.Linear)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.skips.falls():
            return self.base_layer(x)
        return self.branched(x)

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Parameter]:
        return dict(self.parts.items())  # pyright: ignore[reportReturnType]

    def constants(self) -> dict[str, torch.Tensor]:
        return {}

    def saved(self) -> dict[str, torch.Tensor]:
        """Part -> tensor as in the file."""
        return {"alpha": torch.tensor(self.size.alpha)} | {k: p.detach().float() for k, p in self.trained().items()}

    def fast(self) -> tuple[str, ...]:
        return ()

    def begin(self, draw: torch.Generator) -> None:
        raise NotImplementedError

    def changes(self) -> bool:
        """Whether the branch does anything: in each algorithm, the last part starts from 0."""
        return all(bool(part.detach().any()) for part in self.parts.values())

    def limit(self, longest: float) -> None:
        raise NotImplementedError

    def put(self, **tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            self.parts[name] = nn.Parameter(tensor.to(self.weight.device, torch.float32))

    def shrink(self, length: float, longest: float) -> None:
        """Scale all parts evenly, so that their product becomes `longest` long instead of `length`."""
        if length > longest:
            for part in self.parts.values():
                part.data.mul_((longest / length) ** (1 / len(self.parts)))

    def without_bias(self, x: torch.Tensor) -> torch.Tensor:
        """W x alone."""
        base, weight = self.base_layer, self.weight
        return F.linear(x, weight) if self.is_linear else base._conv_forward(x, weight, None)

    def with_bias(self, y: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return y
        return y + (self.bias if self.is_linear else self.bias[:, None, None])


def uniform(shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    """Kaiming-uniform as nn.Linear starts: within 1 / root of the inputs."""
    return (torch.rand(shape, generator=draw) * 2 - 1) / math.sqrt(math.prod(shape[1:]))


class LohaBranch(ProductBranch):
    """dW = (w1_a w1_b) * (w2_a w2_b) * alpha / rank, elementwise product."""

    def begin(self, draw: torch.Generator) -> None:
        out, rank = self.weight.shape[0], self.size.rank
        columns = math.prod(self.weight.shape[1:])
        self.put(
            hada_w1_a=torch.randn(out, rank, generator=draw) * 0.1,
            hada_w1_b=torch.randn(rank, columns, generator=draw),
            hada_w2_a=torch.zeros(out, rank),
            hada_w2_b=torch.randn(rank, columns, generator=draw),
        )

    def change(self) -> torch.Tensor:
        return loha(self.trained() | {"scale": torch.tensor(self.size.scale)}, tuple(self.weight.shape))

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        base, y = self.base_layer, self.base_layer(x)
        change = self.change().to(y.dtype)
        return y + (
            F.linear(x.to(y.dtype), change) if self.is_linear else base._conv_forward(x.to(y.dtype), change, None)
        )

    @torch.no_grad()
    def limit(self, longest: float) -> None:
        self.shrink(float(self.change().norm()), longest)


class LokrBranch(ProductBranch):
    """dW = kron(w1, w2) * alpha / rank; the scale is 1 when neither is a low-rank product."""

    def begin(self, draw: torch.Generator) -> None:
        out, inputs, rank = self.weight.shape[0], self.weight.shape[1], self.size.rank
        factor, kernel = self.settings.lokr_factor, tuple(self.weight.shape[2:])
        (a, b), (c, d) = split_in_two(out, factor), split_in_two(inputs, factor)
        if self.settings.lokr_both and rank < max(a, c) / 2:
            self.put(lokr_w1_a=uniform((a, rank), draw), lokr_w1_b=uniform((rank, c), draw))
        else:
            self.put(lokr_w1=uniform((a, c), draw))
        if rank < max(b, d) / 2:
            columns = d * math.prod(kernel)
            self.put(lokr_w2_a=torch.zeros(b, rank), lokr_w2_b=uniform((rank, columns), draw))
        else:
            self.put(lokr_w2=torch.zeros(b, d, *kernel))

    @property
    def scale(self) -> float:
        return self.size.scale if {"lokr_w1_a", "lokr_w2_a"} & set(self.parts) else 1.0

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """w1 [a, c] and w2 [b, d(, kh, kw)]."""
        p = self.parts
        w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
        w2 = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
        return w1, w2.reshape(w2.shape[0], self.weight.shape[1] // w1.shape[1], *self.weight.shape[2:])

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base_layer(x)
        w1, w2 = self.pair()
        w1, w2, c = (w1 * self.scale).to(y.dtype), w2.to(y.dtype), w1.shape[1]
        x = x.to(y.dtype)
        if self.is_linear:
            # [..., c, d] x [b, d] -> [..., c, b]; x [a, c] -> [..., a, b]
            inner = F.linear(x.unflatten(-1, (c, -1)), w2)
            return y + (w1 @ inner).flatten(-2)
        base, batch = self.base_layer, x.shape[0]
        # [n c, d, h, w] -> [n c, b, h', w'] -> [n, a, b h' w']
        inner = F.conv2d(x.unflatten(1, (c, -1)).flatten(0, 1), w2, None, base.stride, base.padding, base.dilation)
        return y + (w1 @ inner.reshape(batch, c, -1)).reshape(y.shape)

    @torch.no_grad()
    def limit(self, longest: float) -> None:
        w1, w2 = self.pair()
        self.shrink(float(w1.norm() * w2.norm()) * self.scale, longest)


def split_in_two(number: int, most: int = -1) -> tuple[int, int]:
    """number = m * n with m the largest divisor up to its root and up to `most` (-1: no limit)."""
    limit = math.isqrt(number) if most < 1 else min(most, math.isqrt(number))
    m = next(m for m in range(limit, 0, -1) if number % m == 0)
    return m, number // m


class Ia3Branch(ProductBranch):
    """dW = W * w, one factor per input (the last layer of a feed-forward block) or per output (keys and values)."""

    on_input = False

    def begin(self, draw: torch.Generator) -> None:
        self.put(weight=torch.zeros(self.weight.shape[1 if self.on_input else 0]))

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.parts["weight"].reshape((-1,) if self.is_linear else (-1, 1, 1))
        if self.on_input:
            return self.base_layer((x.float() * (1 + factor)).to(x.dtype))
        y = self.without_bias(x)
        return self.with_bias((y.float() * (1 + factor)).to(y.dtype))

    def saved(self) -> dict[str, torch.Tensor]:
        return {"weight": self.parts["weight"].detach().float()[None], "on_input": torch.tensor(int(self.on_input))}


class OftBranch(ProductBranch):
    """W' = R W, R block-diagonal with rotations (I + Q)(I - Q)^-1, Q = S - S^T, of at most `rank` outputs each."""

    def begin(self, draw: torch.Generator) -> None:
        size, blocks = split_in_two(self.weight.shape[0], self.size.rank)  # LyCORIS reads no larger blocks
        self.put(oft_blocks=torch.zeros(blocks, size, size))

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        turn = turning(self.parts["oft_blocks"])
        y = self.without_bias(x)
        blocks = turn.shape[0]
        if self.is_linear:
            turned = torch.einsum("knm,...kn->...km", turn, y.float().unflatten(-1, (blocks, -1))).flatten(-2)
        else:
            turned = torch.einsum("knm,bknhw->bkmhw", turn, y.float().unflatten(1, (blocks, -1))).flatten(1, 2)
        return self.with_bias(y + turned.to(y.dtype))

    def saved(self) -> dict[str, torch.Tensor]:
        # LyCORIS asks for an alpha, the constraint; 0 is none for every program
        return {"alpha": torch.tensor(0.0), "oft_blocks": self.parts["oft_blocks"].detach().float()}
