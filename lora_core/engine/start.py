"""Training on from a LoRA-like file of any dialect: which modules it has, and how they fill the branches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_core.algorithms import change
from lora_core.engine.branch import DoraBranch, LoraBranch, Size
from lora_core.engine.network import Branch, Network
from lora_core.errors import ConfigError, KeyMismatch
from lora_core.factors import balanced, plain, truncated
from lora_core.jobs.network import FACTORED
from lora_core.jobs.train import TrainJob
from lora_core.lora import LoraModule
from lora_core.networks import ALGORITHMS, NetworkFile
from lora_core.shapes import Architecture
from lora_core.svd import RankRule, approximate


@dataclass(frozen=True)
class StartModule:
    """One module of the file; `module` when its change is a LoRA (with DoRA's magnitude among the parts, or not)."""

    algorithm: str
    parts: Mapping[str, torch.Tensor]
    rank: int | None
    module: LoraModule | None


@dataclass(frozen=True)
class Start:
    """What a training starts from: the file's name, and its modules by canonical name."""

    name: str
    modules: Mapping[str, StartModule]
    left_out: int


def read_start(job: TrainJob, architecture: Architecture, trained: Iterable[str]) -> Start:
    """The modules of the file that are trained. Raises ConfigError when there are none, KeyMismatch, FileError."""
    parts = set(trained)
    with NetworkFile(job.network.start_from, architecture) as file:
        kept = [n for n, c in file.changes.items() if c.layer.listed and n.split(".")[0] in parts]
        modules = {name: _module(file, name) for name in kept}
        left_out = len(file.changes) - len(kept)
    name = Path(job.network.start_from).name
    if not modules:
        raise ConfigError(f"{name} has no module of what is to be trained: {', '.join(sorted(parts))}.")
    return Start(name, modules, left_out)


def _module(file: NetworkFile, canonical: str) -> StartModule:
    one, parts = file.changes[canonical], file.tensors(canonical)
    if one.algorithm != "lora":
        return StartModule(one.algorithm, parts, file.rank(canonical), None)
    shape, down, up = one.layer.key.shape, parts["down"].float(), parts["up"].float()
    rank = down.shape[0]
    scale = parts["scale"].reshape(-1)[0] if "scale" in parts else parts.get("alpha", torch.tensor(rank)) / rank
    ones = (1,) * (len(shape) - 2)
    if "mid" in parts:
        found = plain(LoraModule(down.reshape(rank, -1, 1, 1), up, float(scale) * rank, parts["mid"]))
        down, up, rank = found.down, found.up, found.rank
    try:
        module = LoraModule(down.reshape(rank, *shape[1:]), up.reshape(shape[0], rank, *ones), float(scale) * rank)
    except RuntimeError:
        raise KeyMismatch(
            f"{file.path.name}: {one.name} has factors {list(down.shape)} and {list(up.shape)} for a layer of "
            f"{list(shape)}: it was made for another model."
        ) from None
    return StartModule("dora" if one.is_dora else "lora", parts, rank, module)


def start_sizes(job: TrainJob, start: Start, wanted: Mapping[str, Size]) -> dict[str, Size]:
    """The sizes of the branches: the file's where the job says so, else those of the settings (`wanted`)."""
    if not job.network.rank_from_start:
        return dict(wanted)
    found: dict[str, Size] = {}
    for name, one in start.modules.items():
        if one.module is not None and job.network.algorithm in FACTORED:
            found[name] = Size(one.module.rank, one.module.alpha)
        elif job.network.algorithm in FACTORED:
            found[name] = wanted.get(name, Size(job.network.rank, job.network.alpha))
        else:
            found[name] = _own_size(one)
    return found


def _own_size(one: StartModule) -> Size:
    """Rank and alpha of LoHa, LoKr, OFT; a LoKr without low-rank products has the rank that makes none."""
    blocks = one.parts.get("oft_blocks")
    rank = one.rank or (int(blocks.shape[-1]) if blocks is not None else 1024)
    alpha = one.parts.get("alpha")
    return Size(rank, float(alpha.reshape(-1)[0]) if alpha is not None and one.rank else float(rank))


def fill(network: Network, start: Start, algorithm: str) -> list[str]:
    """Put the file's numbers into the branches; sentences on what had to be changed for it.

    Raises KeyMismatch when the file's algorithm or shapes are not those of the training.
    """
    errors: list[float] = []
    resized = 0
    for name, branch in network.branches.items():
        one = start.modules.get(name)
        if one is None:
            continue
        if isinstance(branch, LoraBranch):
            errors.append(_fill_factors(branch, one, start.name))
            resized += one.module is not None and one.module.rank != branch.size.rank
        else:
            _fill_parts(branch, one, algorithm, f"{start.name}: {name}")
    return _sentences(network, start, errors, resized)


def _sentences(network: Network, start: Start, errors: list[float], resized: int) -> list[str]:
    found: list[str] = []
    lost = len(start.modules.keys() - network.branches.keys()) + start.left_out
    if lost:
        found.append(f"{lost} modules of {start.name} are not trained here, so the new LoRA is without them.")
    new = len(network.branches.keys() - start.modules.keys())
    if new:
        found.append(f"{new} modules are not in {start.name} and start from nothing.")
    changed = [error for error in errors if error > 0]
    if changed:
        worst = max(changed)
        found.append(f"{len(changed)} modules of {start.name} were approximated by SVD; largest error {worst:.1%}.")
    if resized:
        found.append(f"{resized} modules of {start.name} had another rank and were cut or padded.")
    return found


@torch.no_grad()
def _fill_factors(branch: Any, one: StartModule, name: str) -> float:
    """Returns the relative error of what had to be approximated, 0 for none."""
    weight = branch.base_layer.weight.detach().float().cpu()
    magnitude = one.parts.get("dora_scale")
    keeps = isinstance(branch, DoraBranch) and magnitude is not None and magnitude.shape[0] == 1
    module, error = one.module, 0.0
    if module is None or (one.algorithm == "dora" and not keeps):
        delta = _delta(one, weight, name)
        svd, error = approximate(
            delta.flatten(1), RankRule("fixed", rank=min(branch.size.rank, *delta.flatten(1).shape))
        )
        module = balanced(svd, tuple(weight.shape), branch.size.scale)
    elif module.rank > branch.size.rank:
        module, error = truncated(module, RankRule("fixed", rank=branch.size.rank))
    ratio = module.scale / branch.size.scale
    root = math.sqrt(abs(ratio))
    branch.down.data[: module.rank] = module.down.to(branch.down.device) * root
    branch.up.data.zero_()
    branch.up.data[:, : module.rank] = module.up.to(branch.up.device) * math.copysign(root, ratio)
    if isinstance(branch, DoraBranch):
        branch.dora_scale.copy_(magnitude.float().flatten() if keeps and magnitude is not None else branch.norms())
    return error


def _delta(one: StartModule, weight: torch.Tensor, name: str) -> torch.Tensor:
    delta = change("lora" if one.algorithm == "dora" else one.algorithm, one.parts, tuple(weight.shape), weight)
    if delta is None:
        raise KeyMismatch(f"{name} changes a bias alone, which cannot be trained on.")
    return delta


@torch.no_grad()
def _fill_parts(branch: Branch, one: StartModule, algorithm: str, where: str) -> None:
    if one.algorithm != algorithm:
        raise KeyMismatch(
            f"{where} is {ALGORITHMS.get(one.algorithm, one.algorithm)}; to train {algorithm} on from it is not "
            "possible. Set the algorithm to that of the file, or to lora."
        )
    for part, parameter in branch.trained().items():
        given = one.parts.get(part)
        if given is None or given.numel() != parameter.numel():
            held = "no " + part if given is None else f"{part} {list(given.shape)}"
            raise KeyMismatch(f"{where} holds {held}, the training {list(parameter.shape)}: set rank and factor alike.")
        parameter.copy_(given.float().reshape(parameter.shape))
