"""The change of one weight by each algorithm of LoRA-like files. Pure functions in float32.

W [out, in] or [out, in, kh, kw]; the change has W's shape. LoHa: Hyeon-Woo et al. 2021 (arXiv:2108.06098); LoKr:
LyCORIS (arXiv:2309.14859); IA3: Liu et al. 2022 (arXiv:2205.05638); DoRA: Liu et al. 2024 (arXiv:2402.09353);
OFT: Qiu et al. 2023 (arXiv:2306.07280).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lora_core.errors import KeyMismatch

Parts = Mapping[str, torch.Tensor]
NEEDS_BASE = ("ia3", "oft")


def scale_of(parts: Parts, rank: int | None) -> float:
    """alpha / rank; 1 without alpha or rank; a `scale` tensor replaces it."""
    if "scale" in parts:
        return float(parts["scale"].reshape(-1)[0])
    if "alpha" not in parts or not rank:
        return 1.0
    return float(parts["alpha"].reshape(-1)[0]) / rank


def change(
    algorithm: str, parts: Parts, shape: Sequence[int], weight: torch.Tensor | None = None
) -> torch.Tensor | None:
    """The change of a weight of `shape`; None where the algorithm changes the bias alone.

    `weight` is the base's, needed for IA3 and DoRA. Raises KeyMismatch when the parts do not make that shape, or the
    weight is needed and not given.
    """
    functions = {"lora": lora, "loha": loha, "lokr": lokr, "full": full, "norm": full}
    if algorithm == "ia3":
        return ia3(parts, _needed(weight))
    if algorithm == "oft":
        return oft(parts, _needed(weight))
    if algorithm not in functions:
        raise KeyMismatch(f"{algorithm} networks cannot be applied")
    if "dora_scale" in parts or "magnitude" in parts:
        weight = _needed(weight)
    try:
        found = functions[algorithm](parts, tuple(shape))
    except (RuntimeError, KeyError) as error:
        raise KeyMismatch(f"its tensors do not make a change of shape {list(shape)} ({error})") from None
    if found is not None and "dora_scale" in parts:
        return dora(found, parts["dora_scale"], _needed(weight), False)
    if found is not None and "magnitude" in parts:
        return dora(found, parts["magnitude"], _needed(weight), True)
    return found


def _needed(weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        raise KeyMismatch("its change depends on the base's weights; name the base model")
    return weight.float()


def lora(parts: Parts, shape: tuple[int, ...]) -> torch.Tensor:
    """up @ down * alpha / rank; with a middle factor in Tucker form."""
    down, up = parts["down"].float(), parts["up"].float().flatten(1)
    scale = scale_of(parts, down.shape[0])
    if "mid" in parts:
        product = torch.einsum("or,rskl,si->oikl", up, parts["mid"].float(), down.flatten(1))
    else:
        product = up @ down.flatten(1)
    return product.mul_(scale).reshape(shape)


def _tucker(core: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # core [p, q, kh, kw], a [p, out], b [q, in] -> [out, in, kh, kw]
    return torch.einsum("pqkl,po,qi->oikl", core.float(), a.float(), b.float())


def loha(parts: Parts, shape: tuple[int, ...]) -> torch.Tensor:
    """(w1_a @ w1_b) * (w2_a @ w2_b) * alpha / rank."""
    w1a, w1b, w2a, w2b = (parts[f"hada_{name}"].float() for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    scale = scale_of(parts, w1b.shape[0])
    if "hada_t1" in parts:
        product = _tucker(parts["hada_t1"], w1a, w1b) * _tucker(parts["hada_t2"], w2a, w2b)
    else:
        product = (w1a @ w1b) * (w2a @ w2b)
    return product.mul_(scale).reshape(shape)


def lokr(parts: Parts, shape: tuple[int, ...]) -> torch.Tensor:
    """kron(w1, w2) * alpha / rank; rank is that of the factored one (w2's if both are), and the scale 1 if none is."""
    rank: int | None = None
    if "lokr_w1" in parts:
        w1 = parts["lokr_w1"].float()
    else:
        w1, rank = parts["lokr_w1_a"].float() @ parts["lokr_w1_b"].float(), parts["lokr_w1_b"].shape[0]
    if "lokr_w2" in parts:
        w2 = parts["lokr_w2"].float()
    else:
        a, b = parts["lokr_w2_a"].float(), parts["lokr_w2_b"].float()
        rank = b.shape[0]
        w2 = _tucker(parts["lokr_t2"], a, b) if "lokr_t2" in parts else a @ b
    if w2.dim() == 4:
        w1 = w1[:, :, None, None]
    return torch.kron(w1, w2.contiguous()).mul_(scale_of(parts, rank)).reshape(shape)


def full(parts: Parts, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The difference itself."""
    return parts["diff"].float().reshape(shape) if "diff" in parts else None


def ia3(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """W * w, w one number per input or per output channel."""
    vector = parts["weight"].float().flatten()
    on_input = bool(parts["on_input"].item()) if "on_input" in parts else vector.numel() == weight.shape[1]
    axis = 1 if on_input else 0
    if vector.numel() != weight.shape[axis]:
        raise KeyMismatch(f"{vector.numel()} factors do not fit a weight of shape {list(weight.shape)}")
    return weight * vector.reshape([-1 if i == axis else 1 for i in range(weight.dim())])


def turning(blocks: torch.Tensor) -> torch.Tensor:
    """R - I [k, n, n] for the rotations R = (I + Q)(I - Q)^-1 with Q = S - S^T, S [k, n, n]: 2 Q (I - Q)^-1.

    The difference alone, so that little is lost where it is rounded to half precision.
    """
    q = blocks.float() - blocks.float().transpose(1, 2)
    return 2 * q @ torch.linalg.inv(torch.eye(q.shape[1], device=q.device) - q)


def oft(parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """R^T W - W, R block-diagonal along the outputs; `oft_blocks` [k, n, n]. Raises KeyMismatch for other forms.

    A constraint (alpha) is read differently by the hosts, so a file that has one is refused.
    """
    blocks = parts.get("oft_blocks")
    if blocks is None or blocks.dim() != 3 or blocks.shape[0] * blocks.shape[1] != weight.shape[0]:
        raise KeyMismatch("OFT networks are read as oft_blocks [blocks, size, size] that cover the outputs")
    if "alpha" in parts and float(parts["alpha"].reshape(-1)[0]):
        raise KeyMismatch("this OFT network has a constraint (alpha), which programs read in different ways")
    split = weight.reshape(blocks.shape[0], blocks.shape[1], -1)
    return torch.einsum("knm,kni->kmi", turning(blocks).to(weight.device), split).reshape(weight.shape)


def dora(delta: torch.Tensor, magnitude: torch.Tensor, weight: torch.Tensor, output_axis: bool) -> torch.Tensor:
    """m * (W + delta) / |W + delta| - W, the norm along the axis that m has.

    LyCORIS keeps m as [1, in, ...] (or [out, 1, ...] where its first axis is not 1); PEFT's is always of the outputs.
    """
    if tuple(delta.shape) != tuple(weight.shape):
        raise KeyMismatch(f"a change of shape {list(delta.shape)} does not fit a weight of {list(weight.shape)}")
    axis = 0 if output_axis or magnitude.shape[0] != 1 else 1
    tuned = weight + delta
    others = [i for i in range(tuned.dim()) if i != axis]
    length = torch.linalg.vector_norm(tuned, dim=others, keepdim=True)
    if magnitude.numel() != tuned.shape[axis]:
        raise KeyMismatch(f"{magnitude.numel()} magnitudes do not fit a weight of shape {list(weight.shape)}")
    m = magnitude.float().reshape(length.shape)
    return tuned * (m / length.clamp(min=torch.finfo(torch.float32).eps)) - weight
