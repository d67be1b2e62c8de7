"""`python -m lora_core recipe PICTURE`: how a picture was made, as a job; --run makes it again."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_core.cli import engine_folders, first_interrupt
from lora_core.cli_flags import flag, negation
from lora_core.commands import Commands
from lora_core.console import Console
from lora_core.recipe_values import Recipe
from lora_core.run import run
from lora_core.settings import describe, to_json


def main(arguments: list[str]) -> int:
    """Print the recipe of each picture, or run it. Raises FileError, and what running raises."""
    parser = argparse.ArgumentParser("python -m lora_core recipe", description="The job in a picture of either host.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="PNG, JPEG, WebP, or A1111's .txt")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: job, kind, unmapped, assumed")
    parser.add_argument("--folders", nargs="*", default=[], metavar="DIR", help="where models, LoRAs and pictures are")
    parser.add_argument("--run", action="store_true", help="draw it again")
    parser.add_argument("--output-dir", default="", metavar="DIR", help="where --run puts the pictures")
    options = parser.parse_args(arguments)
    from lora_core.recipes import match_files, recipe_of

    for picture in options.pictures:
        recipe = recipe_of(picture)
        if options.folders:
            recipe = match_files(recipe, options.folders)
        recipe = replace(recipe, job=replace(recipe.job, output_dir=options.output_dir))
        print(json.dumps(as_json(recipe)) if options.json else "\n".join(lines(picture, recipe)))
        if options.run:
            again(recipe)
    return 0


def as_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its job in the form that the worker and --config read."""
    return {
        "job": recipe.kind,
        "settings": to_json(recipe.job),
        "unmapped": list(recipe.unmapped),
        "assumed": list(recipe.assumed),
        "source": recipe.source,
    }


def lines(picture: str, recipe: Recipe) -> Iterator[str]:
    """For a person: where it was read, a command that makes it again, and what stays open."""
    yield f"{Path(picture).name}: {recipe.source}"
    yield f"python -m lora_core {recipe.kind} \\\n  " + " \\\n  ".join(flags(recipe.job))
    yield from (f"note: {sentence}" for sentence in recipe.assumed)
    yield from (f"left out: {sentence}" for sentence in recipe.unmapped)


def flags(job: Any) -> Iterator[str]:
    """The command-line flags that differ from the defaults, quoted for a shell."""
    for use in getattr(job, "loras", ()):
        text = use.text_encoder_strength
        yield f"--lora {shlex.quote(f'{use.path}:{use.strength:g}' + ('' if text is None else f':{text:g}'))}"
    for s in describe(type(job)):
        value = job
        for part in s.path:
            value = getattr(value, part)
        if value == s.default:
            continue
        if isinstance(value, bool):
            yield flag(s.name) if value else negation(s.name)
        elif isinstance(value, tuple):
            yield f"{flag(s.name)} {shlex.join(map(str, value))}".rstrip()
        else:
            yield f"{flag(s.name)} {shlex.quote(str(value))}"


def again(recipe: Recipe) -> None:
    """Run the job of a recipe in this process and show its events."""
    sys.path[:0] = engine_folders()
    console, commands = Console(), Commands()
    with first_interrupt(lambda: commands.obey("stop")):
        for event in run(recipe.job, commands):
            console.show(event)
