"""After a training whose saves were judged: the best one gets the LoRA's name, and the strength to use it at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_core.commands import Commands
from lora_core.engine.choose import choose
from lora_core.engine.judging import STEPS
from lora_core.engine.saving import free_path
from lora_core.errors import LoomError
from lora_core.events import Event, Finished, Note, Saved, Stage
from lora_core.jobs.choose import ChooseJob, KeepJob
from lora_core.jobs.train import TrainJob
from lora_core.keep_save import keep
from lora_core.metadata_edit import rewrite
from lora_core.recommend import CellScore
from lora_core.tensors import read_header

NO_SESSION = -1
LIKENESS, HELD_OUT, ENDED = "loraloom.likeness", "loraloom.held_out_loss", "loraloom.ended_early"


def recommended(
    job: TrainJob, best: CellScore, prompts: tuple[str, ...], end: Finished, commands: Commands
) -> Iterator[Event]:
    """Put the best save in the place of the finished LoRA, find its strength, and write both down; Finished is last.

    `end`: what the training would have ended with. Nothing here loses the LoRA: a failure is said.
    """
    path = Path(end.outputs[0])
    known: dict[str, Any] = {}
    try:
        yield from best_in_place(job, best, end)
        known |= {"step": best.step, "likeness": best.likeness, "held_out": best.held_out}
        strength = yield from strength_of(job, path, prompts, commands)
        if strength is not None:
            known["strength"] = strength
            keeping = keep(KeepJob(lora=str(path), strength=strength, trigger=job.captions.trigger.strip()))
            yield from (event for event in keeping if isinstance(event, Saved))
            yield Note(f"Use {path.name} at strength {strength:g}; that stands in the file, and beside it for A1111.")
    except (LoomError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield Note(f"No strength is recommended: {reason}", "warning")
    yield replace(end, report={**end.report, "recommended": known})


def best_in_place(job: TrainJob, best: CellScore, end: Finished) -> Iterator[Event]:
    """The finished LoRA becomes the best save; what was there, the last one, keeps a name with its step."""
    path = Path(end.outputs[0])
    source = Path(best.file)
    header = read_header(source)
    session = int(header.metadata.get("ss_session_id") or NO_SESSION)
    last = free_path(path.parent, f"{job.name}-{end.report['steps']:06d}", session)
    told = {LIKENESS: best.likeness, HELD_OUT: best.held_out}
    metadata = {**header.metadata, **{key: f"{value:.4f}" for key, value in told.items() if value is not None}}
    if end.report.get("ended_early"):
        metadata[ENDED] = end.report["ended_early"]
    for key in ("ss_output_name", "modelspec.title"):
        if metadata.get(key) == source.stem:
            metadata[key] = path.stem
    if source == path:
        rewrite(source, path, header, metadata)
        return
    os.replace(path, last)
    try:
        rewrite(source, path, header, metadata)
    except BaseException:
        os.replace(last, path)
        raise
    word, steps = job.captions.trigger.strip(), (best.step, end.report["steps"])
    embedding_in_place(path.parent / "embeddings", word, steps, session)
    yield Note(f"{path.name} is the save of step {best.step}, the best one; the last one is {last.name}.")


def embedding_in_place(folder: Path, word: str, steps: tuple[int, int], session: int) -> None:
    """Where the trigger was trained as new tokens, its file follows the LoRA. `steps`: the best save's, the last's."""
    names = (*(f"{word}-{step:06d}" for step in steps), word)
    told = session != NO_SESSION  # minimal metadata do not tell whose a file is
    source, last, target = (
        free_path(folder, name, session) if told else folder / f"{name}.safetensors" for name in names
    )
    if source.is_file() and target.is_file():
        os.replace(target, last)
        shutil.copyfile(source, target)


def strength_of(
    job: TrainJob, path: Path, prompts: tuple[str, ...], commands: Commands
) -> Generator[Event, None, float | None]:
    """Draw with the LoRA at several strengths and compare; None when that was stopped, or the base alone is not it."""
    if job.network.base_loras:
        yield Note("No strength is looked for, because other LoRAs were merged into the base for this training.")
        return None
    yield Stage("Finding the strength")
    found = None
    for event in choose(comparison(job, path, prompts), commands):
        if isinstance(event, Finished):
            found = event.report.get("recommendation")
        else:
            yield event
    return float(found["strength"]) if found else None


def comparison(job: TrainJob, path: Path, prompts: tuple[str, ...]) -> ChooseJob:
    """The job that compares strengths, drawn as the training's previews are."""
    d, s = job.dataset, job.saves
    work = Path(job.work_dir) if job.work_dir else Path(job.output_dir) / f"{job.name}.loom"
    return ChooseJob(
        base=job.base,
        loras=(str(path),),
        output_dir=str(work / "strengths"),
        prompts=prompts,
        negative_prompt=s.preview_negative,
        seeds=(job.seed,),
        held_out=d.held_out,
        training_pictures=d.folder,
        width=d.width // 64 * 64 or 64,
        height=d.height // 64 * 64 or 64,
        steps=min(s.preview_steps, STEPS),
        cfg_scale=s.preview_cfg,
        sampler=s.preview_sampler,
        clip_skip=job.captions.clip_skip,
        vae=job.vae,
        device=job.memory.device,
        dtype=job.memory.dtype,
    )
