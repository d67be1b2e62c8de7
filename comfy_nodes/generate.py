"""Generate, Img2Img and Inpaint with our engine: the pictures that A1111 makes, IMAGE and MASK in and out."""

from __future__ import annotations

import functools
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_core.jobs import GenerateJob, Img2ImgJob, InpaintJob
from lora_core.png_text import add_texts
from lora_core.settings import groups, replace_by_name

from . import host, places
from .declare import COMBO, IMAGE, LORAS, MASK, PREFIX, STRING, Context, Node, Out, Port, Result
from .pictures import first, image_of, kept_picture, matched_mask, pictures_of, read_picture
from .widgets import port, ports, settings, values_of
from .work import Done, perform

SAVE, SHOW = "save to output", "only show"
GIVEN = ("name", "lora_dirs", "embedding_dirs", "image", "mask", "picture_format")
SOFT = "LORALOOM_OPTIONS_SOFT"


def own_settings(job: type) -> tuple[Any, ...]:
    left_out = {*GIVEN, *(s.name for s in settings(job, "soft"))}
    return settings(job, leave_out=left_out)


def inputs(job: type) -> tuple[Port, ...]:
    drawn_over = issubclass(job, Img2ImgJob)
    sockets = [Port("image", IMAGE, "Picture")] if drawn_over else []
    sockets += [Port("mask", MASK, "Mask", "White is repainted.")] if job is InpaintJob else []
    widgets = [sized(port(s), drawn_over) for s in own_settings(job)]
    more = [Port("loras", LORAS, "LoRAs", "From LoRA Stack; <lora:name:1> in the prompt works as well.", True)]
    more += [Port("options_soft", SOFT, "Soft inpainting", "From Soft Inpaint.", True)] if job is InpaintJob else []
    kept = {"options": [SAVE, SHOW], "default": SAVE}
    return (
        *sockets,
        *widgets,
        Port("save", COMBO, "Pictures", "Saved ones carry A1111's parameters and the graph.", options=kept),
        Port("name", STRING, "File name", "Subfolders as in Save Image.", options={"default": "LoRA Loom"}),
        *more,
    )


def sized(widget: Port, drawn_over: bool) -> Port:
    """Width and height of a job that draws over a picture may be 0: the picture's own."""
    if not drawn_over or widget.name not in ("width", "height"):
        return widget
    return replace(widget, help="0: the picture's own.", options={**widget.options, "default": 0, "min": 0})


def run(job: type, context: Context, values: dict[str, Any]) -> Result:
    values = {**values, **(values.get("options_soft") or {})}
    chosen = values_of(settings(job, leave_out=GIVEN), values)
    folder = places.temp_folder() / uuid.uuid4().hex[:16]
    dirs = {f"{kind}_dirs": tuple(map(str, host.folders(listed))) for kind, listed in SEARCHED.items()}
    given = {**chosen, **drawn_on(job, values), **dirs, "output_dir": str(folder), "name": "picture"}
    made = replace(replace_by_name(job(), given), loras=tuple(values.get("loras") or ()))
    done = perform(context, made, made.prompt[:60])
    return kept(context, done, values)


SEARCHED = {"lora": "loras", "embedding": "embeddings"}


def drawn_on(job: type, values: dict[str, Any]) -> dict[str, Any]:
    """Picture, mask and size of a job that draws over a picture."""
    if not issubclass(job, Img2ImgJob):
        return {}
    picture = pictures_of(first(values["image"], "This node"))[0]
    width, height = (values[name] or size for name, size in zip(("width", "height"), picture.size))
    found: dict[str, Any] = {"image": kept_picture(picture), "width": eighth(width), "height": eighth(height)}
    if job is InpaintJob:
        found["mask"] = kept_picture(matched_mask(values["mask"], picture))
    return found


def eighth(side: int) -> int:
    """Sides are multiples of 8."""
    return max(64, round(side / 8) * 8)


def kept(context: Context, done: Done, values: dict[str, Any]) -> Result:
    """The pictures as IMAGE, and as files with the host's metadata beside A1111's."""
    made = [Path(path) for path in done.finished.outputs]
    saves = values.get("save", SAVE) == SAVE
    root = host.output_folder() if saves else host.temp_folder()
    folder, name, number = host.next_pictures(values.get("name") or "LoRA Loom", root)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [read_picture(path) for path in made]
    shown = []
    for index, path in enumerate(made):
        target = folder / f"{name}_{number + index:05}_.png"
        add_texts(path, target, graph_texts(context))
        place = "" if folder == root else folder.relative_to(root).as_posix()
        shown.append({"filename": target.name, "subfolder": place, "type": "output" if saves else "temp"})
    texts = [picture.info.get("parameters", "") for picture in pictures]
    return Result((image_of(pictures), "\n\n".join(texts)), {"images": shown, "lora_loom": [done.id]})


def graph_texts(context: Context) -> dict[str, str]:
    """What ComfyUI itself writes into pictures: the graph as queued and as drawn."""
    if not host.keeps_metadata():
        return {}
    found = {"prompt": context.prompt} if context.prompt is not None else {}
    found |= dict(context.page or {})
    return {key: places.as_json(value) for key, value in found.items()}


def soft_inputs() -> tuple[Port, ...]:
    return tuple(
        replace(p, options={**p.options, "advanced": False})
        for p in ports(s for s in settings(InpaintJob, "soft") if s.name != "soft_inpainting")
    )


def run_soft(context: Context, values: dict[str, Any]) -> Result:
    return Result(({**values_of(settings(InpaintJob, "soft"), values), "soft_inpainting": True},))


def node(job: type, id: str, title: str, help: str) -> Node:
    outputs = (Out(IMAGE, "images"), Out(STRING, "parameters", "A1111's text of each picture."))
    asked, done = functools.partial(inputs, job), functools.partial(run, job)
    return Node(f"{PREFIX}{id}", title, help, asked, outputs, done, shows=True, group="Pictures")


NODES = (
    node(
        GenerateJob,
        "Generate",
        "Generate (A1111-compatible)",
        "txt2img as A1111 does it: the same seed gives the same picture. Or as ComfyUI does it.",
    ),
    node(Img2ImgJob, "Img2Img", "Img2Img (A1111-compatible)", "Draws over a picture as A1111 does it."),
    node(
        InpaintJob,
        "Inpaint",
        "Inpaint (A1111-compatible)",
        "Repaints what the mask covers, with A1111's fills, areas and blur. Pixels outside the mask stay as they are.",
    ),
    Node(
        f"{PREFIX}SoftInpaint",
        "Soft Inpaint",
        f"{groups(InpaintJob)['soft'].help or 'A1111 soft inpainting'}: connected to Inpaint, grey mask values blend.",
        soft_inputs,
        (Out(SOFT, "soft"),),
        run_soft,
        group="Pictures",
    ),
)
