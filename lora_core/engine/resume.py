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

VERSION = 1
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
        return [[p.content_hash, p.caption, p.subset.repeats] for p in pictures]

    start = file_hashes(job.network.start_from)[1] if job.network.start_from else ""
    return {"pictures": rows(dataset.pictures), "held_out": rows(dataset.held_out), "start_from": start}


def split_optimizer(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """`optimizer.state_dict()` as named tensors and the JSON rest."""
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {"param_groups": state["param_groups"], "scalars": {}}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu()
            else:
                rest["scalars"][f"{index}.{key}"] = value
    return tensors, rest


def join_optimizer(tensors: Mapping[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `split_optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    named = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
    for key, value in [*named.items(), *rest["scalars"].items()]:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["param_groups"]}


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
