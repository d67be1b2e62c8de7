"""`python -m lora_core like FILE`: how a LoRA was trained, as settings, and what is different from a job of yours."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from lora_core.cli import settings_file
from lora_core.cli_recipe import flags
from lora_core.jobs.train import TrainJob
from lora_core.settings import from_json, to_json


def main(arguments: list[str]) -> int:
    """Print the job of each LoRA. Raises FileError for a file without training metadata."""
    parser = argparse.ArgumentParser("python -m lora_core like", description="The training settings in a LoRA.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="the job as JSON, one file a line; --config reads it")
    parser.add_argument("--against", default="", metavar="JOB.json", help="show what differs from this job instead")
    options = parser.parse_args(arguments)
    from lora_core.train_like import differences, job_like

    for file in options.files:
        job, sentences = job_like(file)
        if options.json:
            print(json.dumps({"job": "train", "settings": to_json(job), "unmapped": list(sentences)}))
        elif options.against:
            yours = from_json(TrainJob, settings_file(Path(options.against), "train"))
            found = differences(yours, job)
            print(f"{Path(file).name}: {len(found)} settings differ")
            for d in found:
                print(f"  {d.label} ({d.name}): {d.first!r} there, {d.second!r} in the LoRA")
        else:
            print("\n".join(lines(file, job, sentences)))
    return 0


def lines(file: str, job: TrainJob, sentences: tuple[str, ...]) -> Iterator[str]:
    """A command that trains alike, and what it leaves open."""
    yield f"{Path(file).name}:"
    yield "python -m lora_core train \\\n  " + " \\\n  ".join(flags(job))
    yield from (f"note: {sentence}" for sentence in sentences)
