"""A LoRA-like file put right: hashes, alphas, metadata, stray keys. Every factor keeps its bits and its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lora_core.commands import Commands
from lora_core.dialects import a1111_family
from lora_core.events import Event, Finished, Note, Saved, Stage
from lora_core.families import TITLES
from lora_core.inspect_file import hashes
from lora_core.jobs.files import RepairJob
from lora_core.lora_file import HASH_KEYS, write_kohya_tensors
from lora_core.lora_metadata import Summary, minimal_metadata
from lora_core.networks import NetworkFile
from lora_core.tool_files import base_architecture, check_inputs, check_output

TELLING = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha")
ARCHITECTURE = "modelspec.architecture"


def repair(job: RepairJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a RepairJob. Raises ConfigError, FileError, KeyMismatch, NotFinite, DiskFull; then nothing is written."""
    output = check_output(job.output, job.overwrite, [] if job.overwrite else [job.lora])
    check_inputs(job.lora)
    yield Stage("Reading the LoRA")
    with NetworkFile(job.lora, base_architecture(job.base)) as file:
        notes: list[str] = []
        tensors = repaired_tensors(file, notes)
        metadata = repaired_metadata(file, output, notes)
        for name, (stated, computed) in hashes(file.path, file.metadata).items():
            if stated != computed:
                notes.append(f"{name} was {stated or 'missing'}.")
    yield Stage("Saving")
    write_kohya_tensors(output, tensors, None, metadata)
    yield Saved(str(output), "lora")
    for note in notes:
        yield Note(note)
    yield Note(f"{len(notes)} faults repaired." if notes else "Nothing was wrong.")
    yield Finished((str(output),), {"repairs": notes, "tensors": len(tensors)})


def repaired_tensors(file: NetworkFile, notes: list[str]) -> dict[str, torch.Tensor]:
    """The tensors that belong to layers, alphas as float32; what was done is added to `notes`. Raises NotFinite."""
    if file.unmatched:
        some = ", ".join(sorted(file.unmatched)[:3])
        notes.append(f"{len(file.unmatched)} stray tensors taken out: {some}.")
    found: dict[str, torch.Tensor] = {}
    added, recast = 0, 0
    for canonical, change in file.changes.items():
        parts = file.tensors(canonical)
        for part, tensor in parts.items():
            if part not in ("alpha", "scale"):
                found[change.parts[part]] = tensor
        if change.style in ("peft", "diffusers", "diffusers old") and "alpha" not in parts:
            continue
        rank = file.rank(canonical)
        if rank is None and "alpha" not in parts:
            continue
        added += "alpha" not in parts
        recast += "alpha" in parts and (parts["alpha"].dtype != torch.float32 or parts["alpha"].dim() != 0)
        found[alpha_name(change.name, change.parts)] = alpha_of(parts, rank)
    if added:
        notes.append(f"{added} missing alphas added (alpha = rank, as every reader assumes).")
    if recast:
        notes.append(f"{recast} alphas were no plain float32 numbers.")
    return found


def alpha_name(module: str, parts: Mapping[str, str]) -> str:
    if "alpha" in parts:
        return parts["alpha"]
    first = next(iter(parts.values()))
    return first[: first.index(module) + len(module)] + ".alpha"


def alpha_of(parts: Mapping[str, torch.Tensor], rank: int | None) -> torch.Tensor:
    """alpha as a float32 scalar; a `scale` tensor becomes scale * rank."""
    if "scale" in parts and rank:
        return parts["scale"].float().reshape(-1)[0] * rank
    if "alpha" in parts:
        return parts["alpha"].float().reshape(-1)[0].clone()
    return torch.tensor(float(rank or 1))


def repaired_metadata(file: NetworkFile, output: Path, notes: list[str]) -> dict[str, str]:
    """The file's metadata, completed; wrong statements about family, rank and alpha are replaced."""
    before = {key: value for key, value in file.metadata.items() if key not in HASH_KEYS}
    fresh = minimal_metadata(summary(file, before.get("modelspec.title") or output.stem))
    if file.metadata and a1111_family(file.metadata) != file.family:
        title = TITLES[a1111_family(file.metadata)]
        notes.append(f"The metadata made A1111 list this {TITLES[file.family]} LoRA as {title}.")
    lost = [key for key in TELLING if key not in before]
    if lost:
        notes.append(f"Missing metadata added: {', '.join(lost)}.")
    found = fresh | before
    for key in ("ss_v2", "ss_base_model_version"):
        if a1111_family(before) != file.family or key not in before:
            found[key] = fresh[key]
    if not before.get(ARCHITECTURE, "").startswith(fresh[ARCHITECTURE].split("-v")[0]):
        found[ARCHITECTURE] = fresh[ARCHITECTURE]
    return found


def summary(file: NetworkFile, title: str) -> Summary:
    """Rank and alpha of the file as they are ("Dynamic" where they differ)."""
    ranks = {file.rank(name) for name in file.changes} - {None}
    alphas: set[float] = set()
    for change in file.changes.values():
        if "alpha" in change.parts:
            alphas.add(file.source.number(change.parts["alpha"]))
    rank = next(iter(ranks)) if len(ranks) == 1 else None
    alpha = next(iter(alphas)) if len(alphas) == 1 else None
    return Summary(file.family, "Dynamic" if rank is None else rank, _alpha_word(alpha, alphas, rank), title)


def _alpha_word(alpha: float | None, alphas: set[float], rank: int | None) -> float | str:
    if alpha is not None:
        return alpha
    return float(rank) if rank is not None and not alphas else "Dynamic"
