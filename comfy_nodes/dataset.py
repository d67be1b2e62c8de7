"""Nodes that say what to train on: a folder, or pictures of the graph."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_core.errors import ConfigError
from lora_core.jobs import TrainJob
from lora_core.pictures import SUFFIXES

from . import host, places
from .declare import COMBO, DATASET, IMAGE, INT, PREFIX, STRING, Context, Node, Out, Port, Result
from .pictures import pictures_of
from .widgets import port, setting, values_of

OWN_SETTINGS = ("validation_split", "repeats", "caption_extension")
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
    listed = places.picture_folders()
    own = [setting(TrainJob, name) for name in OWN_SETTINGS]
    return (
        Port("folder", COMBO, "Folder", FOLDER_HELP, options={"options": listed}),
        Port("other_folder", STRING, "Other folder", TYPED_HELP, options={"default": ""}),
        Port(
            "held_out",
            COMBO,
            "Held-out pictures",
            setting(TrainJob, "held_out").declaration.help,
            options={"options": [places.NO_FOLDER, *listed]},
        ),
        *(port(s) for s in own),
    )


def run_folder(context: Context, values: dict[str, Any]) -> Result:
    folder = places.picture_folder(values.get("folder", ""), values.get("other_folder", ""))
    if not folder:
        raise ConfigError("No folder with pictures is chosen.")
    held_out = places.picture_folder(values.get("held_out", places.NO_FOLDER))
    own = values_of([setting(TrainJob, name) for name in OWN_SETTINGS], values)
    return Result((Pictures(folder, held_out, own),))


def folder_state(values: dict[str, Any]) -> str:
    """Changes when a file in the folders is added, removed or written."""
    digest = hashlib.sha256()
    for typed in (values.get("other_folder") or values.get("folder"), values.get("held_out")):
        try:
            folder = places.picture_folder(typed or places.NO_FOLDER)
        except ConfigError:
            continue
        for path in sorted(Path(folder).rglob("*")) if folder else ():
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def images_inputs() -> tuple[Port, ...]:
    own = [setting(TrainJob, name) for name in OWN_SETTINGS[:2]]
    captions = "One line a picture, or one line for all. A list of texts counts as lines."
    return (
        Port("images", IMAGE, "Pictures", "Batches, or a list of pictures of any sizes."),
        Port("captions", STRING, "Captions", captions, options={"default": "", "multiline": True}),
        *(port(s) for s in own),
        Port("held_out_images", IMAGE, "Held-out pictures", "Never trained on; they measure.", optional=True),
        Port("held_out_captions", STRING, "Held-out captions", captions, True, {"default": "", "multiline": True}),
    )


def run_images(context: Context, values: dict[str, Any]) -> Result:
    """Writes the pictures into our folder in output: a training may go on after a restart, when temp is empty."""
    own = {s.name: values[s.name][0] for s in (setting(TrainJob, n) for n in OWN_SETTINGS[:2]) if s.name in values}
    folder = kept_set(values["images"], values.get("captions", [""]))
    held_out = values.get("held_out_images")
    kept = kept_set(held_out, values.get("held_out_captions", [""])) if held_out else ""
    return Result((Pictures(folder, kept, own),))


def kept_set(batches: list[Any], captions: list[str]) -> str:
    """The folder of these pictures and captions; the same ones always have the same folder."""
    pictures = [picture for batch in batches for picture in pictures_of(batch)]
    lines = caption_lines(captions, len(pictures))
    digest = hashlib.sha256("\n".join(lines).encode())
    for picture in pictures:
        digest.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
    folder = host.output_folder() / host.OWN_FOLDER / "datasets" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for number, (picture, line) in enumerate(zip(pictures, lines), 1):
        path = folder / f"{number:04d}.png"
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            picture.save(temporary, "PNG", compress_level=1)
            os.replace(temporary, path)
        path.with_suffix(".txt").write_text(line, "utf-8")
    return str(folder)


def caption_lines(captions: list[str], pictures: int) -> list[str]:
    """A caption for each picture. Raises ConfigError when their number fits neither all nor each."""
    lines = captions if len(captions) > 1 else [line.strip() for line in captions[0].splitlines() if line.strip()]
    if len(lines) <= 1:
        return [lines[0] if lines else ""] * pictures
    if len(lines) != pictures:
        raise ConfigError(
            f"There are {len(lines)} captions for {pictures} pictures: give one for each, or one for all."
        )
    return [" ".join(line.splitlines()) for line in lines]


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


def run_load(context: Context, values: dict[str, Any]) -> Result:
    """Pictures of a dataset as IMAGE, each with its caption."""
    from .pictures import image_of, read_picture

    folder = Path(values["dataset"].folder)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    chosen = found[values["first"] : values["first"] + values["count"]]
    if not chosen:
        raise ConfigError(f"{folder.name} holds {len(found)} pictures; there is none from number {values['first']} on.")
    captions = [p.with_suffix(".txt") for p in chosen]
    texts = [c.read_text("utf-8", "replace").strip() if c.exists() else "" for c in captions]
    return Result(([image_of([read_picture(p)]) for p in chosen], texts))


NODES = (
    Node(
        f"{PREFIX}Dataset",
        "Dataset (Folder)",
        "Pictures with captions from a folder: flat, nested or kohya's N_name folders.",
        folder_inputs,
        (Out(DATASET, "dataset"),),
        run_folder,
        fingerprint=folder_state,
        group="Training",
    ),
    Node(
        f"{PREFIX}DatasetFromImages",
        "Dataset (Images)",
        "Pictures of the graph with captions. They are kept in output/lora_loom/datasets.",
        images_inputs,
        (Out(DATASET, "dataset"),),
        run_images,
        as_lists=True,
        group="Training",
    ),
    Node(
        f"{PREFIX}DatasetPictures",
        "Dataset Pictures",
        "Pictures and captions of a dataset, to look at, to edit in the graph, or to inpaint.",
        load_inputs,
        (Out(IMAGE, "images", many=True), Out(STRING, "captions", many=True)),
        run_load,
        group="Training",
    ),
)
