"""LoRA modules as products of two matrices: concatenating, truncating and rebuilding them without the full matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from lora_core.errors import KeyMismatch
from lora_core.lora import LoraModule
from lora_core.svd import RankRule, Svd, product_svd, tails


class Share(NamedTuple):
    """A module and the number that it is multiplied by."""

    weight: float
    module: LoraModule


def plain(module: LoraModule) -> LoraModule:
    """The same change without a middle factor (Tucker form): down [r, in, kh, kw], up [out, r, 1, 1]."""
    if module.mid is None:
        return module
    # [r, s, kh, kw] x [s, in] -> [r, in, kh, kw]
    down = torch.einsum("rskl,si->rikl", module.mid.float(), module.down.float().flatten(1))
    return LoraModule(down, module.up, module.scale * down.shape[0])


def shaped(up: torch.Tensor, down: torch.Tensor, shape: Sequence[int], alpha: float) -> LoraModule:
    """A module from matrices up [out, r], down [r, in * kh * kw] for a weight of `shape`."""
    rank = down.shape[0]
    ones = (1,) * (len(shape) - 2)
    return LoraModule(down.reshape(rank, *shape[1:]).contiguous(), up.reshape(-1, rank, *ones).contiguous(), alpha)


def concatenated(shares: Sequence[Share]) -> LoraModule:
    """The exact weighted sum of modules: ranks add, sum_i w_i s_i up_i down_i = [w_1 s_1 up_1 ...] [down_1; ...].

    The largest |w_i s_i| becomes the scale alpha / rank, so that its factors keep every bit and no factor grows. A
    single module of weight 1 comes back as it is. Raises KeyMismatch when the modules change weights of other shapes.
    """
    _same_shape(shares)
    if len(shares) == 1 and shares[0].weight == 1:
        return shares[0].module
    modules = [plain(share.module) for share in shares]
    scales = [share.weight * module.scale for share, module in zip(shares, modules)]
    largest = max(abs(scale) for scale in scales) or 1.0
    ups = [_times(module.up, scale / largest) for module, scale in zip(modules, scales)]
    down = torch.cat([module.down.float().flatten(1) for module in modules])
    up = torch.cat([up.float().flatten(1) for up in ups], 1)
    return shaped(up, down, modules[0].shape, largest * down.shape[0])


def _times(tensor: torch.Tensor, number: float) -> torch.Tensor:
    return tensor if number == 1 else tensor.float() * number


def _same_shape(shares: Sequence[Share]) -> None:
    shapes = {share.module.shape for share in shares}
    if len(shapes) != 1:
        spelled = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise KeyMismatch(f"the LoRAs change weights of different shapes ({spelled}): they were made for other models.")


def truncated(module: LoraModule, rule: RankRule) -> tuple[LoraModule, float]:
    """The best approximation of a module of the rank that the rule chooses, and its relative Frobenius error.

    Keeps alpha / rank as it was. A module that keeps all of its rank comes back as it is.
    """
    if module.mid is None and rule.method == "fixed" and not 0 < rule.rank < module.rank:
        return module, 0.0
    flat = plain(module)
    found = product_svd(flat.up.float().flatten(1), flat.down.float().flatten(1))
    rank = rule.kept(found.s)
    if rank >= module.rank and module.mid is None:
        return module, 0.0
    error = float(tails(found.s)[rank]) if rank < len(found.s) else 0.0
    # the product of the factors is the change / scale, and so is what `found` holds
    return balanced(found.first(rank), module.shape, flat.scale, flat.scale), error


def balanced(found: Svd, shape: Sequence[int], scale: float = 1.0, times: float = 1.0) -> LoraModule:
    """A module with alpha / rank = `scale` that changes a weight of `shape` by u s vh * times.

    Both factors get the root of each singular value, so that neither leaves the range of half precision.
    """
    root = (found.s * abs(times / scale)).sqrt() if scale else found.s
    sign = math.copysign(1.0, times) * math.copysign(1.0, scale)
    return shaped(found.u * (root * sign), found.vh * root[:, None], shape, scale * len(found.s))


def folded(module: LoraModule) -> LoraModule:
    """The same change with alpha = rank, for formats without an alpha: the scale goes into `up`."""
    flat = plain(module)
    return LoraModule(flat.down, _times(flat.up, flat.scale), float(flat.rank))


def norm(module: LoraModule) -> float:
    """The Frobenius norm of the change, without forming it: |up down|^2 = sum((up^T up) * (down down^T))."""
    flat = plain(module)
    up, down = flat.up.flatten(1).double(), flat.down.flatten(1).double()
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return math.sqrt(max(square, 0.0)) * abs(flat.scale)


def difference(found: LoraModule, wanted: LoraModule) -> float:
    """|found - wanted| / |wanted|, exactly, from the factors; 0 when both are zero."""
    parts = concatenated([Share(1.0, found), Share(-1.0, wanted)])
    whole = norm(wanted)
    flat = plain(parts)
    s = product_svd(flat.up.flatten(1), flat.down.flatten(1)).s
    distance = float(torch.linalg.vector_norm(s.double())) * abs(flat.scale)
    return distance / whole if whole else (0.0 if distance == 0 else math.inf)
