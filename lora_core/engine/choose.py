"""The saves of a training side by side: drawn at several strengths, scored, one recommended."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_core.choose_report import Comparison, Sheet, write_report
from lora_core.commands import Commands
from lora_core.embeddings import EmbeddingFolders, bundled_embeddings
from lora_core.engine.apply import apply_lora
from lora_core.engine.choose_cells import (
    Drawing,
    Yardsticks,
    draw,
    held_out_loss,
    request_for,
    shots_again,
    shots_of,
    yardsticks,
)
from lora_core.engine.device import pick_device, pick_dtype
from lora_core.engine.models import Models, load_models
from lora_core.engine.other_networks import read_any
from lora_core.engine.reference_pictures import References, read_references
from lora_core.engine.request import SampleRequest
from lora_core.errors import ConfigError
from lora_core.events import Event, Finished, Note, Progress, Saved, Stage
from lora_core.jobs.choose import ChooseJob
from lora_core.lora_tags import split_lora_tags
from lora_core.recommend import CellScore, Field, recommend
from lora_core.saves import Save, find_saves
from lora_core.settings import to_json


@dataclass(frozen=True)
class Work:
    """What a comparison has at hand. `total` pictures are to be drawn, counted from `started`."""

    job: ChooseJob
    models: Models
    saves: tuple[Save, ...]
    neutral: tuple[str, ...]
    held_out: References | None
    training: References | None
    request: SampleRequest
    commands: Commands
    total: int
    started: float

    def progress(self, done: int) -> Progress:
        left = (time.monotonic() - self.started) / done * (self.total - done) if done else None
        return Progress(done, self.total, None if left is None else round(left, 1), "picture")


def choose(job: ChooseJob, commands: Commands | None = None) -> Iterator[Event]:
    """Compare and recommend; writes grid.png, scores.json and index.html. A raised `stop` compares what is drawn.

    Raises ConfigError, FileError, KeyMismatch, DatasetError, NotFinite.
    """
    commands = commands or Commands()
    saves = find_saves(job.loras, job.folder, job.name)
    neutral, sentence = neutral_prompts(job, saves)
    if sentence:
        yield Note(sentence)
    yield Stage("Loading the base")
    models = loaded(job)
    yield Stage("Reading the pictures")
    held_out = read_pictures(models, job, job.held_out)
    training = read_pictures(models, job, job.training_pictures)
    yield from (Note(text, "warning") for found in (held_out, training) if found for text in found.skipped)
    cells = len(saves) * len(job.strengths)
    total = len(shots_of(job, neutral)) * (cells + 1) + len(shots_again(job, neutral))
    work = Work(
        job, models, saves, neutral, held_out, training, request_for(job), commands, total, time.monotonic()
    )  # fmt: skip
    yield from compared(work)


def neutral_prompts(job: ChooseJob, saves: tuple[Save, ...]) -> tuple[tuple[str, ...], str]:
    """The job's prompts without the trigger, or its prompts less the trigger that the LoRAs name; a sentence if so."""
    if any(split_lora_tags(prompt)[1] for prompt in (*job.prompts, *job.neutral_prompts)):
        raise ConfigError("Prompts of a comparison name no LoRAs: take the <lora:...> tags out.")
    if job.neutral_prompts:
        return job.neutral_prompts, ""
    trigger = next((save.trigger for save in saves if save.trigger), "")
    found = tuple(without_trigger(prompt, trigger) for prompt in job.prompts if trigger and trigger in prompt)
    if not found:
        return (), "No prompts without the trigger are named: changes where it is missing are not measured."
    return found, f"Prompts without the trigger: the prompts less {trigger!r}."


def without_trigger(prompt: str, trigger: str) -> str:
    parts = (part.strip() for part in prompt.replace(trigger, "").split(","))
    return ", ".join(part for part in parts if part)


def loaded(job: ChooseJob) -> Models:
    device = pick_device(job.device)
    dtype = pick_dtype(job.dtype, device)
    if dtype == torch.float16 and device.type == "cpu":
        raise ConfigError("fp16 does not compute on the CPU: set dtype to fp32 or bf16.")
    models = load_models(job.base, dtype, device, job.vae)
    if not models.text_encoders:
        raise ConfigError(f"{Path(job.base).name} holds no text encoder: choose a complete checkpoint.")
    return models


def read_pictures(models: Models, job: ChooseJob, folder: str) -> References | None:
    size = (job.width, job.height)
    return read_references(models, folder, size, job.prompts[0]) if folder else None


def compared(work: Work) -> Iterator[Event]:
    """Draw the base's cell, then every save at every strength; then the report."""
    job, models = work.job, work.models
    yield Stage("Drawing without a LoRA")
    every = (*shots_of(job, work.neutral), *shots_again(job, work.neutral))
    base = yield from drawn(work, work.request, every, 0)
    if base is None:
        yield Finished((), stopped=True)
        return
    measures = yardsticks(models, base, work.held_out, work.training)
    base_loss = held_out_loss(models, work.held_out, job.clip_skip) if work.held_out else None
    sheets: list[Sheet] = []
    done = len(every)
    for save in work.saves:
        yield Stage(f"Drawing with {save.label}")
        for strength in job.strengths:
            sheet = yield from one_cell(work, measures, save, strength, done)
            if sheet is None:
                break
            sheets.append(sheet)
            done += len(shots_of(job, work.neutral))
    if not sheets:
        yield Finished((), stopped=True)
        return
    yield from reported(work, Comparison(base.pictures, tuple(sheets), base_loss), len(sheets))


def one_cell(
    work: Work, measures: Yardsticks, save: Save, strength: float, done: int
) -> Generator[Event, None, Sheet | None]:
    """One save at one strength; None when it was stopped. The base is as before afterwards."""
    job, models = work.job, work.models
    request = replace(work.request, embeddings=EmbeddingFolders((), bundled_embeddings(save.path)))
    with ExitStack() as stack:
        if strength:
            stack.enter_context(apply_lora(models, read_any(save.path, models.architecture), strength))
        drawing = yield from drawn(work, request, shots_of(job, work.neutral), done)
        if drawing is None:
            return None
        loss = held_out_loss(models, work.held_out, job.clip_skip) if work.held_out else None
    near, copies = measures.copying(drawing)
    score = CellScore(
        str(save.path), save.step, strength, loss, measures.likeness(models, drawing),
        measures.leak(drawing), near, copies,
    )  # fmt: skip
    return Sheet(save.label, score, drawing.pictures)


def drawn(work: Work, request: SampleRequest, shots: tuple, done: int) -> Generator[Event, None, Drawing | None]:
    """Draw some shots with progress; None when `stop` came before the last."""
    drawing = None
    for drawing in draw(work.models, request, shots, work.commands):
        yield work.progress(done + len(drawing.pictures))
    return drawing if drawing is not None and len(drawing.pictures) == len(shots) else None


def reported(work: Work, comparison: Comparison, count: int) -> Iterator[Event]:
    """Recommend and write the report."""
    yield Stage("Writing the report")
    field = Field(tuple(sheet.score for sheet in comparison.sheets), comparison.base_held_out)
    found = recommend(field)
    files = write_report(work.job, comparison, field, found)
    yield from (Saved(str(path), "report") for path in files)
    yield from (Note(text, "warning") for text in found.warnings)
    yield Note(f"Recommended: {Path(found.file).name} at strength {found.strength:g}. {' '.join(found.reasons)}")
    report = {"recommendation": to_json(found), "cells": [to_json(c) for c in field.cells]}
    stopped = count < len(work.saves) * len(work.job.strengths)
    yield Finished(tuple(map(str, files)), {**report, "base_held_out": comparison.base_held_out}, stopped)
