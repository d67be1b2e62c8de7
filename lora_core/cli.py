"""The command line: `python -m lora_core VERB`. Every flag comes from a job's settings.

Exit codes: 0 done (a stopped training that kept its result is done), 1 the job failed, 2 it cannot run as written.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lora_core import reproducible
from lora_core.cli_flags import add_settings, given_settings
from lora_core.cli_goal import add_goal, with_flags
from lora_core.commands import Commands
from lora_core.console import Console
from lora_core.errors import ConfigError, FileError, LoomError
from lora_core.events import Event
from lora_core.run import RUNNERS, load, run
from lora_core.settings import from_json, replace_by_name, to_json

VERBS = {
    "train": "train a LoRA from a folder of pictures",
    "generate": "draw pictures from a prompt, with LoRAs",
    "img2img": "draw over a picture",
    "inpaint": "repaint a part of a picture",
    "choose": "compare the saves of a training and recommend one",
    "keep": "keep one save, with its strength written down, and remove others if asked",
    "demo": "train and measure the shipped character, then draw a page about it",
    "merge": "merge several LoRAs into one",
    "merge-checkpoint": "bake LoRAs into a checkpoint",
    "extract": "extract the difference of two checkpoints as a LoRA",
    "resize": "give a LoRA a smaller rank",
    "convert": "bring a LoRA of any dialect or algorithm into another dialect",
    "repair": "put hashes, alphas, metadata and keys of a LoRA right",
    "metadata": "show or edit what a LoRA says about itself",
    "inspect": "say what is in a LoRA or a checkpoint",
    "like": "say how a LoRA was trained, as settings for training",
    "caption": "caption pictures by a program or tagging model of yours",
    "export": "write a training job as files of kohya's sd-scripts",
    "recipe": "say how a picture of A1111 or ComfyUI was made, and make it again",
    "doctor": "say what works here and what to do about the rest",
}
ENTRY_POINTS = {
    "inspect": "lora_core.cli_inspect:main",
    "like": "lora_core.cli_like:main",
    "caption": "lora_core.cli_caption:main",
    "export": "lora_core.cli_export:main",
    "recipe": "lora_core.cli_recipe:main",
    "doctor": "lora_core.doctor:main",
}
USES_ENGINE = ("train", "generate", "img2img", "inpaint", "choose", "demo")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code."""
    reproducible.ask()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in ENTRY_POINTS:
            return load(ENTRY_POINTS[arguments[0]])(arguments[1:]) or 0
        options = parser().parse_args(arguments)
        return do(options)
    except ConfigError as error:
        for problem in error.problems:
            say(problem)
        return 2
    except LoomError as error:
        say(str(error))
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("Ended at once; what was saved before is kept.")
        return 1


def say(sentence: str) -> None:
    Console().line(sentence)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and that guesses what a wrong flag meant."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        known = list(self.verbs_flags) if unknown else []
        near = difflib.get_close_matches(unknown[1], known, 1) if unknown else []
        guess = f" Did you mean {near[0]}?" if near else ""
        say(f"{message[0].upper()}{message[1:]}.{guess} All flags: {self.prog} --help")
        sys.exit(2)

    @property
    def verbs_flags(self) -> set[str]:
        """The flags of this parser and of all its verbs."""
        below = [p for a in self._actions if isinstance(a.choices, dict) for p in a.choices.values()]
        return {o for a in self._actions for o in a.option_strings}.union(*(p.verbs_flags for p in below))


def parser() -> Parser:
    """The parser of all verbs that run a job."""
    top = Parser("python -m lora_core", description="LoRA Loom: train and use kohya-format LoRAs.", allow_abbrev=False)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, purpose in VERBS.items():
        sub = verbs.add_parser(
            verb,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            usage=f"python -m lora_core {verb} [--SETTING VALUE ...]",
            allow_abbrev=False,
        )
        if verb not in RUNNERS:
            continue
        sub.add_argument("--config", metavar="JOB.json", help="read settings from a file; flags override it")
        sub.add_argument("--print-config", action="store_true", help="print the job as JSON and end")
        sub.add_argument("--worker", action="store_true", help="run in a child process, as the hosts do")
        if verb == "train":
            sub.add_argument("--kohya", metavar="FILE", help="read sd-scripts TOML or a kohya_ss preset (JSON)")
            sub.add_argument("--like", metavar="LORA", help="take the settings that a LoRA's metadata tell")
            add_goal(sub)
        if "loras" in RUNNERS[verb].job.__dataclass_fields__:
            sub.add_argument("--lora", action="append", metavar="FILE[:STRENGTH]", help="apply a LoRA; may be repeated")
        add_settings(sub, RUNNERS[verb].job)
    return top


def do(options: argparse.Namespace) -> int:
    """Build the job of the parsed options and run it."""
    job = build(options)
    if options.print_config:
        print(json.dumps(to_json(job), indent=2))
        return 0
    faults = job.problems()
    if faults:
        raise ConfigError(faults)
    console = Console()
    with interruptible(job, options) as events:
        for event in events:
            console.show(event)
    return 0


def build(options: argparse.Namespace) -> Any:
    """The job: defaults, then --kohya or --like, then --config, then --goal, then flags."""
    cls = RUNNERS[options.verb].job
    job, given = cls(), given_settings(options, cls)
    if getattr(options, "kohya", None):
        from lora_core.kohya_config import read_kohya

        job, notes = read_kohya(options.kohya)
        for note in notes:
            say(f"{options.kohya}: {note}")
    if getattr(options, "like", None):
        from lora_core.train_like import job_like

        job, notes = job_like(options.like)
        for note in notes:
            say(f"{options.like}: {note}")
    if options.config:
        job = from_json(cls, {**to_json(job), **settings_file(Path(options.config), options.verb)})
    job, sentences = with_flags(job, options, given)
    for sentence in sentences:
        say(sentence)
    if "epochs" in options and "steps" not in options:
        job = replace_by_name(job, {"steps": 0})
    if "loras" in cls.__dataclass_fields__ and getattr(options, "lora", None):
        uses = [lora_use(text) for text in options.lora]
        settings = to_json(job)
        job = from_json(cls, {**settings, "loras": [*settings["loras"], *uses]})
    return job


def settings_file(path: Path, verb: str) -> dict[str, Any]:
    """The settings in a JSON file: plain, or with the job's kind as on the wire. Raises FileError, ConfigError."""
    try:
        data = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise FileError(f"The job file {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise FileError(f"The job file {path} is not JSON: {error}.") from error
    if isinstance(data, dict) and "settings" in data and "job" in data:
        if data["job"] != verb:
            raise ConfigError(f"The job file {path} is for {data['job']!r}, not for {verb!r}.")
        data = data["settings"]
    if not isinstance(data, dict):
        raise ConfigError(f"The job file {path} must hold one object with named settings.")
    return data


def lora_use(text: str) -> dict[str, Any]:
    """FILE, FILE:0.8 or FILE:0.8:0.5 (the text encoder's strength); a colon inside a path is no separator."""
    strengths: list[float] = []
    while len(strengths) < 2:
        path, colon, last = text.rpartition(":")
        try:
            strengths.insert(0, float(last))
        except ValueError:
            break
        if not colon:
            strengths.pop(0)
            break
        text = path
    names = ("strength", "text_encoder_strength")
    return {"path": text, **dict(zip(names, strengths))}


@contextmanager
def interruptible(job: Any, options: argparse.Namespace) -> Iterator[Iterator[Event]]:
    """The job's events; the first Ctrl-C asks it to stop and keep what there is, the second ends it."""
    folders = engine_folders() if options.verb in USES_ENGINE else ()
    if options.worker:
        from lora_core.remote import spawn

        with spawn(job, overlay=folders) as running, first_interrupt(running.stop):
            yield polled(running)
    else:
        sys.path[:0] = folders
        commands = Commands()
        with first_interrupt(lambda: commands.obey("stop")):
            yield run(job, commands)


def engine_folders() -> tuple[str, ...]:
    """Where the private engine is; none where the installed packages suffice. Raises EngineMissing."""
    from lora_core.overlay import engine

    return tuple(engine().folders)


def polled(running: Any) -> Iterator[Event]:
    """Events of a child, waited for in short pieces, because a waiting main thread hears no Ctrl-C on Windows."""
    while not running.ended:
        event = running.poll(0.5)
        if event is not None:
            yield event


@contextmanager
def first_interrupt(stop: Any) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C or when the system asks us to end; a second Ctrl-C raises KeyboardInterrupt."""

    def heard(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("Stopping after this step; what is done is kept. Ctrl-C again ends at once.")
        stop()

    before = [(name, signal.signal(name, heard)) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for name, handler in before:
            signal.signal(name, handler)
