"""What a training will be, before it starts: its pictures, steps, time and memory. Loads no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora_core.engine.dataset import open_dataset
from lora_core.engine.dataset_report import DatasetReport
from lora_core.engine.device import pick_device, pick_dtype
from lora_core.forecast import GIB, Forecast, Speed, forecast, room
from lora_core.jobs.train import TrainJob

COMFORTABLE = 0.9


@dataclass(frozen=True)
class Outlook:
    """`room`: bytes that the device has in all, None where that cannot be told."""

    report: DatasetReport
    forecast: Forecast
    device: str
    room: int | None

    def tight(self) -> str:
        """A sentence when the training may not fit, else ""."""
        if self.room is None or self.forecast.memory <= COMFORTABLE * self.room:
            return ""
        return (
            f"This needs about {self.forecast.memory / GIB:.1f} GB and {self.device} has {self.room / GIB:.1f} GB: "
            "choose low memory, a smaller size or batch."
        )


def is_of(speed: Speed, device: torch.device) -> bool:
    """Whether a speed tells something about this device; a drawing may have left the choice open."""
    named = str(pick_device("auto")) if speed.device == "auto" else speed.device
    return not named or named.partition(":")[0] == device.type


def outlook(job: TrainJob, speeds: Sequence[Speed] = ()) -> Outlook:
    """Look at the pictures and the base's header. Raises DatasetError, ConfigError, FileError, KeyMismatch."""
    device = pick_device(job.memory.device)
    dtype = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[
        str(pick_dtype(job.memory.dtype, device)).removeprefix("torch.")
    ]
    report = open_dataset(job).report
    same = [s for s in speeds if is_of(s, device)]
    return Outlook(report, forecast(job, report.steps, dtype, same), str(device), room(str(device)))
