"""Inspecting as a job: facts as notes, figures in the report, a heat map as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from lora_core.commands import Commands
from lora_core.errors import FileError
from lora_core.events import Event, Finished, Note, Saved, Stage
from lora_core.heat_map import heat_map
from lora_core.inspect_file import inspect_network, lines
from lora_core.jobs.files import InspectJob
from lora_core.tool_files import check_inputs


def inspect(job: InspectJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run an InspectJob. Raises FileError or KeyMismatch."""
    check_inputs(job.lora)
    yield Stage("Reading the weights" if job.numbers or job.picture else "Reading the header")
    found = inspect_network(job.lora, job.base, job.numbers or bool(job.picture))
    for line in lines(found):
        yield Note(line)
    outputs: tuple[str, ...] = ()
    if job.picture and found.numbers is not None:
        try:
            heat_map(found.numbers.norms, found.family, Path(job.lora).stem).save(job.picture)
        except OSError as error:
            raise FileError(f"The heat map {job.picture} cannot be written: {error.strerror or error}.") from None
        yield Saved(job.picture, "picture")
        outputs = (job.picture,)
    yield Finished(outputs, dataclasses.asdict(found))
