"""What a training writes: LoRAs, the resumable state, a report. A name that belongs to another run is never reused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_core.engine import resume
from lora_core.engine.averages import as_saved
from lora_core.engine.course import Course, finite
from lora_core.engine.device import DTYPES
from lora_core.engine.network import file_tensors
from lora_core.engine.new_words import bundled, vectors, words_of, write_embedding
from lora_core.engine.pace import PACE
from lora_core.engine.saved_metadata import lora_metadata
from lora_core.errors import FileError, LoomError, NotFinite
from lora_core.events import Event, Note, Saved
from lora_core.keys import lora_targets
from lora_core.lora_file import write_kohya_tensors
from lora_core.tensors import read_header
from lora_core.whole_files import write_text

if TYPE_CHECKING:
    from lora_core.engine.setup import Run


def step_name(run: Run, step: int) -> str:
    """`name-000123`: each save has its own name, because hosts cache LoRAs by name."""
    return f"{run.job.name}-{step:06d}"


def save_lora(run: Run, course: Course, name: str) -> Saved:
    """Write `name.safetensors` (or `name-2` if that belongs to another run); it was re-opened and checked."""
    folder = Path(run.job.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = free_path(folder, name, course.session)
    word, words = run.job.captions.trigger.strip(), bool(words_of(run.network))
    with as_saved(run):
        tensors = file_tensors(run.network, lora_targets(run.architecture, conv=True))
        rows = vectors(run.network) if words else {}
        bundle = bundled(run.network, word) if words else {}
    metadata = lora_metadata(run, course, path.stem)
    embedding = save_embedding(run, course, rows, metadata) if words else None
    if not tensors and embedding is not None:
        course.files.append((course.step, [str(embedding)]))
        return Saved(str(embedding), "embedding", course.step)
    write_kohya_tensors(path, tensors | bundle, DTYPES[run.job.saves.save_precision], metadata)
    course.files.append((course.step, [str(path), *([str(embedding)] if embedding else [])]))
    return Saved(str(path), "lora", course.step)


def drop_old(run: Run, course: Course) -> list[str]:
    """Delete the oldest saves of this run, so that `keep_last` remain; their names. Files of other runs stay."""
    keep, names = run.job.saves.keep_last, list[str]()
    steps = list(dict.fromkeys(step for step, _ in course.files))
    old = set(steps[:-keep]) if keep else set()
    for path in [Path(p) for step, paths in course.files if step in old for p in paths]:
        if path.exists() and session_of(path) in ("", str(course.session)):
            path.unlink()
            names.append(path.name)
    course.files = [entry for entry in course.files if entry[0] not in old]
    course.saves = [step for step in course.saves if step not in old]
    return names


def save_embedding(run: Run, course: Course, rows: dict[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    """The trigger's vectors as `embeddings/TRIGGER.safetensors`; saves on the way have the step in their name."""
    word, last = run.job.captions.trigger.strip(), course.step >= run.total_steps
    name = word if last else f"{word}-{course.step:06d}"
    path = free_path(Path(run.job.output_dir) / "embeddings", name, course.session)
    write_embedding(path, rows, {k: v for k, v in metadata.items() if k.startswith(("ss_", "modelspec.title"))})
    return path


def free_path(folder: Path, name: str, session: int) -> Path:
    """The first of name, name-2, name-3, ... that is free or was written by this run."""
    for number in range(1, 10_000):
        path = folder / (f"{name}.safetensors" if number == 1 else f"{name}-{number}.safetensors")
        if not path.exists() or session_of(path) == str(session):
            return path
    raise FileError(f"{folder} holds too many files named {name}-N.safetensors; choose another name.")


def session_of(path: Path) -> str:
    try:
        return read_header(path).metadata.get("ss_session_id", "")
    except FileError:
        return ""


def state_path(run: Run) -> Path:
    return run.folder / "state.safetensors"


def is_finite(run: Run) -> bool:
    """Whether every factor holds numbers only."""
    return all(bool(torch.isfinite(t).all()) for t in run.network.tensors().values())


def save_state(run: Run, course: Course) -> Saved:
    """Write the resumable state. Raises NotFinite, with an older state as it was, for weights that are not finite."""
    if not is_finite(run):
        raise NotFinite("The trained weights are not finite; the state was not written.")
    tensors, optimizer = resume.split_optimizer(run.optimizer.state_dict())
    live = run.network.tensors() | run.network.constants()
    factors = {f"lora.{name}": t.detach().cpu() for name, t in live.items()}
    extra: dict[str, Any] = {"course": course.to_json()}
    if run.ema:
        factors |= {f"ema.{name}": t.detach().cpu() for name, t in run.ema.tensors.items()}
        extra["ema_updates"] = run.ema.updates
    schedule = {k: v for k, v in run.schedule.state_dict().items() if k != "lr_lambdas"}
    if run.scaler:
        extra["scaler"] = run.scaler.state_dict()
    path = state_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = resume.State(course.step, factors | tensors, optimizer, schedule, extra)
    resume.write_state(path, state, run.mark)
    return Saved(str(path), "state", course.step)


def drop_state(run: Run) -> None:
    """A finished training leaves no state, nor measured speed, that a later run could take for its own."""
    for path in (state_path(run), run.folder / PACE):
        path.unlink(missing_ok=True)


def require_learned(run: Run) -> None:
    """Raises LoomError when the LoRA would do nothing."""
    if not any(branch.changes() for branch in run.network.branches.values()):
        raise LoomError("The LoRA learned nothing: it changes no weight. Raise the learning rate or the steps.")


def report(run: Run, course: Course) -> dict[str, Any]:
    """The figures of a run, for people and for the hosts' pages."""
    return {
        "steps": course.step,
        "total_steps": run.total_steps,
        "modules": len(run.network.branches),
        "loss": finite(course.average),
        "losses": [finite(x) for x in course.losses],
        "held_out": [(step, finite(value)) for step, value in course.held_out],
        "saves": course.saves,
        "looks": [(look.step, finite(look.likeness), finite(look.held_out)) for look in course.looks],
        "ended_early": course.ended,
        "skipped_steps": course.skipped,
        "rollbacks": course.rollbacks,
        "seconds_per_step": course.seconds_per_step(),
        "family": run.architecture.family,
        "dtype": str(run.dtype).removeprefix("torch."),
        "device": str(run.device),
    }


def write_report(run: Run, figures: dict[str, Any]) -> Iterator[Event]:
    """The report as JSON in the working folder, replaced at once; a failure is said, for the LoRA is saved already."""
    path = run.folder / "report.json"
    try:
        write_text(path, json.dumps(figures, indent=1))
    except OSError as error:
        reason = error.strerror or error
        yield Note(f"The LoRA is saved; its report {path.name} could not be written: {reason}.", "warning")
