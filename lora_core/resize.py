"""A LoRA at a smaller rank: each module by QR of its factors and an SVD of rank x rank, never the full matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from lora_core.commands import Commands
from lora_core.events import Event, Finished, Note, Progress, Saved, Stage
from lora_core.factors import norm, truncated
from lora_core.jobs.tools import ResizeJob
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import HASH_KEYS, read_lora
from lora_core.lora_metadata import minimal_metadata
from lora_core.merge import PROGRESS_EVERY, Loss, loss_report, rule_for, spelled
from lora_core.tool_files import (
    FORMATS,
    base_architecture,
    check_inputs,
    check_output,
    heed,
    save_lora,
    summary_of,
)


def resize(job: ResizeJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a ResizeJob. Raises ConfigError, FileError, KeyMismatch, NotFinite, DiskFull; then nothing is written."""
    output = check_output(job.output, job.overwrite, [job.lora])
    check_inputs(job.lora)
    yield Stage("Reading the LoRA")
    arch = base_architecture(job.base)
    lora = read_lora(job.lora, arch)
    yield Stage("Resizing")
    modules: dict[str, LoraModule] = {}
    losses: dict[str, Loss] = {}
    for done, (canonical, module) in enumerate(lora.modules.items()):
        heed(commands, output)
        modules[canonical], error = truncated(module, rule_for(job, module.shape))
        losses[canonical] = Loss(error, norm(module))
        if done % PROGRESS_EVERY == 0 or done + 1 == len(lora.modules):
            yield Progress(done + 1, len(lora.modules), unit="module")
    resized = Lora(modules, lora.metadata, lora.family)
    yield Stage("Saving")
    save_lora(output, resized, output_dtype(job.dtype, lora), resized_metadata(lora, resized, output), arch)
    yield Saved(str(output), "lora")
    report = loss_report(losses, modules)
    yield Note(spelled(report))
    yield Finished((str(output),), report)


def output_dtype(name: str, lora: Lora) -> torch.dtype:
    """The number format to save in; "same" is that of the LoRA's first factor."""
    first = next(iter(lora.modules.values())).up.dtype
    if name != "same":
        return FORMATS[name]
    return first if first in FORMATS.values() else torch.float16


def resized_metadata(before: Lora, after: Lora, output: Path) -> dict[str, str]:
    """The metadata of the original, completed and with what resizing changed; the training's comment is kept."""
    summary, _ = summary_of(after, before.metadata.get("modelspec.title") or output.stem, {"": before.metadata})
    ranks = (max(module.rank for module in lora.modules.values()) for lora in (before, after))
    comment = before.metadata.get("ss_training_comment", "None")
    words = "rank resized from {} to {}".format(*ranks) + ("" if comment == "None" else f"; {comment}")
    kept = {key: value for key, value in before.metadata.items() if key not in HASH_KEYS}
    fresh = minimal_metadata(summary)
    own = {"ss_training_comment": words, "ss_output_name": output.stem, "modelspec.title": summary.title}
    return fresh | kept | {k: fresh[k] for k in ("ss_network_dim", "ss_network_alpha")} | own
