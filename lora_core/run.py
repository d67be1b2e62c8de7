"""Running a job in this process: a job goes in, a stream of events comes out, faults are sentences."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lora_core.commands import Commands
from lora_core.errors import ConfigError, DiskFull, EngineMissing, LoomError, OutOfMemory
from lora_core.events import Event
from lora_core.jobs import ChooseJob, GenerateJob, Img2ImgJob, InpaintJob, KeepJob, TrainJob
from lora_core.jobs.demo import DemoJob
from lora_core.jobs.files import ConvertJob, InspectJob, MetadataJob, RepairJob
from lora_core.jobs.tools import ExtractJob, MergeIntoCheckpointJob, MergeJob, ResizeJob


class Runner(NamedTuple):
    """`function`: "module:function" of the signature (job, commands) -> Iterator[Event], imported when first run."""

    job: type
    function: str


RUNNERS: dict[str, Runner] = {
    "train": Runner(TrainJob, "lora_core.engine.train:train"),
    "generate": Runner(GenerateJob, "lora_core.engine.generate:generate"),
    "img2img": Runner(Img2ImgJob, "lora_core.engine.img2img:img2img"),
    "inpaint": Runner(InpaintJob, "lora_core.engine.inpaint:inpaint"),
    "choose": Runner(ChooseJob, "lora_core.engine.choose:choose"),
    "keep": Runner(KeepJob, "lora_core.keep_save:keep"),
    "demo": Runner(DemoJob, "lora_core.demo:run_demo"),
    "merge": Runner(MergeJob, "lora_core.merge:merge"),
    "merge-checkpoint": Runner(MergeIntoCheckpointJob, "lora_core.merge_checkpoint:merge_into_checkpoint"),
    "extract": Runner(ExtractJob, "lora_core.extract:extract"),
    "resize": Runner(ResizeJob, "lora_core.resize:resize"),
    "convert": Runner(ConvertJob, "lora_core.convert:convert"),
    "repair": Runner(RepairJob, "lora_core.repair:repair"),
    "inspect": Runner(InspectJob, "lora_core.inspect_job:inspect"),
    "metadata": Runner(MetadataJob, "lora_core.metadata_edit:edit_metadata"),
}

NEED_ROOM = ("train", "choose", "demo")  # kept models of earlier jobs make room for these
ENGINE_PACKAGES = ("diffusers", "transformers", "tokenizers", "peft", "accelerate", "safetensors", "huggingface_hub")
_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_WINDOWS_DISK_FULL = (39, 112)


def kind_of(job: Any) -> str:
    """The name of the job's kind in RUNNERS."""
    for kind, runner in RUNNERS.items():
        if type(job) is runner.job:
            return kind
    raise ConfigError(f"No runner knows a job of the type {type(job).__name__}.")


def load(target: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def run(job: Any, commands: Commands | None = None) -> Iterator[Event]:
    """Run a job here and yield its events, `Finished` last.

    Raises ConfigError with every problem of the job before anything is loaded, other LoomErrors for what fails later.
    """
    faults = job.problems()
    if faults:
        raise ConfigError(faults)
    kind = kind_of(job)
    if kind in NEED_ROOM:
        release()
    with sentences():
        yield from load(RUNNERS[kind].function)(job, commands or Commands())


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Turn the faults of memory, disk and missing packages into LoomErrors; let every other exception through."""
    try:
        yield
    except LoomError:
        raise
    except Exception as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


def translate(error: BaseException) -> LoomError | None:
    """The LoomError that says what `error` means to a person, or None."""
    text = str(error)
    if is_out_of_memory(error):
        return OutOfMemory(
            f"Not enough memory ({first_line(text) or type(error).__name__}). Use less: batch size 1, gradient "
            "checkpointing, a smaller resolution or rank, bf16 or fp16, or close other programs that use this device."
        )
    if is_disk_full(error):
        place = getattr(error, "filename", None)
        return DiskFull(f"The disk is full{f' while writing {place}' if place else ''}. Free some space and run again.")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ENGINE_PACKAGES:
        return EngineMissing(
            f"The package {error.name} is not installed. Run install.py once; the doctor names the rest."
        )
    return None


def is_out_of_memory(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    words = str(error).lower()
    cpu = "not enough memory" in words or "can't allocate memory" in words or "out of memory" in words
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or ("RuntimeError" in names and cpu)


def is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE or getattr(error, "winerror", None) in _WINDOWS_DISK_FULL
    return "no space left on device" in str(error).lower()


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def release() -> None:
    """Give memory back: `drop_caches()` of every loaded lora_core module that has one, then torch's pools."""
    for name, module in list(sys.modules.items()):
        if name.startswith("lora_core.") and callable(getattr(module, "drop_caches", None)):
            module.drop_caches()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
