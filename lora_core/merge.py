"""Several LoRAs into one: exact by concatenation, truncated, or by a published method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from lora_core import merge_methods
from lora_core.block_weights import weigher
from lora_core.commands import Commands
from lora_core.errors import KeyMismatch
from lora_core.events import Event, Finished, Note, Progress, Saved, Stage
from lora_core.factors import Share, balanced, concatenated, norm, truncated
from lora_core.jobs.tools import EXACT, SVD, MergeJob
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import read_lora
from lora_core.svd import RankRule, approximate
from lora_core.tool_files import (
    FORMATS,
    base_architecture,
    check_inputs,
    check_output,
    heed,
    made_metadata,
    one_family,
    save_lora,
)

PROGRESS_EVERY = 32


class Loss(NamedTuple):
    """How much of a module a truncation lost: relative Frobenius error, and the norm of the whole."""

    error: float
    norm: float


def merge(job: MergeJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a MergeJob. Raises ConfigError, FileError, KeyMismatch, NotFinite, DiskFull; then nothing is written."""
    output = check_output(job.output, job.overwrite, [use.path for use in job.loras])
    check_inputs(*(use.path for use in job.loras))
    yield Stage("Reading the LoRAs")
    arch = base_architecture(job.base)
    loras = {use.path: read_lora(use.path, arch) for use in job.loras}
    family = one_family(loras)
    shares = collect([(loras[use.path], weigher(use, _line(job.blocks, i), family)) for i, use in enumerate(job.loras)])
    yield Stage("Merging")
    modules: dict[str, LoraModule] = {}
    losses: dict[str, Loss] = {}
    for done, (canonical, parts) in enumerate(shares.items()):
        heed(commands, output)
        modules[canonical], error = merge_module(parts, job, canonical)
        losses[canonical] = Loss(error, norm(modules[canonical]) / math.sqrt(max(1 - min(error, 1) ** 2, 1e-12)))
        if done % PROGRESS_EVERY == 0 or done + 1 == len(shares):
            yield Progress(done + 1, len(shares), unit="module")
    merged = Lora(modules, {}, family)
    metadata = made_metadata(merged, output, job.title, {path: lora.metadata for path, lora in loras.items()})
    yield Stage("Saving")
    save_lora(output, merged, FORMATS[job.dtype], metadata, arch)
    yield Saved(str(output), "lora")
    report = loss_report(losses, modules)
    yield Note(spelled(report))
    yield Finished((str(output),), report)


def _line(lines: Sequence[str], index: int) -> str:
    return lines[index] if index < len(lines) else ""


def collect(loras: Sequence[tuple[Lora, Callable[[str], float]]]) -> dict[str, list[Share]]:
    """Canonical name -> weighted modules; those of weight 0 are as if they were not there.

    Raises KeyMismatch when nothing is left.
    """
    found: dict[str, list[Share]] = {}
    for lora, weight in loras:
        for canonical, module in lora.modules.items():
            if weight(canonical) != 0:
                found.setdefault(canonical, []).append(Share(weight(canonical), module))
    if not found:
        raise KeyMismatch("Nothing is left to merge: every strength is 0.")
    return found


def merge_module(parts: Sequence[Share], job: MergeJob, canonical: str) -> tuple[LoraModule, float]:
    """One module of the result and its relative error. Raises KeyMismatch that names the module."""
    try:
        whole = concatenated(parts)
    except KeyMismatch as error:
        raise KeyMismatch(f"{canonical}: {error}") from None
    if job.method == EXACT:
        return whole, 0.0
    rule = rule_for(job, whole.shape)
    if job.method == SVD:
        return truncated(whole, rule)
    changes = torch.stack([share.module.delta().flatten(1) for share in parts])
    weights = torch.tensor([share.weight for share in parts])
    generator = torch.Generator().manual_seed(job.seed ^ _stable_number(canonical))
    change = by_method(job, changes, weights, generator)
    found, error = approximate(change, rule, generator=generator)
    return balanced(found, whole.shape), error


def by_method(job: MergeJob, changes: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The merged change of one weight, by the job's published method."""
    if job.method == "ties":
        return merge_methods.ties(changes, weights, job.density, job.sign)
    if job.method == "dare_linear":
        return merge_methods.dare_linear(changes, weights, job.density, generator)
    if job.method == "dare_ties":
        return merge_methods.dare_ties(changes, weights, job.density, job.sign, generator)
    if job.method == "sce":
        return merge_methods.sce(changes, weights, job.density)
    return merge_methods.magnitude_prune(changes, weights, job.density)


def _stable_number(text: str) -> int:
    """A number from a name, the same in every process."""
    return int.from_bytes(text.encode()[-7:], "little")


class RankChoice(Protocol):
    """A job that chooses ranks."""

    @property
    def rank(self) -> int: ...
    @property
    def conv_rank(self) -> int: ...
    @property
    def rule(self) -> str: ...
    @property
    def value(self) -> float: ...


def rule_for(job: RankChoice, shape: Sequence[int]) -> RankRule:
    """The rank rule of a job for a weight of this shape."""
    conv = len(shape) == 4 and tuple(shape[2:]) != (1, 1)
    return RankRule(job.rule, job.value, (job.conv_rank or job.rank) if conv else job.rank)


def loss_report(losses: Mapping[str, Loss], modules: Mapping[str, LoraModule]) -> dict[str, object]:
    """Figures for `Finished`: modules, ranks, and the error of the whole, the worst module and every module."""
    whole = sum(loss.norm**2 for loss in losses.values())
    lost = sum((loss.error * loss.norm) ** 2 for loss in losses.values())
    worst = max(losses, key=lambda name: losses[name].error)
    return {
        "modules": len(modules),
        "largest_rank": max(module.rank for module in modules.values()),
        "smallest_rank": min(module.rank for module in modules.values()),
        "error": math.sqrt(lost / whole) if whole else 0.0,
        "worst_error": losses[worst].error,
        "worst_module": worst,
        "errors": {name: loss.error for name, loss in losses.items()},
        "ranks": {name: module.rank for name, module in modules.items()},
    }


def spelled(report: Mapping[str, object]) -> str:
    """The report in a sentence."""
    low, high = report["smallest_rank"], report["largest_rank"]
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    error = float(str(report["error"]))
    if error == 0:
        return f"{report['modules']} modules, {ranks}; nothing was lost."
    return (
        f"{report['modules']} modules, {ranks}; relative error {error:.2%} of the whole change, "
        f"at worst {float(str(report['worst_error'])):.2%} ({report['worst_module']})."
    )
