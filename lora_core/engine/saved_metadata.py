"""The facts of a run for the metadata of its files."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_core.engine.course import Course
from lora_core.engine.network import Size
from lora_core.engine.new_words import WordBranch
from lora_core.engine.optimizers import warmup_steps
from lora_core.jobs.network import Network as NetworkSettings
from lora_core.jobs.train import TrainJob
from lora_core.lora_metadata import TrainingFacts, training_metadata
from lora_core.tensors import file_hashes
from lora_core.thumbnails import data_uri
from lora_core.whole_files import write_text

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

COVER_SIDE = 256
PRECISION = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


def lora_metadata(run: Run, course: Course, output_name: str) -> dict[str, str]:
    """kohya's metadata for a file named `output_name` that is saved now."""
    return training_metadata(run.job, training_facts(run, course), output_name)


def training_facts(run: Run, course: Course) -> TrainingFacts:
    job, dataset = run.job, run.dataset
    rates = dict(run.rates)
    unet_lr = rates.pop("unet", None)
    base_hash, base_sha256 = known_hashes(job.base, run.folder)
    vae_hash, vae_sha256 = known_hashes(job.vae, run.folder) if job.vae else ("", "")
    steps, constant = run.total_steps, job.optimization.schedule == "constant"
    return TrainingFacts(
        arch=run.architecture,
        session_id=course.session,
        started_at=course.started_at,
        finished_at=time.time(),
        step=course.step,
        epoch=-(-course.step // run.steps_per_epoch),
        num_epochs=-(-steps // run.steps_per_epoch),
        max_train_steps=steps,
        warmup_steps=0 if constant else warmup_steps(job.optimization, steps),
        num_train_images=sum(p.subset.repeats for p in dataset.pictures),
        num_batches_per_epoch=len(dataset.epoch(0)),
        optimizer=f"{type(run.optimizer).__module__}.{type(run.optimizer).__qualname__}",
        unet_lr=unet_lr,
        text_encoder_lr=tuple(rates.values()),
        mixed_precision=PRECISION[run.dtype],
        prediction=run.prediction,
        zero_terminal_snr=bool(run.alphas_bar[-1] == 0),
        num_validation_images=len(dataset.held_out),
        base_hash=base_hash,
        base_sha256=base_sha256,
        vae_hash=vae_hash,
        vae_sha256=vae_sha256,
        thumbnail=cover(job),
        **picture_facts(run),
        **size_facts(run),
    )


def cover(job: TrainJob) -> str:
    """The thumbnail as text for the file's header, "" without one. Raises FileError."""
    return data_uri(job.saves.thumbnail, COVER_SIDE) if job.saves.thumbnail else ""


def size_facts(run: Run) -> dict[str, Any]:
    """Rank and alpha as they are: a LoRA that was started from brings its own."""
    linear, conv = set[Size](), set[Size]()
    for branch in run.network.branches.values():
        if isinstance(branch, WordBranch):
            continue
        weight = branch.base_layer.weight
        (conv if weight.dim() == 4 and weight.shape[-1] > 1 else linear).add(branch.size)
    dim, alpha = common(linear or conv)
    conv_dim, conv_alpha = common(conv)
    arguments = {"conv_dim": str(conv_dim), "conv_alpha": str(conv_alpha)} if conv else {}
    return {"dim": dim, "alpha": alpha, "network_args": arguments | network_arguments(run.job.network)}


def network_arguments(settings: NetworkSettings) -> dict[str, str]:
    """LyCORIS' own arguments for what is not a plain LoRA, and the ones of both that were used."""
    found: dict[str, str] = {}
    if settings.algorithm != "lora":
        algorithm = {"dora": "lora", "oft": "diag-oft"}.get(settings.algorithm, settings.algorithm)
        found = {"algo": algorithm} | (
            {"dora_wd": "True", "wd_on_output": "False"} if settings.algorithm == "dora" else {}
        )
    if settings.algorithm == "lokr":
        found |= {"factor": str(settings.lokr_factor), "decompose_both": str(settings.lokr_both)}
    dropped = {"rank_dropout": settings.rank_dropout, "module_dropout": settings.module_dropout}
    return found | {name: str(value) for name, value in dropped.items() if value}


def common(sizes: set[Size]) -> tuple[int | str, float | str]:
    """Rank and alpha that all share, "Dynamic" where they differ."""
    ranks, alphas = {s.rank for s in sizes}, {s.alpha for s in sizes}
    return ranks.pop() if len(ranks) == 1 else "Dynamic", alphas.pop() if len(alphas) == 1 else "Dynamic"


def picture_facts(run: Run) -> dict[str, Any]:
    """Buckets, folders, tags and the mean difference between a picture's aspect ratio and its bucket's."""
    buckets: Counter[tuple[int, int]] = Counter()
    folders: Counter[str] = Counter()
    repeats: dict[str, int] = {}
    errors: list[float] = []
    for picture in run.dataset.pictures:
        bucket, name = run.dataset.bucket_of(picture), Path(picture.subset.folder).name
        buckets[bucket] += picture.subset.repeats
        folders[name] += 1
        repeats[name] = picture.subset.repeats
        errors += [abs(picture.size[0] / picture.size[1] - bucket[0] / bucket[1])] * picture.subset.repeats
    return {
        "buckets": tuple(sorted(buckets.items())),
        "mean_ar_error": sum(errors) / len(errors),
        "dataset_dirs": {name: (repeats[name], count) for name, count in folders.items()},
        "tag_frequency": run.dataset.tag_frequency(),
        "flip": any(bool(p.subset.flip) for p in run.dataset.pictures),
    }


def known_hashes(path: str, folder: Path) -> tuple[str, str]:
    """Both hashes of a checkpoint, kept in the working folder by size and time: reading gigabytes takes a while.

    A diffusers folder has none.
    """
    if not Path(path).is_file():
        return "", ""
    status = os.stat(path)
    mark = [Path(path).name, status.st_size, status.st_mtime_ns]
    kept = folder / "hashes.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        entries = [entry for entry in known if entry[:3] == mark]
    except (OSError, ValueError):
        known, entries = [], []
    if entries:
        return entries[0][3], entries[0][4]
    found = file_hashes(path)
    with contextlib.suppress(OSError):  # a full disk costs the time of reading again, no more
        write_text(kept, json.dumps([*known, [*mark, *found]]))
    return found
