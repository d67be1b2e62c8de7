"""Nodes that say what to train on: a folder, or pictures of the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_core.errors import LoomError
from lora_core.jobs import TrainJob

from . import places
from .declare import COMBO, DATASET, IMAGE, INT, MASK, PREFIX, STRING, Node, Out, Port
from .lists import FOLDERS, NONE
from .widgets import port, setting

OWN_SETTINGS = ("validation_split", "repeats", "masks", "alpha_mask", "class_pictures", "caption_extension")
OF_IMAGES = ("validation_split", "repeats")
FOLDER_HELP = "A folder of ComfyUI's input folder, with pictures and a caption file (.txt) beside each."
TYPED_HELP = "Or a folder by its path: in ComfyUI's folders, or in one that LoRA Loom's settings file allows."


@dataclass(frozen=True)
class Pictures:
    """What goes over the wire between Dataset and Train: a folder, held-out pictures, further settings."""

    folder: str
    held_out: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        return {"folder": self.folder, "held_out": self.held_out, **self.settings}


def folder_inputs() -> tuple[Port, ...]:
    own = [setting(TrainJob, name) for name in OWN_SETTINGS]
    return (
        Port("folder", COMBO, "Folder", FOLDER_HELP, options={"options": []}, listed=FOLDERS),
        Port("other_folder", STRING, "Other folder", TYPED_HELP, options={"default": ""}),
        Port(
            "held_out",
            COMBO,
            "Held-out pictures",
            setting(TrainJob, "held_out").declaration.help,
            options={"options": [NONE]},
            listed=FOLDERS,
        ),
        *(port(s) for s in own),
    )


def folder_state(values: dict[str, Any]) -> str:
    """Changes when a file in the folders is added, removed or written."""
    digest = hashlib.sha256()
    named = [
        values.get("other_folder") or values.get("folder"),
        *map(values.get, ("held_out", "masks", "class_pictures")),
    ]
    for typed in named:
        try:
            folder = places.picture_folder(str(typed or NONE))
        except LoomError:
            continue
        for path in sorted(Path(folder).rglob("*")) if folder else ():
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def images_inputs() -> tuple[Port, ...]:
    own = [setting(TrainJob, name) for name in OF_IMAGES]
    captions = "One line a picture, or one line for all. A list of texts counts as lines."
    return (
        Port("images", IMAGE, "Pictures", "Batches, or a list of pictures of any sizes."),
        Port("captions", STRING, "Captions", captions, options={"default": "", "multiline": True}),
        *(port(s) for s in own),
        Port("masks", MASK, "Masks", "One for each picture: white is learned, black is not.", True),
        Port("held_out_images", IMAGE, "Held-out pictures", "Never trained on; they measure.", optional=True),
        Port("held_out_captions", STRING, "Held-out captions", captions, True, {"default": "", "multiline": True}),
    )


def load_inputs() -> tuple[Port, ...]:
    return (
        Port("dataset", DATASET, "Dataset"),
        Port(
            "first",
            INT,
            "First",
            "Number of the first picture, from 0.",
            options={"default": 0, "min": 0, "max": 10**6},
        ),
        Port("count", INT, "Count", "How many pictures.", options={"default": 1, "min": 1, "max": 256}),
    )


NODES = (
    Node(
        f"{PREFIX}Dataset",
        "Dataset (Folder)",
        "Pictures with captions from a folder: flat, nested or kohya's N_name folders.",
        folder_inputs(),
        (Out(DATASET, "dataset"),),
        "run_dataset:run_folder",
        fingerprint=folder_state,
        group="Training",
    ),
    Node(
        f"{PREFIX}DatasetFromImages",
        "Dataset (Images)",
        "Pictures of the graph with captions. They are kept in output/lora_loom/datasets.",
        images_inputs(),
        (Out(DATASET, "dataset"),),
        "run_dataset:run_images",
        as_lists=True,
        group="Training",
    ),
    Node(
        f"{PREFIX}DatasetPictures",
        "Dataset Pictures",
        "Pictures and captions of a dataset, to look at, to edit in the graph, or to inpaint.",
        load_inputs(),
        (Out(IMAGE, "images", many=True), Out(STRING, "captions", many=True)),
        "run_dataset:run_load",
        group="Training",
    ),
)
