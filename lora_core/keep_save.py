"""Keeping one save of a training: its strength is written down, the others go if that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_core.commands import Commands
from lora_core.errors import ConfigError, FileError
from lora_core.events import Event, Finished, Note, Stage
from lora_core.infotext import spell_number
from lora_core.jobs.choose import KeepJob
from lora_core.jobs.files import MetadataJob
from lora_core.keep_one import BESIDE, keep_one, training_of
from lora_core.metadata_edit import edit_metadata
from lora_core.tool_files import check_inputs

STRENGTH = "loraloom.recommended_strength"


def keep(job: KeepJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a KeepJob. The weights keep their bits; nothing is removed before the kept file is written.

    Raises ConfigError and FileError, with nothing changed, for files that are missing or of another training.
    """
    check_inputs(job.lora)
    kept = Path(job.lora)
    others = removable(kept, job.remove)
    strength = spell_number(float(job.strength))
    hint = f"Recommended strength: {strength}."
    edit = MetadataJob(
        lora=job.lora,
        usage_hint=hint,
        trigger=job.trigger or None,
        assign=(f"{STRENGTH}={strength}",),
        sidecar=True,
        weight=float(job.strength),
    )
    outputs: tuple[str, ...] = ()
    for event in edit_metadata(edit):
        if isinstance(event, Finished):
            outputs = event.outputs
        elif not isinstance(event, Note):
            yield event
    if others:
        yield Stage("Removing the other saves")
    if job.away:
        removed = [str(path) for path in keep_one(kept, others, job.away)]
    else:
        removed = [str(path) for other in others for path in _removed(other)]
    done = f"moved to {job.away}" if job.away else "removed"
    yield Note(f"{kept.name} is kept, for use at {strength}; {len(others)} other saves were {done}.")
    yield Finished(outputs, {"strength": float(job.strength), "removed": removed})


def removable(kept: Path, paths: tuple[str, ...]) -> list[Path]:
    """The saves to remove. Raises ConfigError for one that is missing, is the kept one, or is of another training."""
    faults: list[str] = []
    training = training_of(kept)
    found = [Path(path) for path in paths]
    for path in found:
        if not path.is_file():
            faults.append(f"There is no LoRA file {path}.")
        elif path.resolve() == kept.resolve():
            faults.append(f"{path.name} is the save to keep: take it out of remove.")
        elif not training or training_of(path) != training:
            faults.append(f"{path.name} is not removed: it does not come from the training of {kept.name}.")
    if faults:
        raise ConfigError(faults)
    return found


def _removed(path: Path) -> Iterator[Path]:
    """Remove a save and what belongs to it alone."""
    for file in (path, *(path.with_name(path.stem + ending) for ending in BESIDE)):
        try:
            if file.is_file():
                file.unlink()
                yield file
        except OSError as error:
            raise FileError(f"{file.name} cannot be removed: {error.strerror or error}.") from error
