"""The resumable state of a training: one atomic, versioned safetensors file without pickles.

Randomness is a function of (seed, step), so the state is the step, the LoRA, the optimizer and the schedule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_core.errors import FileError
from lora_core.jobs.train import TrainJob
from lora_core.settings import to_json
from lora_core.tensors import TensorFile, file_hashes, read_header, write_tensors

if TYPE_CHECKING:
    from lora_core.engine.epochs import Dataset, Picture

VERSION = 2
FREE_TO_CHANGE = ("base", "output_dir", "work_dir", "resume", "saves")


@dataclass(frozen=True)
class State:
    """What a training is after `step` optimizer steps. `tensors` holds LoRA factors and optimizer buffers by name."""

    step: int
    tensors: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    run: dict[str, Any]


def fingerprint(job: TrainJob, facts: Mapping[str, Any]) -> str:
    """What has to be equal for a state to be continued: the job, but for where and how often things are saved."""
    settings = {k: v for k, v in to_json(job).items() if k not in FREE_TO_CHANGE}
    settings["memory"] = {"dtype": settings["memory"]["dtype"]}
    text = json.dumps([settings, dict(facts)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def facts(job: TrainJob, dataset: Dataset) -> dict[str, Any]:
    """Pictures, captions, repeats and the LoRA that is started from, by content: a state belongs to exactly these."""

    def rows(pictures: tuple[Picture, ...]) -> list[list[Any]]:
        return [
            [p.content_hash, p.caption, p.subset.repeats, *([p.mask_hash] if p.mask else []), *(p.fit.offset or ())]
            for p in pictures
        ]

    start = file_hashes(job.network.start_from)[1] if job.network.start_from else ""
    return {"pictures": rows(dataset.pictures), "held_out": rows(dataset.held_out), "start_from": start}


def split_optimizer(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """`optimizer.state_dict()` as named tensors and the JSON rest, of any nesting."""
    tensors: dict[str, torch.Tensor] = {}
    pairs = [
        [index, {k: _spelled(v, f"{index}.{k}", tensors) for k, v in v.items()}] for index, v in state["state"].items()
    ]
    return tensors, {"state": pairs, "param_groups": _spelled(state["param_groups"], "groups", tensors)}


def _spelled(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A value as JSON; tensors are put aside under `optimizer.name`. Raises FileError for what is neither."""
    if isinstance(value, torch.Tensor):
        tensors[f"optimizer.{name}"] = value.detach().cpu()
        return {"tensor": f"optimizer.{name}"}
    if isinstance(value, dict):
        return {"dict": [[key, _spelled(one, f"{name}.{key}", tensors)] for key, one in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_spelled(one, f"{name}.{i}", tensors) for i, one in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise FileError(f"The optimizer keeps {name} as {type(value).__name__}, which a state cannot hold.")


def _read(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverse of `_spelled`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _read(one, tensors) for key, one in content}
    items = [_read(one, tensors) for one in content]
    return items if kind == "list" else tuple(items)


def join_optimizer(tensors: Mapping[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `split_optimizer`."""
    state = {index: {k: _read(v, tensors) for k, v in values.items()} for index, values in rest["state"]}
    return {"state": state, "param_groups": _read(rest["param_groups"], tensors)}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], rest: dict[str, Any]
) -> None:
    """Put a saved state back bit for bit: torch's own loading would cast every buffer to the parameter's format."""
    saved = join_optimizer(tensors, rest)
    optimizer.load_state_dict(saved)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in saved["state"].items():
        for key, value in values.items():
            held = optimizer.state[parameters[index]].get(key)
            if isinstance(value, torch.Tensor) and isinstance(held, torch.Tensor) and held.dtype != value.dtype:
                optimizer.state[parameters[index]][key] = value.to(held.device)


def write_state(path: Path, state: State, mark: str) -> None:
    """Write the state and read its header back. `mark` is the job's fingerprint. Raises FileError or DiskFull."""
    described = {"optimizer": state.optimizer, "schedule": state.schedule, "run": state.run}
    metadata = {"loom_state": str(VERSION), "step": str(state.step), "mark": mark, "json": json.dumps(described)}
    write_tensors(path, state.tensors, metadata)
    if read_header(path).metadata != metadata:
        raise FileError(f"{path.name} reads back with other contents than were written; the disk may be faulty.")


def read_state(path: Path, mark: str) -> State | None:
    """The state at `path` if it belongs to the same job, None if there is none or it belongs to another.

    Raises FileError when the file is damaged or of a later version.
    """
    if not path.exists():
        return None
    with TensorFile(path) as file:
        metadata = file.header.metadata
        if metadata.get("loom_state") != str(VERSION):
            raise FileError(f"{path.name} is not a training state of this version; move it away to start anew.")
        if metadata["mark"] != mark:
            return None
        tensors = {name: file.read(name) for name in file.header.tensors}
    described = json.loads(metadata["json"])
    return State(int(metadata["step"]), tensors, described["optimizer"], described["schedule"], described["run"])
