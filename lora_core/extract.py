"""The difference of two checkpoints (or of two LoRAs) as a LoRA: layer by layer, by randomised SVD, errors measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lora_core.architecture import architecture_of, refuse_untrainable
from lora_core.commands import Commands
from lora_core.errors import ConfigError, KeyMismatch, NotFinite
from lora_core.events import Event, Finished, Note, Progress, Saved, Stage
from lora_core.factors import Share, balanced, concatenated, norm, truncated
from lora_core.families import TITLES
from lora_core.jobs.tools import ExtractJob
from lora_core.keys import ModuleKey, lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import read_lora
from lora_core.lora_metadata import Summary, last_part, minimal_metadata
from lora_core.lora_names import PARTS
from lora_core.merge import Loss, loss_report, rule_for, spelled
from lora_core.shapes import UNET, Architecture
from lora_core.svd import approximate
from lora_core.tensors import TensorSource, open_tensors
from lora_core.tool_files import FORMATS, check_inputs, check_output, heed, one_family, save_lora, summary_of

PROGRESS_EVERY = 8


@dataclass
class Found:
    """What was extracted so far; `zero` holds layers that are equal in both models."""

    modules: dict[str, LoraModule] = field(default_factory=dict)
    losses: dict[str, Loss] = field(default_factory=dict)
    zero: list[ModuleKey] = field(default_factory=list)


def extract(job: ExtractJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run an ExtractJob. Raises ConfigError, FileError, KeyMismatch, NotFinite, DiskFull; then nothing is written."""
    output = check_output(job.output, job.overwrite, [job.tuned, job.base])
    check_inputs(job.tuned, job.base)
    yield Stage("Reading the headers")
    kinds = [is_lora(path) for path in (job.tuned, job.base)]
    if kinds[0] != kinds[1]:
        raise ConfigError("One of the two files is a LoRA, the other a base model: both must be of the same kind.")
    yield from _between_loras(job, output, commands) if kinds[0] else _between_models(job, output, commands)


def is_lora(path: str) -> bool:
    """Whether a file holds LoRA factors. Raises FileError."""
    with open_tensors(path) as source:
        return any(name.endswith(tuple(PARTS)) for name in source.shapes if "lora" in name)


def _between_models(job: ExtractJob, output: Path, commands: Commands | None) -> Iterator[Event]:
    archs = architecture_of(job.tuned), architecture_of(job.base)
    for arch, path in zip(archs, (job.tuned, job.base)):
        refuse_untrainable(arch, path)
    pairs = paired(archs[0], archs[1], job)
    yield Stage("Extracting")
    found = Found()
    started = time.monotonic()
    with open_tensors(job.tuned) as tuned, open_tensors(job.base) as base, torch.no_grad():
        for done, (one, other) in enumerate(pairs):
            heed(commands, output)
            _extract_layer(job, found, (one, difference(tuned, base, one, other)))
            if done % PROGRESS_EVERY == 0 or done + 1 == len(pairs):
                left = (time.monotonic() - started) / (done + 1) * (len(pairs) - done - 1)
                yield Progress(done + 1, len(pairs), left, "layer")
    yield from _equal_parts(found, pairs)
    lora = Lora(found.modules, {}, archs[0].family)
    metadata = _metadata(job, lora, archs[0], output)
    yield from _saved(lora, found.losses, (output, metadata, job.dtype), archs[0])


def paired(tuned: Architecture, base: Architecture, job: ExtractJob) -> list[tuple[ModuleKey, ModuleKey]]:
    """The layers of both models. Raises KeyMismatch where they are no two versions of one model."""
    if tuned.family != base.family:
        raise KeyMismatch(f"The tuned model is {TITLES[tuned.family]}, the base {TITLES[base.family]}.")
    encoders = job.text_encoders and tuned.text_encoders != () and base.text_encoders != ()
    lists = [lora_targets(arch, job.conv, text_encoders=encoders) for arch in (tuned, base)]
    by_name = {key.canonical: key for key in lists[1]}
    lost = [k.canonical for k in lists[0] if k.canonical not in by_name or by_name[k.canonical].shape != k.shape]
    if lost or len(lists[0]) != len(lists[1]):
        raise KeyMismatch(f"The models are built differently: {(lost or ['a layer'])[0]} is not the same in both.")
    return [(key, by_name[key.canonical]) for key in lists[0]]


def difference(tuned: TensorSource, base: TensorSource, one: ModuleKey, other: ModuleKey) -> torch.Tensor:
    """tuned - base of one layer, float32, as a matrix [out, in * kh * kw]. Raises NotFinite."""
    change = tuned.read(one.base, torch.float32, one.slice_rows)
    change.sub_(base.read(other.base, torch.float32, other.slice_rows))
    if not bool(torch.isfinite(change).all()):
        raise NotFinite(f"{one.base} holds NaN or infinity in one of the models: the file is broken.")
    return change.flatten(1)


def _extract_layer(job: ExtractJob, found: Found, layer: tuple[ModuleKey, torch.Tensor]) -> None:
    key, matrix = layer
    if not bool(matrix.any()):
        found.zero.append(key)
        return
    generator = torch.Generator().manual_seed(job.seed)
    svd, error = approximate(matrix, rule_for(job, key.shape), job.power, generator)
    module = balanced(svd, key.shape)
    dtype = FORMATS[job.dtype]
    found.modules[key.canonical] = LoraModule(module.down.to(dtype), module.up.to(dtype), module.alpha)
    found.losses[key.canonical] = Loss(error, float(torch.linalg.vector_norm(matrix, dtype=torch.float64)))


def _equal_parts(found: Found, pairs: list[tuple[ModuleKey, ModuleKey]]) -> Iterator[Event]:
    """Components without any change are left out; single equal layers of the others become zeros.

    (A1111 applies OpenCLIP's fused q, k and v only where all of them and out_proj are in the file.)
    """
    changed = {canonical.partition(".")[0] for canonical in found.modules}
    if not changed:
        raise KeyMismatch("The two models are equal wherever a LoRA can change them; there is nothing to extract.")
    for component in dict.fromkeys(key.component for key, _ in pairs):
        if component not in changed:
            name = "UNet" if component == UNET else component.replace("_", " ")
            yield Note(f"The {name} is the same in both models and is left out.")
    for key in found.zero:
        if key.component in changed:
            ones = (1,) * (len(key.shape) - 2)
            down, up = torch.zeros(1, *key.shape[1:]), torch.zeros(key.shape[0], 1, *ones)
            found.modules[key.canonical] = LoraModule(down, up, 1.0)
            found.losses[key.canonical] = Loss(0.0, 0.0)


def _metadata(job: ExtractJob, lora: Lora, arch: Architecture, output: Path) -> dict[str, str]:
    summary, _ = summary_of(lora, job.title or output.stem)
    names = (last_part(job.tuned), last_part(job.base))
    summary = Summary(**{**vars(summary), "prediction": arch.prediction, "zero_terminal_snr": arch.zero_terminal_snr})
    return minimal_metadata(summary) | {
        "ss_output_name": output.stem,
        "ss_sd_model_name": names[1],
        "ss_training_comment": "extracted: {} minus {}".format(*names),
    }


def _saved(
    lora: Lora, losses: Mapping[str, Loss], result: tuple[Path, Mapping[str, str], str], arch: Architecture | None
) -> Iterator[Event]:
    output, metadata, dtype = result
    yield Stage("Saving")
    save_lora(output, lora, FORMATS[dtype], metadata, arch)
    yield Saved(str(output), "lora")
    report = loss_report(losses, lora.modules)
    yield Note(spelled(report))
    yield Finished((str(output),), report)


def _between_loras(job: ExtractJob, output: Path, commands: Commands | None) -> Iterator[Event]:
    """LoRA minus LoRA, exactly, then truncated."""
    loras = {path: read_lora(path) for path in (job.tuned, job.base)}
    family = one_family(loras)
    tuned, base = loras[job.tuned].modules, loras[job.base].modules
    names = list(dict.fromkeys((*tuned, *base)))
    yield Stage("Extracting")
    modules: dict[str, LoraModule] = {}
    losses: dict[str, Loss] = {}
    for done, name in enumerate(names):
        heed(commands, output)
        shares = [Share(sign, part[name]) for sign, part in ((1.0, tuned), (-1.0, base)) if name in part]
        whole = concatenated(shares)
        modules[name], error = truncated(whole, rule_for(job, whole.shape))
        losses[name] = Loss(error, norm(whole))
        if done % 32 == 0 or done + 1 == len(names):
            yield Progress(done + 1, len(names), unit="module")
    lora = Lora(modules, {}, family)
    summary, carried = summary_of(lora, job.title or output.stem, {p: one.metadata for p, one in loras.items()})
    comment = f"difference: {last_part(job.tuned)} minus {last_part(job.base)}"
    own = {"ss_output_name": output.stem, "ss_training_comment": comment}
    yield from _saved(lora, losses, (output, carried | minimal_metadata(summary) | own, job.dtype), None)
