"""Generate, Img2Img and Inpaint with our engine: the pictures that A1111 makes, IMAGE and MASK in and out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lora_core.jobs import GenerateJob, Img2ImgJob, InpaintJob
from lora_core.settings import groups

from .declare import COMBO, IMAGE, LORAS, MASK, PREFIX, RECIPE, STRING, Context, Node, Options, Out, Port, Result
from .widgets import port, ports, settings, values_of

SAVE, SHOW = "save to output", "only show"
GIVEN = ("name", "lora_dirs", "embedding_dirs", "image", "mask", "picture_format", "save_text")
LOCAL = ("device", "dtype", "low_memory", "preview_every_steps")
SOFT = "LORALOOM_OPTIONS_SOFT"


def own_settings(job: type) -> tuple[Any, ...]:
    groups_elsewhere = ("soft", "hires") if issubclass(job, Img2ImgJob) else ()
    left_out = {*GIVEN, *(s.name for group in groups_elsewhere for s in settings(job, group))}
    return settings(job, leave_out=left_out)


def inputs(job: type) -> tuple[Port, ...]:
    drawn_over = issubclass(job, Img2ImgJob)
    sockets = [Port("image", IMAGE, "Picture")] if drawn_over else []
    sockets += [Port("mask", MASK, "Mask", "White is repainted.")] if job is InpaintJob else []
    widgets = [sized(port(s), drawn_over) for s in own_settings(job)]
    more = [Port("loras", LORAS, "LoRAs", "From LoRA Stack; <lora:name:1> in the prompt works as well.", True)]
    more += [Port("recipe", RECIPE, "Recipe", "From Recipe from Picture: replaces the widgets that it tells.", True)]
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


def eighth(side: int) -> int:
    """Sides are multiples of 8."""
    return max(64, round(side / 8) * 8)


def soft_inputs() -> tuple[Port, ...]:
    return tuple(
        replace(p, options={**p.options, "advanced": False})
        for p in ports(s for s in settings(InpaintJob, "soft") if s.name != "soft_inpainting")
    )


def run_soft(context: Context, values: dict[str, Any]) -> Result:
    chosen = values_of(settings(InpaintJob, "soft"), values)
    return Result((Options({**chosen, "soft_inpainting": True}),))


def node(job: type, id: str, title: str, help: str) -> Node:
    outputs = (Out(IMAGE, "images"), Out(STRING, "parameters", "A1111's text of each picture."))
    return Node(
        f"{PREFIX}{id}", title, help, inputs(job), outputs, f"run_generate:{id.lower()}", shows=True, group="Pictures"
    )


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
        soft_inputs(),
        (Out(SOFT, "soft"),),
        run_soft,
        group="Pictures",
    ),
)
