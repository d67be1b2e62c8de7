"""Before a training: the steps, and about how long they take and how much memory they need."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lora_core.architecture import architecture_of
from lora_core.errors import LoomError
from lora_core.events import Event, Finished, Progress
from lora_core.infotext_fields import has_hires
from lora_core.jobs.generate import GenerateJob
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
DRAWINGS = ("generate", "img2img")  # an inpainting may work at another size than its job says
PASSES = 3  # through the UNet for each picture of a training step: forward, and backward at twice the work
FEWEST_STEPS = 10  # of a drawing, for what is around its steps to matter little
TWO_PASSES = ("heun", "dpm2", "dpm2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")


@dataclass(frozen=True)
class Speed:
    """What an earlier training on this machine took: seconds per step at this much work (see `work`).

    `drawn`: concluded from a drawing. `device`: as the training tells it, or as the drawing's job names it ("auto").
    """

    seconds_per_step: float
    work: float
    device: str = ""
    drawn: bool = False


@dataclass(frozen=True)
class Forecast:
    """`seconds` is None while nothing on this machine told the speed; `memory` in bytes, of the device.

    `drawn`: told by pictures that were drawn, for want of a training.
    """

    steps: int
    family: str
    seconds: float | None
    memory: int
    drawn: bool = False

    def text(self) -> str:
        """For a person: steps, time, memory."""
        time = "time: known after the first steps"
        if self.seconds is not None:
            time = f"about {spoken(self.seconds)}{', judging by pictures drawn here' if self.drawn else ''}"
        return f"{self.steps} steps, {time}, about {self.memory / GIB:.1f} GB of memory."


def forecast(job: TrainJob, steps: int, dtype: str, speeds: Iterable[Speed] = ()) -> Forecast:
    """`dtype`: "fp32", "bf16" or "fp16", what the base will be held in. Raises FileError, KeyMismatch for the base."""
    arch = architecture_of(job.base)
    known = next((s for s in reversed(list(speeds)) if s.work > 0), None)
    amount = work(job, arch)
    seconds = None if known is None else steps * known.seconds_per_step * amount / known.work
    return Forecast(steps, arch.family, seconds, memory(job, arch, dtype), known is not None and known.drawn)


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


def drawing_speed(job: GenerateJob, steps: int, seconds: float) -> Speed | None:
    """The speed of trainings that a drawing of so many sampling steps in all lets expect; None where it tells little.

    Seen with SD1.5: from a picture of 256 px, 6.9 seconds for a step at 256 px (it took 7.5), 10.7 at 320 px (9.8).
    """
    if steps < FEWEST_STEPS or seconds <= 0 or has_hires(job):
        return None
    passes = steps * job.batch_size * (1 if job.cfg_scale == 1 else 2) * (2 if job.sampler in TWO_PASSES else 1)
    try:
        amount = float(weights(architecture_of(job.base), UNET)) * job.width * job.height
    except LoomError:
        return None
    return Speed(PASSES * seconds / passes, amount, job.device, drawn=True)


def spoken(seconds: float) -> str:
    """A length of time for a person: "40 seconds", "12 minutes", "3 h 20 min"."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole > 1)}"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def speeds_of(desk: Desk) -> list[Speed]:
    """The speeds of the last trainings of a desk, the newest last; before them what its last drawings let expect, the
    least disturbed of them last."""
    over = [t for t in desk.tickets() if t.over and t.outputs]
    trained, drawn = list[Speed](), list[Speed]()
    for ticket in [t for t in over if t.kind == "train"][-REMEMBERED:]:
        with contextlib.suppress(LoomError):
            speed = speed_of(desk.job(ticket.id), desk.snapshot(ticket.id)["report"])
            trained += [speed] if speed else []
    for ticket in [t for t in over if t.kind in DRAWINGS][-REMEMBERED:]:
        with contextlib.suppress(LoomError):
            speed = told_by_drawing(desk.job(ticket.id), [event for _, event in desk.events(ticket.id)])
            drawn += [speed] if speed else []
    return sorted(drawn, key=lambda speed: -speed.seconds_per_step / speed.work) + trained


def told_by_drawing(job: GenerateJob, events: Sequence[Event]) -> Speed | None:
    """See `drawing_speed`; None also for a drawing that was stopped."""
    steps = next((e.total for e in reversed(events) if isinstance(e, Progress) and e.unit == "step"), 0)
    end = next((e for e in reversed(events) if isinstance(e, Finished)), None)
    return drawing_speed(job, steps, float(end.report.get("seconds", 0))) if end and not end.stopped else None


def room(device: str) -> int | None:
    """Bytes of memory that the device has in all, None where that cannot be told."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[1])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
