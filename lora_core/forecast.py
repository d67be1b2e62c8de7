"""Before a training: the steps, and about how long they take and how much memory they need."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lora_core.architecture import architecture_of
from lora_core.errors import LoomError
from lora_core.jobs.train import TrainJob
from lora_core.keys import checkpoint_tensors, lora_targets
from lora_core.shapes import UNET, VAE, Architecture

if TYPE_CHECKING:
    from lora_core.desk import Desk

GIB = 1024**3
WIDTH_OF_SD1 = 320
PER_PIXEL = {"fp32": 13_000, "bf16": 10_000, "fp16": 10_000}
CHECKPOINTED = 0.25
SPENT_AROUND = 0.3 * GIB
REMEMBERED = 5


@dataclass(frozen=True)
class Speed:
    """What an earlier training on this machine took: seconds per step at this much work (see `work`)."""

    seconds_per_step: float
    work: float
    device: str = ""


@dataclass(frozen=True)
class Forecast:
    """`seconds` is None while no training on this machine told the speed; `memory` in bytes, of the device."""

    steps: int
    family: str
    seconds: float | None
    memory: int

    def text(self) -> str:
        """For a person: steps, time, memory."""
        time = "time: known after the first steps" if self.seconds is None else f"about {spoken(self.seconds)}"
        return f"{self.steps} steps, {time}, about {self.memory / GIB:.1f} GB of memory."


def forecast(job: TrainJob, steps: int, dtype: str, speeds: Iterable[Speed] = ()) -> Forecast:
    """`dtype`: "fp32", "bf16" or "fp16", what the base will be held in. Raises FileError, KeyMismatch for the base."""
    arch = architecture_of(job.base)
    known = next((s for s in reversed(list(speeds)) if s.work > 0), None)
    amount = work(job, arch)
    seconds = None if known is None else steps * known.seconds_per_step * amount / known.work
    return Forecast(steps, arch.family, seconds, memory(job, arch, dtype))


def work(job: TrainJob, arch: Architecture) -> float:
    """Arithmetic of a step in arbitrary units: weights passed x pixels, more for checkpointing and text encoders."""
    pixels = job.dataset.width * job.dataset.height * job.dataset.batch_size * job.optimization.accumulation
    extra = 4 / 3 if job.memory.gradient_checkpointing else 1.0
    return float(weights(arch, UNET)) * pixels * extra


def memory(job: TrainJob, arch: Architecture, dtype: str) -> int:
    """Bytes at the peak of a step: weights, the LoRA with gradients and AdamW's moments, activations.

    The activations' share per pixel was measured on SD1.5 at 256 px (4.5 GiB in fp32, 2.5 GiB in bf16, all together)
    and grows with the UNet's width; attention is computed without storing its matrix.
    """
    size = 4 if dtype == "fp32" else 2
    trained_text = job.network.train_text_encoder
    held = weights(arch, UNET) + (text_weights(arch) if trained_text or not job.memory.cache_text else 0)
    lora = lora_weights(job, arch) * (4 + 4 + (4 if job.optimization.optimizer == "adamw8bit" else 8))
    pixels = job.dataset.width * job.dataset.height * job.dataset.batch_size
    width = arch.unet.block_out_channels[0] / WIDTH_OF_SD1
    depth = max(1.0, weights(arch, UNET) / 860e6 / width**2 / 2)
    activations = pixels * PER_PIXEL[dtype] * width * min(depth, 2.0)
    activations *= CHECKPOINTED if job.memory.gradient_checkpointing else 1.0
    return round(held * size + lora + activations + SPENT_AROUND)


def weights(arch: Architecture, component: str) -> int:
    """Parameters of a component."""
    return sum(math.prod(key.shape) for key in checkpoint_tensors(arch, component))


def text_weights(arch: Architecture) -> int:
    return sum(weights(arch, name) for name in arch.components if name not in (UNET, VAE))


def lora_weights(job: TrainJob, arch: Architecture) -> int:
    """Parameters of the LoRA: rank x (in + out) for each module."""
    n = job.network
    total = 0
    for key in lora_targets(arch, n.conv_rank > 0, n.train_unet, n.train_text_encoder):
        rank = n.conv_rank if len(key.shape) == 4 and key.shape[-1] > 1 else n.rank
        total += rank * (math.prod(key.shape[1:]) + key.shape[0])
    return total


def speed_of(job: TrainJob, report: Mapping[str, Any]) -> Speed | None:
    """The speed that a training's report tells; None where it tells none or its base is gone."""
    seconds = report.get("seconds_per_step")
    if not isinstance(seconds, (int, float)) or seconds <= 0:
        return None
    try:
        return Speed(float(seconds), work(job, architecture_of(job.base)), str(report.get("device", "")))
    except LoomError:
        return None


def spoken(seconds: float) -> str:
    """A length of time for a person: "40 seconds", "12 minutes", "3 h 20 min"."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole > 1)}"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def speeds_of(desk: Desk) -> list[Speed]:
    """The speeds of the last trainings of a desk, the newest last."""
    over = [t for t in desk.tickets() if t.kind == "train" and t.over and t.outputs][-REMEMBERED:]
    found: list[Speed] = []
    for ticket in over:
        with contextlib.suppress(LoomError):
            speed = speed_of(desk.job(ticket.id), desk.snapshot(ticket.id)["report"])
            found += [speed] if speed else []
    return found


def room(device: str) -> int | None:
    """Bytes of memory that the device has in all, None where that cannot be told."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[1])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
