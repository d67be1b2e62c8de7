"""The demo from beginning to end: train, draw, measure, inpaint, write the page."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lora_core.chart import LossCurve, loss_chart
from lora_core.commands import Commands
from lora_core.demo import plan
from lora_core.demo.figures import Figures, FileFact, Trained
from lora_core.demo.inpainting import repaint
from lora_core.demo.measure import measure
from lora_core.demo.page import Gallery, Shown, page, verdict
from lora_core.demo.shots import Shot, ShotList, draw, shot_list
from lora_core.drawing import GridText, picture_grid
from lora_core.engine.device import pick_device
from lora_core.engine.models import load_models
from lora_core.errors import FileError, Interrupted
from lora_core.events import Event, Finished, Note, Saved, Stage
from lora_core.jobs.demo import DemoJob
from lora_core.lora_file import read_lora
from lora_core.run import run


@dataclass
class Work:
    """What the parts of the demo hand on."""

    job: DemoJob
    found: plan.Inputs
    folder: Path
    started: float
    events: list[Event] = field(default_factory=list)

    @property
    def lora(self) -> Path:
        return self.folder / f"{plan.NAME}.safetensors"


def run_demo(job: DemoJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run the demo into `job.output_dir`. The last event is Finished: the page, the LoRA; `report` has the figures.

    Raises FileError when an input is missing, Interrupted when it is stopped before its page is written.
    """
    commands = commands or Commands()
    work = Work(job, checked(plan.inputs(job)), Path(job.output_dir), time.monotonic())
    clear(work.folder)
    seconds, report = yield from train(work, commands)
    shots = shot_list(job)
    pictures = yield from pictures_of(work, shots, commands)
    yield Stage("Inpainting")
    before = pictures[shots.portrait[0]]
    inpainted = yield from repaint(before, work.found.base, work.lora, work.folder / "inpainting", job)
    yield Stage("Writing the page")
    gallery = write_pictures(work, shots, pictures, inpainted)
    figures = figures_of(work, trained(work, seconds, report), shots, pictures)
    text = page(figures, gallery)
    (work.folder / "index.html").write_text(text, encoding="utf-8")
    (work.folder / "figures.json").write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    yield Saved(str(work.folder / "index.html"), "report")
    yield Note(verdict(figures), "info" if figures.passed() else "warning")
    outputs = (str(work.folder / "index.html"), str(work.lora))
    yield Finished(outputs, {"lines": figures.lines(), "figures": asdict(figures)})


def checked(found: plan.Inputs) -> plan.Inputs:
    """The inputs, if they are there."""
    for path in (found.base, found.pictures):
        if not path.exists():
            raise FileError(f"{path} is missing: the demo needs it. Is the clone complete?")
    return found


def clear(folder: Path) -> None:
    """Remove the LoRAs of an earlier demo from its folder, so that names are free."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{plan.NAME}*.safetensors"):
        path.unlink()


def train(work: Work, commands: Commands) -> Generator[Event, None, tuple[float, dict[str, Any]]]:
    """Train; returns the seconds it took and the training's report."""
    started = time.monotonic()
    job = plan.training(work.job, work.found, work.folder, work.folder / "work")
    report: dict[str, Any] = {}
    for event in run(job, commands):
        work.events.append(event)
        if isinstance(event, Finished):
            if event.stopped:
                raise Interrupted("The demo was stopped while it trained.")
            report = event.report
        else:
            yield event
    return time.monotonic() - started, report


def pictures_of(work: Work, shots: ShotList, commands: Commands) -> Generator[Event, None, dict[Shot, Image.Image]]:
    yield Stage("Drawing")
    device = pick_device(work.job.device)
    models = load_models(work.found.base, torch.float32, device)
    return (yield from draw(models, read_lora(work.lora), shots.all(), commands))


def write_pictures(
    work: Work, shots: ShotList, pictures: Mapping[Shot, Image.Image], inpainted: Image.Image
) -> Gallery:
    """Save the grid, the chart, the inpainting and the training pictures."""
    columns = ["without LoRA", *(f"LoRA at {s:.2g}" if s < 1 else "LoRA at 1.0" for s in plan.STRENGTHS if s)]
    row = len(plan.STRENGTHS)
    rows = [[pictures[s] for s in shots.grid[i : i + row]] for i in range(0, len(shots.grid), row)]
    grid = picture_grid(rows, GridText(columns, plan.GRID_PROMPTS), (plan.SIZE, plan.SIZE))
    chart = loss_chart(LossCurve.from_events(work.events), f"Loss of {plan.NAME}")
    return Gallery(
        training=shown_pictures(work, work.found.pictures, "training"),
        others=shown_pictures(work, work.found.others, "others"),
        grid=saved(work.folder, "grid.png", grid, "Prompts by strength"),
        loss=saved(work.folder, "loss.png", chart, "Training loss and held-out loss over the steps"),
        inpainting=saved(work.folder, "inpainting.png", inpainted, "Picture, mask, result"),
    )


def shown_pictures(work: Work, folder: Path, name: str) -> list[Shown]:
    """Copies of a folder's pictures beside the page, with their captions."""
    shown = []
    for path in sorted(folder.glob("*.png")):
        caption = path.with_suffix(".txt")
        text = caption.read_text(encoding="utf-8").strip() if caption.exists() else path.stem
        with Image.open(path) as picture:
            shown.append(saved(work.folder, f"{name}/{path.name}", picture.convert("RGB"), text))
    return shown


def saved(folder: Path, name: str, picture: Image.Image, caption: str) -> Shown:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    return Shown(name, picture.size, caption)


def trained(work: Work, seconds: float, report: dict[str, Any]) -> Trained:
    job = plan.training(work.job, work.found, work.folder, work.folder)
    held_out = [value for _, value in report.get("held_out", [])] or [0.0]
    return Trained(
        steps=report["steps"],
        batch_size=job.dataset.batch_size,
        rank=job.network.rank,
        pictures=len(list(work.found.pictures.glob("*.png"))),
        others=len(list(work.found.others.glob("*.png"))),
        seconds_per_step=report["seconds_per_step"],
        seconds=seconds,
        held_out_before=held_out[0],
        held_out_after=held_out[-1],
        modules=report["modules"],
    )


def figures_of(work: Work, result: Trained, shots: ShotList, pictures: Mapping[Shot, Image.Image]) -> Figures:
    return Figures(
        trigger=plan.NAME,
        trained=result,
        measured=measure(shots, pictures),
        lora=file_fact(work.lora),
        base=file_fact(work.found.base),
        seconds=time.monotonic() - work.started,
        machine=f"{os.cpu_count()} CPU cores, {pick_device(work.job.device).type}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    )


def file_fact(path: Path) -> FileFact:
    return FileFact(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
