"""The page "Inpaint": paint on a picture, A1111's own options under A1111's own names, our engine behind them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import ImageChops

from lora_core import host_names
from lora_core.errors import ConfigError, FileError
from lora_core.infotext_fields import has_hires, tagged_prompt
from lora_core.jobs import InpaintJob
from lora_core.jobs.generate import GenerateJob
from lora_core.picture_read import read_picture
from lora_core.picture_text import read_picture_text
from lora_core.settings import describe, leaf_values

from . import compat
from .from_img2img import held_picture, held_settings
from .page import Bridge, Data, Handlers, Page, heading
from .recipe_files import job_told

TAB = "lora_loom_inpaint"
HIRES = tuple(s.name for s in describe(InpaintJob) if s.group == "hires")  # for pictures from nothing alone
HIDDEN = ("image", "mask", "output_dir", "lora_dirs", "embedding_dirs", "name", *HIRES)
SMALL = {"size": "sm", "min_width": 110}
SENT = (("img2img", "Send to img2img"), ("inpaint", "Send to inpaint"), ("extras", "Send to extras"))
TAKEN = (("extras", "Take from Extras"), ("pnginfo", "Take from PNG Info"))


def names(table: Mapping[str, Any]) -> dict[str, str]:
    """A1111's names of samplers or schedules by our tokens."""
    return {token: entry.a1111 for token, entry in table.items()}


class InpaintTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.host = page, page.host
        self.form = page.form(InpaintJob, "inpaint")
        with gr.Row(elem_classes="loom-row"):
            with gr.Column(scale=6):
                self.form.place("prompt", lines=3, placeholder="Prompt", show_label=False, info=None)
                self.form.place("negative_prompt", lines=2, placeholder="Negative prompt", show_label=False)
            with gr.Column(scale=2, min_width=200):
                self.start = gr.Button(
                    "Generate", variant="primary", elem_id=f"{TAB}_generate", elem_classes="loom-big"
                )
                self.lora = self.page.lora_list("Add a LoRA to the prompt", elem_id=f"{TAB}_lora")
        self.said = Handlers.make()
        with gr.Row(elem_classes="loom-columns"):
            with gr.Column(scale=6, elem_classes="loom-left"):
                self.picture()
                self.mask_options()
                self.sampling()
                self.form.rest(leave=HIDDEN)
            with gr.Column(scale=5, elem_classes="loom-right"):
                self.results()
        self.done = Bridge.make("loom_inpaint_pick")
        self.wire()
        page.shared["inpaint"] = self

    def picture(self) -> None:
        self.held, self.beside = self.host.img2img(), self.host.elsewhere()
        label, elem_id = "Picture: paint what is to be made anew", f"{TAB}_editor"
        self.editor = self.host.mask_editor(elem_id) or compat.mask_editor(label, elem_id)
        with gr.Row(elem_classes="loom-row"):
            self.take = gr.Button("Take from img2img", elem_id=f"{TAB}_take", visible=bool(self.held), **SMALL)
            self.takes = {
                page: gr.Button(text, elem_id=f"{TAB}_take_{page}", visible=f"{page} picture" in self.beside, **SMALL)
                for page, text in TAKEN
            }
        self.taking = Bridge.make("loom_inpaint_take")
        with gr.Accordion("Mask from a picture", open=False, elem_classes="loom-group") as self.mask_fold:
            self.mask = compat.picture("White is made anew, besides what is painted", f"{TAB}_mask", height=240)

    def mask_options(self) -> None:
        place = self.form.place
        place("resize_mode", kind="radio", labels=host_names.RESIZE_MODE)
        with gr.Row(elem_classes="loom-row"):
            place("mask_blur", kind="slider", minimum=0, maximum=64, step=1, value=4)
            place("mask_invert", kind="radio", label="Mask mode", info=None, labels=host_names.MASK_MODE)
        with gr.Row(elem_classes="loom-row"):
            place("masked_content", kind="radio", labels=host_names.MASKED_CONTENT)
            place("inpaint_area", kind="radio", labels=host_names.INPAINT_AREA)
        place("only_masked_padding", label="Only masked padding, pixels", info=None, minimum=0, maximum=256, step=4)

    def sampling(self) -> None:
        place = self.form.place
        place("base", value=self.page.title_of(self.host.current_checkpoint()) or None, info=None)
        with gr.Row(elem_classes="loom-row"):
            place("sampler", label="Sampling method", labels=names(host_names.SAMPLER))
            place("scheduler", labels=names(host_names.SCHEDULE), kind="dropdown")
            place("steps", label="Sampling steps", minimum=1, maximum=150)
        with gr.Row(elem_classes="loom-row"):
            place("width", minimum=64, maximum=2048, step=8)
            place("height", minimum=64, maximum=2048, step=8)
        with gr.Row(elem_classes="loom-row"):
            place("cfg_scale", kind="slider", label="CFG Scale", minimum=1, maximum=30, step=0.5)
            place("denoising_strength")
        with gr.Row(elem_classes="loom-row"):
            place("batch_count", kind="slider", minimum=1, maximum=100, step=1, info=None)
            place("batch_size", kind="slider", minimum=1, maximum=8, step=1, info=None)
            place("seed", info="-1: another each time", value="-1")

    def results(self) -> None:
        heading("Result")
        self.page.panel(("inpaint",), "Nothing drawn yet.", pick="loom_inpaint_pick", reuse="loom_inpaint_reuse")
        self.result = gr.Image(
            label="Chosen result", type="pil", interactive=False, elem_id=f"{TAB}_result", height=420
        )
        self.infotext = gr.Textbox(label="Parameters", lines=4, interactive=False, elem_id=f"{TAB}_infotext")
        with gr.Row(elem_classes="loom-row"):
            self.sends = {tab: gr.Button(text, elem_id=f"{TAB}_to_{tab}", **SMALL) for tab, text in SENT}
            self.onward = gr.Button("Paint on it", elem_id=f"{TAB}_onward", **SMALL)
        self.reuse = Bridge.make("loom_inpaint_reuse")

    def wire(self) -> None:
        form, said = self.form, self.said
        prompt = form.components["prompt"]
        said.bind(self.start.click, self.started, {*form.inputs, *self.editor.components, self.mask}, ())
        said.bind(self.done.go.click, self.picked, {self.done.text}, [self.result, self.infotext])
        said.bind(self.onward.click, self.painted_on, {self.result}, self.editor.components)
        said.bind(self.lora.input, self.lora_added, {prompt, self.lora}, [prompt, self.lora])
        said.bind(self.reuse.go.click, self.reused, {self.reuse.text}, form.outputs)
        for tab, button in self.sends.items():
            self.host.send_button(button, tab, image=self.result, text=self.infotext)
        self.host.paste_target(TAB, self.editor.target, self.paste_fields())
        look = "() => { window.loraLoom.tell('loom_inpaint_take', window.loraLoom.img2imgPage()); }"
        compat.on(self.take.click, None, js=look)
        shown = [*form.outputs, *self.editor.components, self.mask, self.mask_fold]
        said.bind(self.taking.go.click, self.taken, {self.taking.text, *self.held.values()}, shown)
        for name, button in self.takes.items():
            said.bind(button.click, partial(self.taken_from, name), self.parts_of(name).values(), shown)

    def paste_fields(self) -> list[Any]:
        """Our widgets by the keys of an infotext."""
        form = self.form
        simple = {
            "prompt": "Prompt", "negative_prompt": "Negative prompt", "steps": "Steps", "cfg_scale": "CFG scale",
            "seed": "Seed", "width": "Size-1", "height": "Size-2", "denoising_strength": "Denoising strength",
            "mask_blur": "Mask blur", "clip_skip": "Clip skip", "only_masked_padding": "Masked area padding",
            "mask_invert": "Mask mode", "masked_content": "Masked content", "inpaint_area": "Inpaint area",
        }  # fmt: skip
        fields: list[Any] = [(form.components[name], key) for name, key in simple.items() if name in form.components]
        return fields + [(form.components[name], partial(_pasted, name)) for name in ("sampler", "scheduler")]

    # what the buttons do

    def started(self, data: Data) -> dict[Any, Any]:
        picture, mask = self.editor.painted(data)
        if picture is None:
            raise ConfigError("There is no picture: drop one, and paint on what is to be made anew.")
        mask = joined(mask, data[self.mask], picture)
        if mask is None and not is_transparent(picture):
            raise ConfigError("Nothing is painted on: paint on what is to be made anew.")
        values = self.form.values(data)
        if values["seed"] < 0:
            values["seed"] = time.time_ns() % 2**32
        folder = self.host.data_folder() / "inpaint" / time.strftime("%Y%m%d-%H%M%S")
        job = self.job(values, kept(folder, picture, mask))
        self.page.submit(job, values["prompt"][:60] or "inpaint")
        return {}

    def job(self, values: dict[str, Any], files: dict[str, str]) -> InpaintJob:
        from lora_core.settings import replace_by_name

        places = {
            "output_dir": str(self.host.picture_folder()),
            "lora_dirs": tuple(map(str, self.host.lora_folders())),
            "embedding_dirs": tuple(map(str, self.host.embedding_folders())),
        }
        return replace_by_name(InpaintJob(), {**values, **places, **files})

    def picked(self, data: Data) -> dict[Any, Any]:
        """Show the file N of a job: "ID N"."""
        id, _, number = str(data[self.done.text]).partition(" ")
        files = self.host.desk.files(id)
        try:
            path = files[int(number)]
        except (ValueError, IndexError):
            raise FileError("This picture is not there any more.") from None
        return {self.result: read_picture(path), self.infotext: parameters_of(path)}

    def painted_on(self, data: Data) -> dict[Any, Any]:
        if data[self.result] is None:
            raise ConfigError("There is no result yet.")
        return self.editor.show(data[self.result])

    def taken(self, data: Data) -> dict[Any, Any]:
        """Picture, mask and settings of the host's img2img; which of its pages is open decides for a picture."""
        held = {name: data[component] for name, component in self.held.items()}
        picture, mask = held_picture(held, str(data[self.taking.text]) == "inpaint")
        if picture is None:
            raise ConfigError("There is no picture in img2img, neither on its first page nor on Inpaint.")
        found = {**self.form.shown(held_settings(held, self.form.settings)), **self.editor.show(picture)}
        return {**found, self.mask: mask, self.mask_fold: gr.update(open=mask is not None)}

    def parts_of(self, page: str) -> dict[str, Any]:
        """The widgets of another page of the host: "results", "picture", "text"."""
        return {name.removeprefix(f"{page} "): part for name, part in self.beside.items() if name.startswith(page)}

    def taken_from(self, page: str, data: Data) -> dict[Any, Any]:
        """The result of Extras, or the picture that lies there; the picture of PNG Info with what it tells."""
        held = {name: data[component] for name, component in self.parts_of(page).items()}
        picture = self.host.picture_in(held.get("results")) or held.get("picture")
        if picture is None:
            raise ConfigError(f"There is no picture in {dict(TAKEN)[page].removeprefix('Take from ')}.")
        job = job_told(held.get("text") or "", self.host)
        found = self.carried(job, picture) if job else self.editor.show(picture)
        return {**found, self.mask: None, self.mask_fold: gr.update(open=False)}

    def lora_added(self, data: Data) -> dict[Any, Any]:
        prompt, title = self.form.components["prompt"], data[self.lora]
        if not title:
            return {}
        tag = f"<lora:{Path(str(title)).name}:1>"
        return {prompt: f"{data[prompt] or ''} {tag}".strip(), self.lora: gr.update(value=None)}

    def reused(self, data: Data) -> dict[Any, Any]:
        return self.shown(self.host.desk.job(str(data[self.reuse.text])))

    def shown(self, job: GenerateJob) -> dict[Any, Any]:
        """The settings of any job that makes pictures, as far as this page has them; its LoRAs as tags."""
        known = {s.name for s in describe(InpaintJob)}
        values = {name: value for name, value in leaf_values(job).items() if name in known}
        if not values.get("base"):
            values.pop("base", None)
        if job.loras:
            values["prompt"] = tagged_prompt(job)
        return self.form.shown(values, self.page.title_of)

    def carried(self, job: GenerateJob, picture: Any) -> dict[Any, Any]:
        """A picture with the settings of its job. After a second pass its own size counts."""
        found = self.shown(job)
        if picture is not None and has_hires(job):
            found |= self.form.shown({"width": picture.width // 8 * 8, "height": picture.height // 8 * 8})
        return found | (self.editor.show(picture) if picture is not None else {})


def joined(painted: Any, path: str | None, picture: Any) -> Any:
    """What was painted and what is white in a mask's file, together. Raises ConfigError where the sizes differ."""
    if not path:
        return painted
    given = read_picture(path).convert("L")
    if given.size != picture.size:
        told = "the mask has {} x {} pixels, the picture {} x {}.".format(*given.size, *picture.size)
        raise ConfigError(f"Mask and picture differ: {told}")
    return given if painted is None else ImageChops.lighter(given, painted)


def is_transparent(picture: Any) -> bool:
    """Whether the picture's own transparency can be the mask."""
    return "A" in picture.getbands() and picture.getchannel("A").getextrema()[0] < 255


def kept(folder: Path, picture: Any, mask: Any) -> dict[str, str]:
    """Picture and mask as files; without a mask the picture's transparency is it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / "picture.png")
        if mask is None:
            return {"image": str(folder / "picture.png"), "mask": ""}
        mask.save(folder / "mask.png")
    except OSError as error:
        raise FileError(f"The picture cannot be kept in {folder}: {error.strerror or error}.") from error
    return {"image": str(folder / "picture.png"), "mask": str(folder / "mask.png")}


def parameters_of(path: str) -> str:
    try:
        return read_picture_text(Path(path)).texts.get("parameters", "")
    except FileError:
        return ""


def _pasted(name: str, found: Mapping[str, Any]) -> str | None:
    """Our label for an infotext's sampler or schedule, which may be in one name; None leaves the widget as it is."""
    sampler, schedule = host_names.combined_tokens(str(found.get("Sampler", "")))
    if name == "sampler":
        return names(host_names.SAMPLER).get(sampler or "")
    token = schedule or host_names.schedule_token(str(found.get("Schedule type", "")))
    return names(host_names.SCHEDULE).get(token or "")
