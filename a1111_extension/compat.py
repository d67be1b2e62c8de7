"""gradio 3.41 (AUTOMATIC1111) and 4.40 (Forge): the only module that knows how they differ."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

FOUR = int(gr.__version__.partition(".")[0]) >= 4
Painting = tuple[Image.Image | None, Image.Image | None]  # picture and mask
QUIET = {"api_name": False, "show_progress": "hidden"}
MAX_PICTURE_BYTES = 256 << 20
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "gif": ".gif"}


def on(trigger: Callable[..., Any], function: Any, inputs: Any = None, outputs: Any = None, js: str = "") -> Any:
    """Bind a handler to an event such as `button.click`. `js` runs in the page first and may change the inputs."""
    script = {"js" if FOUR else "_js": js} if js else {}
    return trigger(function, inputs=inputs, outputs=outputs, **QUIET, **script)


def button(text: str, **options: Any) -> gr.Button:
    return gr.Button(text, **options)


@dataclass(frozen=True)
class Editor:
    """A picture that can be painted on, whatever it is made of.

    `target` takes a picture from elsewhere; `components` are what a handler has to be given.
    """

    target: Any
    components: tuple[Any, ...]

    def painted(self, data: Mapping[Any, Any]) -> Painting:
        values = [data[component] for component in self.components]
        return painted(values[0]) if len(values) == 1 else (values[0], opaque(values[1]))

    def show(self, picture: Image.Image) -> dict[Any, Any]:
        """Updates that show a picture with nothing painted on it."""
        if len(self.components) > 1:
            return {self.target: picture, self.components[1]: None}
        whole = {"background": picture, "layers": [], "composite": picture}
        return {self.target: whole if FOUR else picture}


def mask_editor(label: str, elem_id: str) -> Editor:
    """3.41's sketch tool, 4.40's image editor."""
    if FOUR:
        made: Any = gr.ImageEditor(
            label=label,
            elem_id=elem_id,
            type="pil",
            sources=["upload", "clipboard"],
            brush=gr.Brush(colors=["#ffffff"], color_mode="fixed"),
            transforms=(),
        )
    else:
        made = gr.Image(
            label=label, elem_id=elem_id, source="upload", tool="sketch", type="pil", height=480, image_mode="RGBA"
        )
    return Editor(made, (made,))


def painted(value: Any) -> Painting:
    """Picture and mask of what an editor gives; the mask is grey, white where it was painted on."""
    if value is None:
        return None, None
    if isinstance(value, Image.Image):
        return value, None
    if "layers" in value:
        return value["background"], _layers(value["layers"])
    mask = value["mask"].convert("L")
    return value["image"], mask if mask.getbbox() else None


def opaque(layer: Image.Image | None) -> Image.Image | None:
    """A layer's opacity as a mask; None where nothing was painted."""
    return None if layer is None else _layers([layer])


def _layers(layers: list[Image.Image]) -> Image.Image | None:
    """What was painted on any layer: its opacity."""
    mask = None
    for layer in layers:
        alpha = layer.getchannel("A") if layer.mode == "RGBA" else layer.convert("L")
        mask = alpha if mask is None else Image.composite(Image.new("L", mask.size, 255), mask, alpha)
    return mask if mask is not None and mask.getbbox() else None


def sent_picture(url: str) -> tuple[bytes, str]:
    """The bytes of a data URL, and a file name for them. Raises gradio's Error, which the page shows."""
    kind, _, body = url.partition(",")
    if len(body) > MAX_PICTURE_BYTES * 4 // 3 + 4:
        raise gr.Error(f"The picture is too large: at most {MAX_PICTURE_BYTES >> 20} MB.")
    try:
        data = base64.b64decode(body)
    except ValueError:
        raise gr.Error("The picture did not arrive whole: drop it again.") from None
    name = kind.partition("image/")[2].partition(";")[0]
    return data, f"picture{SUFFIXES.get(name, '.bin')}"


def picture(label: str, elem_id: str, **options: Any) -> gr.Image:
    """A picture to drop or to look at, handed over as the file that it is.

    gradio would draw it anew: A1111's metadata in JPEG and WebP are lost then, and Forge's way of saving fails.
    """
    how: dict[str, Any] = {"sources": ["upload", "clipboard"]} if FOUR else {"source": "upload"}
    made = gr.Image(label=label, elem_id=elem_id, type="filepath", **how, **options)

    def as_sent(x: Any) -> str | None:
        if not x:
            return None
        return str(x.path) if FOUR else os.path.abspath(made.file_bytes_to_file(*sent_picture(x)))

    made.preprocess = as_sent
    return made


def uploaded(files: Any) -> list[str]:
    """The paths of uploaded files, whatever wraps them."""
    several = files if isinstance(files, list) else [files] if files else []
    return [getattr(file, "name", file) for file in several]
