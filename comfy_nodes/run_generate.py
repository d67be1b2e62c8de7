"""Generate, Img2Img and Inpaint at work."""

from __future__ import annotations

import functools
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_core.jobs import GenerateJob, Img2ImgJob, InpaintJob
from lora_core.png_text import add_texts
from lora_core.settings import replace_by_name

from . import host, places
from .declare import Context, Options, Result
from .generate import GIVEN, LOCAL, SAVE, eighth, own_settings
from .pictures import first, image_of, kept_picture, matched_mask, pictures_of, read_picture
from .widgets import settings, values_of
from .work import Done, perform


def run(job: type, context: Context, values: dict[str, Any]) -> Result:
    values = {**values, **(values.get("options_soft") or Options()).values}
    chosen = values_of(settings(job, leave_out=GIVEN), values) | of_recipe(job, values.get("recipe"))
    folder = places.temp_folder() / uuid.uuid4().hex[:16]
    dirs = {f"{kind}_dirs": tuple(map(str, host.folders(listed))) for kind, listed in SEARCHED.items()}
    given = {**chosen, **drawn_on(job, values), **dirs, "output_dir": str(folder), "name": "picture"}
    made = replace(
        replace_by_name(job(), given), loras=(*recipe_loras(values.get("recipe")), *(values.get("loras") or ()))
    )
    root = host.output_folder() if values.get("save", SAVE) == SAVE else host.temp_folder()
    place = host.next_pictures(places.picture_name(values.get("name") or "LoRA Loom"), root)
    return kept(context, perform(context, made, made.prompt[:60]), root, place)


SEARCHED = {"lora": "loras", "embedding": "embeddings"}


def of_recipe(job: type, recipe: Any) -> dict[str, Any]:
    """The settings of this job that a recipe tells; files that are not here stay as the widgets say."""
    if recipe is None:
        return {}
    told: dict[str, Any] = {}
    shared = {s.name for s in (*own_settings(job), *settings(job, "soft"))} - {*LOCAL}
    for s in (s for s in settings(type(recipe.job)) if s.name in shared):
        value = functools.reduce(getattr, s.path, recipe.job)
        if s.name not in ("base", "vae") or (value and Path(value).exists()):
            told[s.name] = value
    return told


def recipe_loras(recipe: Any) -> tuple[Any, ...]:
    return tuple(use for use in recipe.job.loras if Path(use.path).exists()) if recipe is not None else ()


def drawn_on(job: type, values: dict[str, Any]) -> dict[str, Any]:
    """Picture, mask and size of a job that draws over a picture."""
    if not issubclass(job, Img2ImgJob):
        return {}
    picture = pictures_of(first(values["image"], "This node"))[0]
    told = of_recipe(job, values.get("recipe"))
    width, height = (told.get(n) or values[n] or side for n, side in zip(("width", "height"), picture.size))
    found: dict[str, Any] = {"image": kept_picture(picture), "width": eighth(width), "height": eighth(height)}
    if job is InpaintJob:
        found["mask"] = kept_picture(matched_mask(values["mask"], picture))
    return found


def kept(context: Context, done: Done, root: Path, place: tuple[Path, str, int]) -> Result:
    """The pictures as IMAGE, and as files with the host's metadata beside A1111's."""
    made = [Path(path) for path in done.finished.outputs]
    folder, name, number = place
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [read_picture(path) for path in made]
    shown = []
    for index, path in enumerate(made):
        target = folder / f"{name}_{number + index:05}_.png"
        add_texts(path, target, graph_texts(context))
        subfolder = "" if folder == root else folder.relative_to(root).as_posix()
        kind = "temp" if root == host.temp_folder() else "output"
        shown.append({"filename": target.name, "subfolder": subfolder, "type": kind})
    texts = [picture.info.get("parameters", "") for picture in pictures]
    return Result((image_of(pictures), "\n\n".join(texts)), {"images": shown, "lora_loom": [done.id]})


def graph_texts(context: Context) -> dict[str, str]:
    """What ComfyUI itself writes into pictures: the graph as queued and as drawn."""
    if not host.keeps_metadata():
        return {}
    found = {"prompt": context.prompt} if context.prompt is not None else {}
    found |= dict(context.page or {})
    return {key: places.as_json(value) for key, value in found.items()}


def generate(context: Context, values: dict[str, Any]) -> Result:
    return run(GenerateJob, context, values)


def img2img(context: Context, values: dict[str, Any]) -> Result:
    return run(Img2ImgJob, context, values)


def inpaint(context: Context, values: dict[str, Any]) -> Result:
    return run(InpaintJob, context, values)
