"""Recipe from Picture: what A1111 or ComfyUI wrote into a picture, as values for our nodes and for ComfyUI's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_core.errors import ConfigError

from . import host
from .declare import (
    COMBO,
    FLOAT,
    INT,
    LORAS,
    PREFIX,
    RECIPE,
    SAMPLER_NAME,
    SCHEDULER_NAME,
    STRING,
    Node,
    Out,
    Port,
)
from .lists import INPUT_PICTURES


def inputs() -> tuple[Port, ...]:
    options = {"options": [], "image_upload": True, "image_folder": "input"}
    told = "A file of the input folder, as it was saved."
    return (Port("picture", COMBO, "Picture", told, options=options, listed=INPUT_PICTURES),)


def path_of(values: dict[str, Any]) -> Path:
    """The file that is named. Raises ConfigError for one that is not in the input folder."""
    name = str(values.get("picture"))
    if name not in host.input_files():
        raise ConfigError(f"There is no picture named {name[:200]!r} in {host.input_folder()}.")
    return host.input_folder() / name


def picture_state(values: dict[str, Any]) -> str:
    try:
        status = path_of(values).stat()
    except (ConfigError, OSError):
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


NODES = (
    Node(
        f"{PREFIX}Recipe",
        "Recipe from Picture",
        "Reads how a picture was made: A1111's parameters, ComfyUI's graph, NovelAI's comment.",
        inputs(),
        (
            Out(RECIPE, "recipe", "For Generate, Img2Img and Inpaint: replaces their widgets."),
            Out(STRING, "positive"),
            Out(STRING, "negative"),
            Out(INT, "width"),
            Out(INT, "height"),
            Out(INT, "seed"),
            Out(INT, "steps"),
            Out(FLOAT, "cfg"),
            Out(FLOAT, "denoise"),
            Out(SAMPLER_NAME, "sampler_name", "For KSampler."),
            Out(SCHEDULER_NAME, "scheduler", "For KSampler."),
            Out(LORAS, "loras"),
            Out(STRING, "report"),
        ),
        "run_recipe:run",
        fingerprint=picture_state,
        shows=True,
        group="Pictures",
    ),
)
