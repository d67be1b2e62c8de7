"""Going on from the state of an interrupted run."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import torch

from lora_core.engine import resume
from lora_core.engine.course import Course
from lora_core.engine.randomness import mix
from lora_core.events import Event, Note

if TYPE_CHECKING:
    from lora_core.engine.setup import Run


def restored(run: Run) -> Generator[Event, None, Course]:
    """Go on from the state of an interrupted run of the same job, if there is one and the job allows it."""
    path = run.folder / "state.safetensors"
    state = resume.read_state(path, run.mark) if run.job.resume else None
    if state is None:
        if path.exists():
            kept = path.with_name(f"state-{int(time.time())}.safetensors")
            path.rename(kept)
            why = "A state of other settings or pictures was found" if run.job.resume else "Resume is off"
            yield Note(f"{why}; the earlier state is kept as {kept.name}. Starting anew.")
        return Course(session=mix(run.job.seed, run.mark) & 0xFFFFFFFF, started_at=time.time())
    with torch.no_grad():
        for name, tensor in (run.network.tensors() | run.network.constants()).items():
            tensor.copy_(state.tensors[f"lora.{name}"])
        for name, tensor in run.ema.tensors.items() if run.ema else ():
            tensor.copy_(state.tensors[f"ema.{name}"])
    if run.ema:
        run.ema.updates = state.run["ema_updates"]
    resume.restore_optimizer(run.optimizer, state.tensors, state.optimizer)
    lambdas = {"lr_lambdas": [None] * len(run.optimizer.param_groups)} if hasattr(run.schedule, "lr_lambdas") else {}
    run.schedule.load_state_dict(state.schedule | lambdas)
    if run.scaler and "scaler" in state.run:
        run.scaler.load_state_dict(state.run["scaler"])
    yield Note(f"Resuming from step {state.step} of {run.total_steps}.")
    return Course.from_json(state.run["course"], state.step)
