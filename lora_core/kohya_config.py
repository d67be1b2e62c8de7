"""Reading what kohya's users have: sd-scripts' TOML files and the JSON presets of the kohya_ss GUI.

Nothing is dropped quietly: an option is translated, or a sentence says what becomes of it. The tables are in
kohya_options, kohya_network, kohya_dataset and kohya_gui.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_core.errors import FileError
from lora_core.jobs.train import TrainJob
from lora_core.kohya_dataset import translate_dataset
from lora_core.kohya_files import read_file
from lora_core.kohya_gui import from_gui, is_gui
from lora_core.kohya_options import OPTIONS
from lora_core.kohya_row import Notes
from lora_core.kohya_rules import RULES
from lora_core.metadata_file import common_folder
from lora_core.settings import from_json, replace_by_name, to_json

PATHS = (
    "pretrained_model_name_or_path",
    "vae",
    "train_data_dir",
    "in_json",
    "dataset_config",
    "output_dir",
    "network_weights",
    "sample_prompts",
)


def read_kohya(path: str | Path) -> tuple[TrainJob, list[str]]:
    """The job that a config file means, and a sentence for each option that is not followed to the letter.

    Takes sd-scripts' --config_file and --dataset_config (TOML or JSON) and kohya_ss presets. What the file does not say
    is as in sd-scripts, except where the file is a dataset config alone. Raises FileError, ConfigError.
    """
    path = Path(path)
    data = read_file(path)
    notes = Notes()
    rest = read_rest(data, path)
    if "datasets" in data:
        job = with_dataset(TrainJob(), data, Place(path.parent), notes)
    else:
        given = from_gui(data, notes) if is_gui(data) else flat(data, notes)
        job = translate(given, Place(path.parent), notes)
    notes.raise_faults()
    return from_json(TrainJob, merged(to_json(job), rest)) if rest else job, notes.told()


def read_rest(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Settings without a name in sd-scripts that `export` put into a section of its own. Raises FileError."""
    section = data.pop("lora_loom", None)
    try:
        rest = json.loads(section["loom_settings"]) if section is not None else {}
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"The section [lora_loom] of {path.name} is damaged: correct or remove it.") from error
    if not isinstance(rest, dict):
        raise FileError(f"The section [lora_loom] of {path.name} must hold named settings: correct or remove it.")
    return rest


def merged(settings: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of `rest` in their place, group by group."""
    both = {k: merged(settings[k], v) for k, v in rest.items() if isinstance(v, dict) and k in settings}
    return {**settings, **rest, **both}


@dataclass(frozen=True)
class Place:
    """Where relative paths of a config are looked for: the current folder first, then the config's own."""

    folder: Path

    def find(self, path: Any) -> Any:
        """The path as written, or beside the config when it is there and not here."""
        beside = self.folder / str(path)
        return str(beside) if path and not Path(str(path)).exists() and beside.exists() else path


def flat(data: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Sections of a config file are only for the eye: their options count as if they stood alone."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        inner = value if isinstance(value, dict) and name not in OPTIONS else {name: value}
        for key, content in inner.items():
            if key in found and found[key] != content:
                notes.say(key, content, "The option is there twice; the last one counts.")
            found[key] = content
    return found


def translate(given: dict[str, Any], place: Place, notes: Notes) -> TrainJob:
    """The job for trainer options by name; what is not given is as sd-scripts has it."""
    given = {name: place.find(value) if name in PATHS else value for name, value in given.items()}
    for name, value in given.items():
        option = OPTIONS.get(name)
        if option is None:
            notes.say(name, value, "This option is not known and is left out.", "unknown")
        elif option.how != "done" and option.used(value):
            notes.say(name, value, option.sentence, option.how)
    job = replace_by_name(TrainJob(), settings_of(given, notes))
    dataset = given.get("dataset_config")
    if not dataset:
        folder = str(given.get("train_data_dir") or "") or named_folder(job.dataset.metadata_file)
        return replace_by_name(job, {"folder": folder})
    return with_dataset(job, read_file(Path(dataset)), Place(Path(dataset).parent), notes)


def settings_of(given: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Our settings by name, for given options on top of sd-scripts' defaults."""
    defaults = {name: option.default for name, option in OPTIONS.items()}
    values = {**defaults, **{name: value for name, value in given.items() if value is not None}, "given": given}
    found: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        if option.convert is not None:
            found[option.settings[0]] = notes.convert(name, values[name], option.convert)
    for rule in RULES:
        found.update(rule(values, notes))
    notes.raise_faults()
    return found


def with_dataset(job: TrainJob, config: dict[str, Any], place: Place, notes: Notes) -> TrainJob:
    """The job with the folders and rules of a dataset config."""
    options, subsets = translate_dataset(config, notes)
    for name, value in options.items():
        if OPTIONS[name].how != "done" and OPTIONS[name].used(value):
            notes.say(name, value, OPTIONS[name].sentence, OPTIONS[name].how)
    notes.raise_faults()
    translated = settings_of({"seed": 0, **options}, notes)
    wanted = {setting for name in options for setting in OPTIONS[name].settings}
    job = replace_by_name(job, {name: value for name, value in translated.items() if name in wanted})
    data = to_json(job)
    data["dataset"]["subsets"] = [placed(subset, place) for subset in subsets]
    data["dataset"]["folder"] = ""
    return from_json(TrainJob, data)


def placed(subset: dict[str, Any], place: Place) -> dict[str, Any]:
    """A subset's paths where they are; without a folder, the one that its captions file names."""
    file = place.find(subset.get("metadata_file"))
    folder = place.find(subset["folder"]) or named_folder(file)
    return {**subset, "folder": folder, **({"metadata_file": file} if file else {})}


def named_folder(file: str | None) -> str:
    """The folder of the pictures that a captions file names by whole paths. Raises DatasetError."""
    return common_folder(Path(file)) if file else ""
