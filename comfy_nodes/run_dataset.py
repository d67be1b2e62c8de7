"""Datasets of the graph: folders, and pictures kept in files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lora_core.errors import ConfigError
from lora_core.jobs import TrainJob
from lora_core.pictures import SUFFIXES

from . import host, places
from .dataset import OF_IMAGES, OWN_SETTINGS, Pictures
from .declare import Context, Result
from .lists import NONE
from .pictures import image_of, masks_of, pictures_of, read_picture
from .widgets import setting, values_of


def run_folder(context: Context, values: dict[str, Any]) -> Result:
    folder = places.picture_folder(values.get("folder", ""), values.get("other_folder", ""))
    if not folder:
        raise ConfigError("No folder with pictures is chosen.")
    held_out = places.picture_folder(values.get("held_out", NONE))
    own = values_of([setting(TrainJob, name) for name in OWN_SETTINGS], values)
    return Result((Pictures(folder, held_out, own),))


def run_images(context: Context, values: dict[str, Any]) -> Result:
    """Writes the pictures into our folder in output: a training may go on after a restart, when temp is empty."""
    own = {name: values[name][0] for name in OF_IMAGES if name in values}
    masks = [mask for batch in values.get("masks") or () for mask in masks_of(batch)]
    folder = kept_set(values["images"], values.get("captions", [""]), masks)
    own |= {"masks": str(Path(folder).with_name(f"{Path(folder).name}-masks"))} if masks else {}
    held_out = values.get("held_out_images")
    kept = kept_set(held_out, values.get("held_out_captions", [""])) if held_out else ""
    return Result((Pictures(folder, kept, own),))


def kept_set(batches: list[Any], captions: list[str], masks: Sequence[Image.Image] = ()) -> str:
    """The folder of these pictures and captions; the same ones always have the same folder.

    Masks go into FOLDER-masks. Raises ConfigError when captions or masks do not fit the pictures in number.
    """
    pictures = [picture for batch in batches for picture in pictures_of(batch)]
    if masks and len(masks) != len(pictures):
        raise ConfigError(f"There are {len(masks)} masks for {len(pictures)} pictures: give one for each.")
    lines = caption_lines(captions, len(pictures))
    digest = hashlib.sha256("\n".join(lines).encode())
    for picture in (*pictures, *masks):
        digest.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
    folder = host.output_folder() / host.OWN_FOLDER / "datasets" / digest.hexdigest()[:16]
    for number, (picture, line) in enumerate(zip(pictures, lines), 1):
        path = keep(picture, folder, number)
        path.with_suffix(".txt").write_text(line, "utf-8")
    for number, mask in enumerate(masks, 1):
        keep(mask, folder.with_name(f"{folder.name}-masks"), number)
    return str(folder)


def keep(picture: Image.Image, folder: Path, number: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:04d}.png"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        picture.save(temporary, "PNG", compress_level=1)
        os.replace(temporary, path)
    return path


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


def run_load(context: Context, values: dict[str, Any]) -> Result:
    """Pictures of a dataset as IMAGE, each with its caption."""

    folder = Path(values["dataset"].folder)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    chosen = found[values["first"] : values["first"] + values["count"]]
    if not chosen:
        raise ConfigError(f"{folder.name} holds {len(found)} pictures; there is none from number {values['first']} on.")
    captions = [p.with_suffix(".txt") for p in chosen]
    texts = [c.read_text("utf-8", "replace").strip() if c.exists() else "" for c in captions]
    return Result(([image_of([read_picture(p)]) for p in chosen], texts))
