"""Which folders a graph may read and write, and where our results go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from lora_core.confine import confine_job, confined, spelling_fault, with_links
from lora_core.errors import ConfigError

from . import host
from .lists import DEMO, DEMO_SETS, NONE, allowed_folders, settings_file

MODEL_KINDS = ("checkpoints", "loras", "vae", "embeddings", "diffusers")
J = TypeVar("J")


def write_roots() -> tuple[Path, ...]:
    """ComfyUI's output and temp, its folders of LoRAs, the first of checkpoints, and what links in those point to."""
    models = with_links((*host.folders("loras"), *host.folders("checkpoints")[:1]))
    return (host.output_folder(), *models, host.temp_folder())


def read_roots() -> tuple[Path, ...]:
    """ComfyUI's models (and what links in them point to), input, output, temp, our demo, what the user allowed."""
    models = [folder for kind in MODEL_KINDS for folder in host.folders(kind)]
    return (host.input_folder(), *write_roots(), *with_links(models), DEMO, *allowed_folders())


def checked(job: J) -> J:
    """The job with every path confined. Raises ConfigError for paths that lead elsewhere."""
    return confine_job(job, read_roots(), write_roots())


def picture_folder(listed: str, typed: str = "") -> str:
    """The folder chosen from the list, or typed. Raises ConfigError for one that may not be read; "" for none."""
    name = typed.strip() or (listed if listed != NONE else "")
    if not name:
        return ""
    if name in DEMO_SETS:
        return str(DEMO_SETS[name])
    try:
        found = confined(name, (host.input_folder(), host.output_folder(), host.temp_folder(), *allowed_folders()))
    except ConfigError as error:
        raise ConfigError(
            f"{error} Put the pictures into a folder of {host.input_folder()}, or allow their folder in "
            f'{settings_file()}: {{"allowed_folders": ["/where/they/are"]}}'
        ) from None
    if not found.is_dir():
        raise ConfigError(f"There is no folder {name!r} in {host.input_folder()}.")
    return str(found)


def lora_folder() -> Path:
    """Where new LoRAs go: ComfyUI's first folder for them."""
    folders = host.folders("loras")
    if not folders:
        raise ConfigError("ComfyUI has no folder for LoRAs.")
    folders[0].mkdir(parents=True, exist_ok=True)
    return folders[0]


def checkpoint_folder() -> Path:
    folders = [folder for folder in host.folders("checkpoints") if folder != DEMO]
    if not folders:
        raise ConfigError("ComfyUI has no folder for checkpoints.")
    folders[0].mkdir(parents=True, exist_ok=True)
    return folders[0]


def picture_name(name: str) -> str:
    """A name for pictures, folders before it. Raises ConfigError for one that leads out of the output folder."""
    fault = "begins with a slash" if name.startswith(("/", "\\")) else spelling_fault(name)
    if fault:
        raise ConfigError(f"The file name {name[:200]!r} {fault}: write it as in Save Image, such as sub/name.")
    return name


def work_folder(name: str) -> Path:
    """State, cache and previews of a training: not in the folder for LoRAs, whose list would show them."""
    return host.output_folder() / host.OWN_FOLDER / name


def temp_folder() -> Path:
    folder = host.temp_folder() / host.OWN_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def listed_name(kind: str, path: Path) -> str:
    """The name under which ComfyUI lists a file, or its path where it lists none."""
    for folder in host.folders(kind):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)


def as_json(value: Any) -> str:
    """As ComfyUI writes graphs into pictures."""
    return json.dumps(value)
