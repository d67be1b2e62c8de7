"""Training on from a LoRA: which of its modules, with which rank and alpha."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lora_core.engine.network import Size
from lora_core.errors import ConfigError
from lora_core.jobs.train import TrainJob
from lora_core.lora import Lora


def start_sizes(job: TrainJob, start: Lora, trained: Iterable[str]) -> dict[str, Size]:
    """The sizes of a LoRA's trained modules. Raises ConfigError when there are none, or none that can be trained."""
    name = Path(job.network.start_from).name
    if any(m.mid is not None for m in start.modules.values()):
        raise ConfigError(f"{name} holds convolutions in Tucker form (lora_mid), which cannot be trained on.")
    sizes = {n: Size(m.rank, m.alpha) for n, m in start.modules.items() if n.split(".")[0] in trained}
    if not sizes:
        raise ConfigError(f"{name} has no module of what is to be trained: {', '.join(trained)}.")
    return sizes


def left_out(job: TrainJob, start: Lora, sizes: dict[str, Size]) -> str:
    """A sentence on the modules of `start` that the new LoRA will not have."""
    name = Path(job.network.start_from).name
    count, parts = len(start.modules) - len(sizes), sorted({n.split(".")[0] for n in start.modules.keys() - sizes})
    return f"{count} modules of {name} ({', '.join(parts)}) are not trained here, so the new LoRA is without them."
