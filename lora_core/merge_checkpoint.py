"""LoRAs into a checkpoint, tensor by tensor from file to file: memory is two tensors, one in float32."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from lora_core import __version__
from lora_core.architecture import detect, refuse_untrainable
from lora_core.block_weights import weigher
from lora_core.commands import Commands
from lora_core.errors import DiskFull, FileError, KeyMismatch, NotFinite
from lora_core.events import Event, Finished, Note, Progress, Saved, Stage
from lora_core.jobs.tools import MergeIntoCheckpointJob
from lora_core.networks import Change, NetworkFile
from lora_core.shapes import Architecture
from lora_core.tensor_writer import TensorWriter
from lora_core.tensors import TensorInfo, TensorSource, open_tensors, read_header
from lora_core.tool_files import FORMATS, check_inputs, check_output, heed

PROGRESS_EVERY = 64


class Target(NamedTuple):
    """A change of a checkpoint tensor: which file and layer, times what, and whether of the weight or the bias."""

    file: NetworkFile
    canonical: str
    weight: float
    bias: bool = False

    @property
    def change(self) -> Change:
        return self.file.changes[self.canonical]


@dataclass(frozen=True)
class Plan:
    """Checkpoint tensor -> its changes; how many layers each LoRA changes."""

    targets: dict[str, list[Target]]
    counts: dict[str, int]


def merge_into_checkpoint(job: MergeIntoCheckpointJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a MergeIntoCheckpointJob. Raises ConfigError, FileError, KeyMismatch, NotFinite or DiskFull.

    After an error nothing is left behind, and an older file of the output's name is as it was.
    """
    output = check_output(job.output, job.overwrite, [job.base, *(use.path for use in job.loras)])
    check_inputs(job.base, *(use.path for use in job.loras))
    started = time.monotonic()
    yield Stage("Reading the headers")
    with open_checkpoint(job.base) as base:
        arch = detect(base.shapes, base.metadata)
        refuse_untrainable(arch, job.base)
        files: list[NetworkFile] = []
        try:
            for use in job.loras:
                files.append(NetworkFile(use.path, arch))
            weights = [weigher(use, _line(job.blocks, i), arch.family) for i, use in enumerate(job.loras)]
            plan = plan_merge(files, weights, base.shapes)
            yield Stage("Merging")
            metadata = checkpoint_metadata(base.metadata, arch, job, output)
            yield from _stream(base, plan, job.dtype, (output, metadata), commands)
        finally:
            for file in files:
                file.source.close()
    _copy_config(Path(job.base), output)
    yield Saved(str(output), "checkpoint")
    told = ", ".join(f"{Path(name).name}: {count} layers" for name, count in plan.counts.items())
    yield Note(f"{told}; {len(plan.targets)} tensors changed.")
    seconds = time.monotonic() - started
    report = {"layers": plan.counts, "tensors_changed": len(plan.targets), "seconds": seconds}
    yield Finished((str(output),), report)


def _copy_config(base: Path, output: Path) -> None:
    """A1111 reads the kind of prediction of SD2 models from NAME.yaml beside them."""
    config = base.with_suffix(".yaml")
    if config.is_file() and not output.with_suffix(".yaml").exists():
        shutil.copyfile(config, output.with_suffix(".yaml"))


def _line(lines: Sequence[str], index: int) -> str:
    return lines[index] if index < len(lines) else ""


def open_checkpoint(path: str) -> TensorSource:
    """A checkpoint in one file (a pickle through weights_only is held in memory). Raises FileError."""
    if Path(path).is_dir():
        raise FileError(f"{Path(path).name} is a folder; LoRAs can be merged into a checkpoint of one file only.")
    return open_tensors(path)


def plan_merge(
    files: Sequence[NetworkFile], weights: Sequence[Callable[[str], float]], shapes: Mapping[str, tuple[int, ...]]
) -> Plan:
    """Which tensors are changed by what. Raises KeyMismatch unless every tensor of every LoRA has its place."""
    targets: dict[str, list[Target]] = {}
    counts: dict[str, int] = {}
    for file, weight in zip(files, weights):
        if file.unmatched:
            some = ", ".join(sorted(file.unmatched)[:3])
            raise KeyMismatch(
                f"{file.path.name}: {len(file.unmatched)} of its tensors have no place here, e.g. {some}."
            )
        used = {name: weight(name) for name in file.changes if weight(name) != 0}
        for canonical, number in used.items():
            _plan_layer(targets, Target(file, canonical, number), shapes)
        counts[str(file.path)] = counts.get(str(file.path), 0) + len(used)
    if not targets:
        raise KeyMismatch("Nothing would change: every strength is 0.")
    return Plan(targets, counts)


def _plan_layer(targets: dict[str, list[Target]], target: Target, shapes: Mapping[str, tuple[int, ...]]) -> None:
    layer, parts = target.change.layer, target.change.parts
    if set(parts) - {"diff_b", "alpha", "scale"}:
        _fits(target, shapes[layer.key.base])
        targets.setdefault(layer.key.base, []).append(target)
    if "diff_b" in parts:
        if not layer.bias:
            raise KeyMismatch(f"{target.file.path.name}: {target.change.name} changes a bias that the base has not.")
        targets.setdefault(layer.bias, []).append(target._replace(bias=True))


def _fits(target: Target, base: tuple[int, ...]) -> None:
    """Raises KeyMismatch when a plain LoRA's widths are not the layer's."""
    file, change = target.file, target.change
    if "down" not in change.parts or "up" not in change.parts:
        if change.algorithm == "lora":
            raise KeyMismatch(f"{file.path.name}: {change.name} lacks one of its two factors.")
        return
    shape = change.layer.key.shape
    down, up = file.shapes[change.parts["down"]], file.shapes[change.parts["up"]]
    flat = "mid" in change.parts or len(down) == 4 or down[1] == shape[1]
    columns = shape[1] if flat else shape[1] * shape[2] * shape[3] if len(shape) == 4 else shape[1]
    if (up[0], down[1]) != (shape[0], columns):
        raise KeyMismatch(
            f"{file.path.name}: {change.name} changes a weight of {[up[0], down[1]]} channels, the base's "
            f"{list(base)} needs {list(shape[:2])}: the LoRA was made for another kind of model."
        )


def _stream(
    base: TensorSource, plan: Plan, dtype: str, result: tuple[Path, dict[str, str]], commands: Commands | None
) -> Iterator[Event]:
    output, metadata = result
    infos = {name: (_format(base, name, dtype), base.shapes[name]) for name in base.shapes}
    _check_room(output, sum(_size(shape, kind) for kind, shape in infos.values()))
    with TensorWriter(output, infos, metadata) as writer, torch.no_grad():
        with ThreadPoolExecutor(1) as pool:  # one tensor is written while the next is computed
            writing: Future[None] | None = None
            for done, name in enumerate(writer.tensors):
                heed(commands, output)
                tensor = base.read(name)
                if name in plan.targets:
                    tensor = changed(tensor, plan.targets[name])
                _check_range(tensor, infos[name][0], name)
                if writing is not None:
                    writing.result()
                writing = pool.submit(writer.put, name, tensor)
                if done % PROGRESS_EVERY == 0 or done + 1 == len(infos):
                    yield Progress(done + 1, len(infos), unit="tensor")
            if writing is not None:
                writing.result()
        yield Stage("Saving")
        writer.close(lambda written: _verify(written, writer.tensors))


def _verify(written: Path, planned: Mapping[str, TensorInfo]) -> None:
    """Raises KeyMismatch when the file on the disk does not have the planned header."""
    if read_header(written).tensors != dict(planned):
        raise KeyMismatch(f"{written.name} reads back with other tensors than were written; the disk may be faulty.")


def _format(base: TensorSource, name: str, dtype: str) -> torch.dtype:
    """Floating numbers get the wanted format; whole numbers (position ids) stay as they are."""
    stored = base.dtype(name)
    return FORMATS[dtype] if dtype != "same" and stored.is_floating_point else stored


def _size(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * torch.empty((), dtype=dtype).element_size()


def _check_room(output: Path, size: int) -> None:
    """Raises DiskFull before minutes of work, not after."""
    free = shutil.disk_usage(output.absolute().parent).free
    if free < size:
        raise DiskFull(
            f"{output.name} needs {size / 1e9:.1f} GB, {output.absolute().parent} has {free / 1e9:.1f} GB left "
            f"({os.strerror(errno.ENOSPC)}). Free some space."
        )


def _check_range(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> None:
    """Raises NotFinite where a changed or recast tensor leaves the range of its new format."""
    if tensor.dtype == dtype or not tensor.is_floating_point() or not tensor.numel():
        return
    low, high = torch.aminmax(tensor)
    if not float(high) <= torch.finfo(dtype).max or not float(low) >= torch.finfo(dtype).min:
        raise NotFinite(f"{name} would hold numbers that {dtype} cannot; save as bf16 or fp32, or lower the strength.")


def changed(tensor: torch.Tensor, targets: Sequence[Target]) -> torch.Tensor:
    """The tensor plus its changes, summed in float32; DoRA and IA3 see the original weight."""
    original, found = tensor, tensor.float()
    if found.data_ptr() == tensor.data_ptr():
        found = found.clone()
    for target in targets:
        if target.bias:
            _add(found, target.file.tensors(target.canonical)["diff_b"].float().flatten(), target)
            continue
        _add_weight(_module_view(found, target), _module_view(original, target), target)
    return found


def _add_weight(view: torch.Tensor, original: torch.Tensor, target: Target) -> None:
    """Add one change to the layer's weight in place; a plain LoRA's is never formed."""
    change, file = target.change, target.file
    if change.is_plain and "mid" not in change.parts:
        module = file.module(target.canonical)
        up, down = module.up.float().flatten(1), module.down.float().flatten(1)
        view.view(len(view), -1).addmm_(up, down, alpha=target.weight * module.scale)
        return
    needed = change.is_dora or change.algorithm == "ia3"
    delta = file.delta(target.canonical, original if needed else None, tuple(view.shape))
    if delta is not None:
        view.add_(delta, alpha=target.weight)


def _add(found: torch.Tensor, delta: torch.Tensor, target: Target) -> None:
    rows = target.change.layer.key.slice_rows
    view = found[rows[0] : rows[1]] if rows else found
    if view.shape != delta.shape:
        raise KeyMismatch(
            f"{target.file.path.name}: {target.change.name} changes a bias of {len(delta)}, the base's has {len(view)}."
        )
    view.add_(delta, alpha=target.weight)


def _module_view(tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """The layer's weight in its module's orientation, as a view of the checkpoint's tensor."""
    layer = target.change.layer
    rows = layer.key.slice_rows
    view = tensor[rows[0] : rows[1]] if rows else tensor
    return view.t() if layer.transform == "transpose" else view


def checkpoint_metadata(
    before: Mapping[str, str], arch: Architecture, job: MergeIntoCheckpointJob, output: Path
) -> dict[str, str]:
    """The base's metadata, a title and what was merged; prediction type where the base says none is left unsaid."""
    names = ", ".join(f"{Path(use.path).stem} ({use.strength:g})" for use in job.loras)
    found = {key: value for key, value in before.items() if not key.startswith("modelspec.hash")}
    found |= {"modelspec.title": job.title or output.stem, "modelspec.merged_from": f"{Path(job.base).stem}, {names}"}
    found["modelspec.implementation_version"] = f"lora-loom/{__version__}"
    return {"format": "pt", **found}
