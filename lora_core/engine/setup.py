"""Everything a training needs before its first step: base, pictures, caches, network, optimizer, state."""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_core.architecture import Architecture, architecture_of
from lora_core.engine import base_loras, models, network, resume
from lora_core.engine.advice import advised
from lora_core.engine.averages import Ema
from lora_core.engine.cache import LatentCache
from lora_core.engine.class_pictures import with_class_pictures
from lora_core.engine.conditioning import Encode, TextRules, live_encoder
from lora_core.engine.course import Course
from lora_core.engine.dataset import opening
from lora_core.engine.device import grad_scaler, pick_device, pick_dtype
from lora_core.engine.epochs import Batch, Dataset, steps_per_epoch
from lora_core.engine.folders_check import require_room, require_writable, sweep
from lora_core.engine.learning_rates import build_schedule
from lora_core.engine.new_words import reading_words, with_words
from lora_core.engine.optimizers import build_optimizer
from lora_core.engine.pace import within_budget
from lora_core.engine.prompt import time_ids
from lora_core.engine.rates import parameter_groups, rates
from lora_core.engine.restore import restored
from lora_core.engine.saved_metadata import cover
from lora_core.engine.schedule import alphas_cumprod
from lora_core.engine.start import Start, fill, read_start, start_sizes
from lora_core.engine.targets import module_sizes
from lora_core.engine.textcache import cached_encoder
from lora_core.engine.tokens import token_ids
from lora_core.errors import ConfigError
from lora_core.events import Event, Note, Stage
from lora_core.jobs.train import TrainJob
from lora_core.keys import checkpoint_tensors
from lora_core.tensors import open_tensors

UNREAD = {
    "ia3": "ComfyUI and Forge do not read files of (IA)3 networks, A1111 does. For those two choose another algorithm, "
    "such as lora, dora, loha or lokr."
}
HASHED = 16384  # numbers of each tensor that go into a component's hash


@dataclass(frozen=True)
class Run:
    """A prepared training. What changes while it runs is in Course and inside the torch objects."""

    job: TrainJob
    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    prediction: str
    alphas_bar: torch.Tensor
    dataset: Dataset
    held_out: tuple[Batch, ...]
    cache: LatentCache
    encode: Encode
    unet: nn.Module
    encoders: tuple[nn.Module, ...]
    network: network.Network
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: Any
    folder: Path
    mark: str
    steps_per_epoch: int
    total_steps: int
    rates: dict[str, float]
    ema: Ema | None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def to_input(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the UNet takes them: its device, its dtype, channels last."""
        return latents.to(self.device, self.dtype, memory_format=torch.channels_last)

    def time_ids(self, batch: Batch) -> torch.Tensor | None:
        """SDXL's size conditioning [b,6]; None for other families."""
        if self.architecture.family != "sdxl":
            return None
        width, height = batch.size
        rows = [time_ids(h, w, crop=(top, left), target=(height, width)) for w, h, left, top in self.cache.sizes(batch)]
        return torch.stack(rows)


def prepare(job: TrainJob) -> Generator[Event, None, tuple[Run, Course]]:
    """Load and attach everything; large parts one after the other, so that they are not in memory together."""
    began = time.monotonic()
    device = pick_device(job.memory.device)
    dtype = checked_dtype(job, device)
    require_writable((Path(job.output_dir), work_folder(job), cache_folder(job)))
    cover(job)  # a picture that cannot be read is said now, not at the first save
    sweep(Path(job.output_dir), job.name)
    sweep(work_folder(job), "state")
    if job.memory.threads:
        torch.set_num_threads(job.memory.threads)
    yield Stage("Reading the base and the pictures")
    architecture = checked_architecture(job)
    job = yield from with_class_pictures(job, work_folder(job) / "class pictures")
    job, dataset = yield from looked_at(job)
    cache = yield from cached_latents(job, architecture, dataset, device)
    start = read_start(job, architecture, rates(job, architecture)) if job.network.start_from else None
    sizes = branch_sizes(job, architecture, start)
    yield Stage("Loading the text encoder")
    encode, encoders = yield from text_side(job, architecture, dataset, sizes, device, dtype)
    yield Stage("Loading the UNet")
    unet: Any = base_loras.load_unet(job, architecture, dtype, device)
    unet.to(memory_format=torch.channels_last)
    net = attached(job, unet, encoders, sizes)
    for line in (*unread(job), *(fill(net, start, job.network.algorithm) if start else ())):
        yield Note(line, "warning")
    require_room((Path(job.output_dir), work_folder(job)), list(net.tensors().values()))
    per_epoch = steps_per_epoch(len(dataset.epoch(0)), job)
    total = job.length.steps or job.length.epochs * per_epoch
    optimizer, sentence = build_optimizer(job.optimization, parameter_groups(job, architecture, net), total)
    if sentence:
        yield Note(sentence, "warning")
    folder = work_folder(job)
    run = Run(
        job, architecture, device, dtype, prediction_of(job, architecture), noise_schedule(job, architecture),
        dataset, tuple(dataset.held_out_batches()), cache, encode, unet, encoders, net,
        optimizer, build_schedule(job.optimization, optimizer, total), grad_scaler(device, dtype),
        folder, mark_of(job, architecture, dataset), per_epoch, total,
        rates(job, architecture), Ema(net.parameters(), job.optimization.ema) if job.optimization.ema else None,
    )  # fmt: skip
    run = yield from within_budget(run, began)
    course = yield from restored(run)
    gc.collect()
    return run, course


def checked_dtype(job: TrainJob, device: torch.device) -> torch.dtype:
    dtype = pick_dtype(job.memory.dtype, device)
    if dtype == torch.float16 and device.type != "cuda":
        raise ConfigError(f"fp16 does not train on the device {device.type}: set dtype to fp32 or bf16.")
    return dtype


def checked_architecture(job: TrainJob) -> Architecture:
    architecture = architecture_of(job.base)
    name = Path(job.base).name
    if architecture.family == "sdxl_refiner":
        raise ConfigError(f"{name} is the SDXL refiner; train on an SDXL base model instead.")
    if architecture.inpainting:
        raise ConfigError(
            f"{name} is an inpainting model (9 input channels); train on the normal model of the same family: "
            "the LoRA works with the inpainting model too."
        )
    return architecture


def prediction_of(job: TrainJob, architecture: Architecture) -> str:
    return architecture.prediction if job.noise.prediction == "auto" else job.noise.prediction


def noise_schedule(job: TrainJob, architecture: Architecture) -> torch.Tensor:
    choice = job.noise.zero_terminal_snr
    return alphas_cumprod(architecture.zero_terminal_snr if choice == "auto" else choice == "on")


def cached_latents(
    job: TrainJob, architecture: Architecture, dataset: Dataset, device: torch.device
) -> Generator[Event, None, LatentCache]:
    yield Stage("Encoding the pictures")
    source = job.vae or job.base
    cache = LatentCache(cache_folder(job) / "latents", component_hash(source, architecture, "vae", alone=bool(job.vae)))
    load = partial(models.load_vae, job.base, torch.float32, device, job.vae)
    yield from cache.prepare(dataset, load)
    gc.collect()
    return cache


def component_hash(path: str, architecture: Architecture, component: str, alone: bool = False) -> str:
    """A hash over the first rows of each tensor of one component (of all tensors when the file is the component)."""
    digest = hashlib.sha256()
    with open_tensors(path) as file:
        sources = set() if alone else {t.source for t in checkpoint_tensors(architecture, component)}
        for name in sorted(file.shapes if alone else sources & file.shapes.keys()):
            shape = file.shapes[name]
            rows = None if not shape else (0, min(shape[0], max(1, HASHED // max(1, math.prod(shape[1:])))))
            digest.update(f"{name}{file.dtype(name)}{shape}".encode())
            digest.update(file.read(name, torch.float32, rows).numpy().tobytes())
    return digest.hexdigest()


def looked_at(job: TrainJob) -> Generator[Event, None, tuple[TrainJob, Dataset]]:
    """The pictures and what is said about them; the job with the safe advice followed, where that is wanted."""
    known = cache_folder(job) / "pictures.json"

    def opened(job: TrainJob) -> Generator[Event, None, Dataset]:
        return opening(job, lambda text: len(token_ids(text)), known)

    dataset = yield from opened(job)
    changes = {name: value for one in dataset.report.advice for name, value in one.change.items()}
    if job.dataset.apply_advice and changes:
        job = advised(job, dataset.report.advice)
        dataset = yield from opened(job)
        yield Note(f"As advised: {', '.join(f'{name} = {value}' for name, value in changes.items())}.")
    for line in dataset.report.text():
        yield Note(line)
    return job, dataset


def unread(job: TrainJob) -> tuple[str, ...]:
    """What is said of a network that not every program reads."""
    return (UNREAD[job.network.algorithm],) if job.network.algorithm in UNREAD else ()


def branch_sizes(job: TrainJob, architecture: Architecture, start: Start | None) -> dict[str, network.Size]:
    """Rank and alpha of every module that gets a branch."""
    trained = rates(job, architecture)
    if not trained and job.network.token_vectors:
        return {}
    if not trained:
        raise ConfigError("Every learning rate is 0: nothing would be trained.")
    sizes = module_sizes(job, architecture, trained)
    return sizes if start is None else start_sizes(job, start, sizes)


def text_side(
    job: TrainJob, architecture: Architecture, dataset: Dataset, sizes: dict[str, network.Size],
    device: torch.device, dtype: torch.dtype,
) -> Generator[Event, None, tuple[Encode, tuple[nn.Module, ...]]]:  # fmt: skip
    """How captions are encoded, and the encoders that have to stay in memory for it."""
    c = job.captions
    rules = TextRules(architecture, c.clip_skip, c.max_tokens, c.weighted)
    load: Callable[[], tuple[nn.Module, ...]] = partial(base_loras.load_text_encoders, job, architecture, dtype, device)
    if job.network.token_vectors or any(name.startswith("text_encoder") for name in sizes):
        encoders = load()
        return reading_words(live_encoder(encoders, rules), job), encoders
    if dataset.captions_fixed and job.memory.cache_text:
        mark = text_mark(job, architecture, dtype)
        return (yield from cached_encoder(rules, dataset, mark, load, cache_folder(job) / "text")), ()
    encoders = load()
    return torch.no_grad()(live_encoder(encoders, rules)), encoders


def mark_of(job: TrainJob, architecture: Architecture, dataset: Dataset) -> str:
    """The fingerprint of the job with the contents of its base and pictures: wherever those lie, a state is theirs."""
    return resume.fingerprint(
        job,
        resume.facts(job, dataset)
        | {"base": component_hash(job.base, architecture, "unet"), "base_loras": base_loras.mark(job)},
    )


def text_mark(job: TrainJob, architecture: Architecture, dtype: torch.dtype) -> str:
    names = ("text_encoder", "text_encoder_2")[: len(architecture.text_encoders)]
    hashes = [component_hash(job.base, architecture, name) for name in names]
    return " ".join([str(dtype), *hashes, base_loras.mark(job)]).strip()


def attached(
    job: TrainJob, unet: nn.Module, encoders: tuple[nn.Module, ...], sizes: dict[str, network.Size]
) -> network.Network:
    components = {"unet": unet} | dict(zip(("text_encoder", "text_encoder_2"), encoders))
    net = network.attach(components, sizes, job.network, job.seed)
    net = with_words(net, {name: part for name, part in components.items() if name != "unet"}, job)
    network.train_only(components.values(), net)
    if job.memory.gradient_checkpointing:
        checkpoint_gradients(components.values())
    return net


def checkpoint_gradients(modules: Any) -> None:
    """Recompute activations in the backward pass; both libraries do so in training mode only."""
    for module in modules:
        if hasattr(module, "enable_gradient_checkpointing"):
            module.enable_gradient_checkpointing()
        else:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        module.train()


def work_folder(job: TrainJob) -> Path:
    return Path(job.work_dir) if job.work_dir else Path(job.output_dir) / f"{job.name}.loom"


def cache_folder(job: TrainJob) -> Path:
    return Path(job.memory.cache_dir) if job.memory.cache_dir else work_folder(job) / "cache"
