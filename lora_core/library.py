"""LoRA files as cards of a library: what a header tells, a verdict per host, the cover. Remembered while unchanged."""

from __future__ import annotations

import base64
import binascii
import functools
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lora_core.dialects import Verdict
from lora_core.drawing import flatten
from lora_core.errors import FileError, LoomError
from lora_core.families import TITLES
from lora_core.inspect_file import Inspection, inspect_network
from lora_core.thumbnails import data_uri

COVERS = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp")
COVER_BYTES = 8 << 20
COVER_SIZE = 192
REMEMBERED = 2000


@dataclass(frozen=True)
class Card:
    """`fault` says why a file could not be inspected; then the other facts are empty. `cover`: an <img>'s src or ""."""

    name: str
    path: str
    family: str = ""
    dialect: str = ""
    ranks: str = ""
    megabytes: float = 0.0
    triggers: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    cover: str = ""
    fault: str = ""


def card(path: str | Path) -> Card:
    """The card of a LoRA file; a file that is none has a `fault`."""
    path = Path(path)
    try:
        stamp = os.stat(path).st_mtime_ns
        beside = next((p for ending in COVERS if (p := path.with_name(path.stem + ending)).is_file()), None)
        return _card(str(path), stamp, str(beside or ""), beside.stat().st_mtime_ns if beside else 0)
    except OSError as error:
        return Card(path.stem, str(path), fault=f"It cannot be read: {error.strerror or error}.")


@functools.lru_cache(maxsize=REMEMBERED)
def _card(path: str, stamp: int, beside: str, beside_stamp: int) -> Card:
    name = Path(path).stem
    try:
        found = inspect_network(path)
    except LoomError as error:
        return Card(name, path, fault=str(error))
    return Card(
        name,
        path,
        family=TITLES[found.family],
        dialect=found.dialect,
        ranks=ranks(found),
        megabytes=found.size / 1e6,
        triggers=found.triggers,
        verdicts=found.verdicts,
        cover=_cover(beside, found.metadata),
    )


def ranks(found: Inspection) -> str:
    """ "16", or "4 to 32" where layers differ, "" for kinds without a rank."""
    values = {int(rank) for block in found.blocks.values() for rank in block.ranks if rank.isdigit()}
    if not values:
        return ""
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


def _cover(beside: str, metadata: dict[str, str]) -> str:
    """The picture beside the file, else the one in it."""
    if beside:
        try:
            return data_uri(beside, COVER_SIZE)
        except FileError:
            return ""
    try:
        text = json.loads(metadata.get("ssmd_cover_images", "[]"))[0]
        if len(text) > COVER_BYTES:
            return ""
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            picture = flatten(image)
    except (ValueError, TypeError, LookupError, OSError, binascii.Error, Image.DecompressionBombError):
        return ""
    picture.thumbnail((COVER_SIZE, COVER_SIZE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
