"""The pages of AUTOMATIC1111 and Forge: callbacks, settings, "send to", img2img, the component that is painted on."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .host import data_folder, first_of, flag, is_forge, the
from .host_api import Option

if TYPE_CHECKING:
    from .compat import Editor

LOGGER = logging.getLogger("lora_loom")
ROOT = Path(__file__).resolve().parents[1]
PREFIX = "lora_loom_"
SECTION = ("lora_loom", "LoRA Loom")


def on(event: str, callback: Callable[..., Any]) -> None:
    """Register for `script_callbacks.on_EVENT` where the version has it.

    Later versions take the file's name. Otherwise all versions search the whole call stack for it, which takes a while.
    """
    callbacks = the("script_callbacks")
    listed = getattr(callbacks, "callback_map", {}).get(f"callbacks_{event}")
    if listed is None:
        getattr(callbacks, f"on_{event}", unheard)(callback)
        return
    try:
        callbacks.add_callback(listed, callback, name=None, category=event, filename=__file__)
    except TypeError:
        listed.append(callbacks.ScriptCallback(__file__, callback))


def unheard(callback: Any) -> None:
    """For events that a version does not have."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While a page of a thousand widgets is made: the garbage collector, which new objects wake, would go through the
    host's whole memory each time (half of the page's time in Forge)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def script_class(picture_begins: Callable[[Any], None]) -> type:
    """An invisible script that is told before the host makes a picture; the host finds it in scripts/lora_loom.py."""
    scripts = the("scripts")

    class LoraLoomScript(scripts.Script):  # type: ignore[name-defined,misc]
        def title(self) -> str:
            return "LoRA Loom"

        def show(self, is_img2img: bool) -> Any:
            return scripts.AlwaysVisible

        def ui(self, is_img2img: bool) -> None:
            return None

        def before_process(self, p: Any, *_: Any) -> None:
            picture_begins(p)

    return LoraLoomScript


def option(option_name: str, default: Any) -> Any:
    return getattr(the("shared").opts, PREFIX + option_name, default)


def add_option(wanted: Option) -> None:
    """One row of our settings page. Paths may not be set through the host's API."""
    shared = the("shared")
    arguments: dict[str, Any] = {}
    component = None
    if wanted.choices:
        component = importlib.import_module("gradio").Radio
        arguments = {"choices": list(wanted.choices)}
    info = shared.OptionInfo(wanted.default, wanted.label, component, arguments, section=SECTION)
    info.restrict_api = "folder" in wanted.name
    shared.opts.add_option(PREFIX + wanted.name, info.info(wanted.help) if wanted.help else info)


def paste_target(tab: str, image: Any, fields: Sequence[Any]) -> None:
    first_of("infotext_utils", "generation_parameters_copypaste").add_paste_fields(tab, image, list(fields))


def send_button(button: Any, tab: str, image: Any, text: Any) -> None:
    paste = first_of("infotext_utils", "generation_parameters_copypaste")
    binding = paste.ParamBinding(button, tab, source_text_component=text, source_image_component=image)
    paste.register_paste_params_button(binding)


def share_languages() -> None:
    """A1111 before 1.7 takes one file per language, the last one listed: what it would take without us, with our texts.

    Called after it has listed them and before it makes the page.
    """
    try:
        known = the("localization").localizations
        for ours in sorted((ROOT / "localizations").glob("*.json")):
            if isinstance(known.get(ours.stem), str):
                known[ours.stem] = str(with_our_texts(ours))
    except (OSError, ModuleNotFoundError) as error:
        LOGGER.warning("Translations could not be put together: %s", error)


def with_our_texts(ours: Path) -> Path:
    """A file with what the host and its other extensions translate, and our texts where they have none."""
    named = [Path(flag("localizations_dir") or ROOT / "nowhere") / ours.name]
    named += [Path(file.path) for file in the("scripts").list_scripts("localizations", ".json")]
    theirs = [path for path in named if path.name == ours.name and path.is_file() and not path.samefile(ours)]
    if not theirs:
        return ours
    try:
        table = {**json.loads(ours.read_text("utf-8")), **json.loads(theirs[-1].read_text("utf-8"))}
    except (ValueError, TypeError):
        return theirs[-1]  # the host says what is wrong with it
    merged = data_folder() / "localizations" / ours.name
    merged.parent.mkdir(parents=True, exist_ok=True)
    merged.write_text(json.dumps(table, ensure_ascii=False), "utf-8")
    return merged


# img2img, and the component that is painted on


IMG2IMG = {
    "img2img_prompt": "prompt",
    "img2img_neg_prompt": "negative_prompt",
    "img2img_sampling": "sampler",
    "img2img_scheduler": "scheduler",
    "img2img_steps": "steps",
    "img2img_width": "width",
    "img2img_height": "height",
    "img2img_cfg_scale": "cfg_scale",
    "img2img_denoising_strength": "denoising_strength",
    "img2img_seed": "seed",
    "img2img_mask_blur": "mask_blur",
    "img2img_mask_mode": "mask_invert",
    "img2img_inpainting_fill": "masked_content",
    "img2img_inpaint_full_res": "inpaint_area",
    "img2img_inpaint_full_res_padding": "only_masked_padding",
    "resize_mode": "resize_mode",
    "img2img_image": "picture",
    "img2maskimg": "painted",
}
ELSEWHERE = {
    "extras_gallery": "extras results",
    "extras_image": "extras picture",
    "pnginfo_image": "pnginfo picture",
    "pnginfo_generation_info": "pnginfo text",
}


def picture_in(gallery: Any) -> Any:
    """The first picture of a gallery's value; which files that may name is for the host to say."""
    first = gallery[0] if gallery else None
    first = first[0] if isinstance(first, (list, tuple)) else first
    if first is None or hasattr(first, "getbands"):
        return first
    return first_of("infotext_utils", "generation_parameters_copypaste").image_from_url_text(first)


def img2img_parts(made: Mapping[str, Any]) -> dict[str, Any]:
    """The widgets that were made, with Forge's canvases as the fields that hold their pictures."""
    found = dict(made)
    for part in ("picture", "painted"):
        below = canvas_fields(found[part]) if part in found and is_forge() else {}
        if below:
            found[part] = below["background"]
            found[f"{part} mask"] = below["foreground"]
    found.pop("picture mask", None)
    return found


def canvas_fields(canvas: Any) -> dict[str, Any]:
    """Forge's canvas is HTML with two fields after it, {"foreground": ..., "background": ...}; gradio wraps a form
    around them."""
    beside = canvas.parent.children if canvas.parent else []
    at = next((i for i, block in enumerate(beside) if block is canvas), len(beside))
    fields = [field for block in beside[at + 1 : at + 3] for field in (getattr(block, "children", None) or [block])]
    return {field.label: field for field in fields[:2] if getattr(field, "label", "")}


def mask_editor(elem_id: str) -> Editor | None:
    """Forge's canvas, as its own Inpaint page has it; A1111 has gradio's component."""
    if not is_forge():
        return None
    from .compat import Editor

    opts = the("shared").opts
    canvas = importlib.import_module("modules_forge.forge_canvas.canvas").ForgeCanvas(
        elem_id=elem_id,
        height=512,
        contrast_scribbles=opts.img2img_inpaint_mask_high_contrast,
        scribble_color=opts.img2img_inpaint_mask_brush_color,
        scribble_alpha=opts.img2img_inpaint_mask_scribble_alpha,
        **{f"scribble_{part}_fixed": True for part in ("color", "alpha", "softness")},
    )
    return Editor(canvas.background, (canvas.background, canvas.foreground))
