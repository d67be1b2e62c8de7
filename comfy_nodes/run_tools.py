"""Inspect and Metadata at work."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_core.jobs.files import InspectJob, MetadataJob
from lora_core.settings import replace_by_name

from . import host, places
from .declare import Context, Result
from .pictures import first, image_of, kept_picture, pictures_of, read_picture
from .widgets import chosen_file, settings, values_of
from .work import perform


def run_inspect(context: Context, values: dict[str, Any]) -> Result:
    """Report and heat map; the weights are always read."""
    picture = places.temp_folder() / f"heat-map-{uuid.uuid4().hex[:12]}.png"
    lora = chosen_file("loras", values.get("lora_name") or values["lora"])
    base = chosen_file("checkpoints", values.get("base"))
    done = perform(context, InspectJob(lora, base, True, str(picture)), "inspect")
    text = "\n".join(done.notes)
    return Result((text, image_of([read_picture(picture)])), {"text": [text], "images": [shown(picture)]})


def shown(path: Path) -> Mapping[str, str]:
    """How the page is told of a picture in our temporary folder."""
    return {"filename": path.name, "subfolder": host.OWN_FOLDER, "type": "temp"}


def run_metadata(context: Context, values: dict[str, Any]) -> Result:
    """Edit in place, atomically, or only show."""
    if values.get("lora_name"):
        values = {**values, "lora": values["lora_name"]}
    chosen = values_of(settings(MetadataJob, leave_out=("output", "cover", "overwrite")), values)
    cover = values.get("cover")
    path = kept_picture(pictures_of(first(cover, "A preview"))[0]) if cover is not None else ""
    done = perform(context, replace_by_name(MetadataJob(), {**chosen, "cover": path}), "metadata")
    text = "\n".join(done.notes)
    name = places.listed_name("loras", Path(chosen["lora"]))
    return Result((name, text), {"text": [text]})
