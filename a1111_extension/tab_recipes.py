"""The page "Recipes": drop a picture of either host, see how it was made, draw it again."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lora_core import host_names
from lora_core.errors import ConfigError
from lora_core.infotext_fields import Drawn, before_1_9, parameters, tagged_prompt
from lora_core.jobs.generate import GenerateJob
from lora_core.lora_tags import without_lora_tags
from lora_core.picture_text import read_picture_text
from lora_core.recipes import Recipe, recipe_of
from lora_core.run import RUNNERS
from lora_core.settings import describe, from_json, leaf_values, to_json

from . import compat
from .page import Data, Handlers, Page, good, heading, open_tab
from .recipe_files import with_files

KINDS = ("generate", "img2img", "inpaint")
TITLES = {"generate": "txt2img", "img2img": "img2img", "inpaint": "inpaint"}
TOLD = (
    "base",
    "sampler",
    "scheduler",
    "steps",
    "cfg_scale",
    "seed",
    "width",
    "height",
    "clip_skip",
    "denoising_strength",
)


class RecipesTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.host = page, page.host
        with gr.Row(elem_classes="loom-columns"):
            with gr.Column(scale=5, elem_classes="loom-left"):
                heading("A picture", "of AUTOMATIC1111, Forge, ComfyUI or LoRA Loom, with its metadata")
                self.picture = compat.picture("Drop a picture", "lora_loom_recipe_picture", height=340)
                self.said = Handlers.make()
                self.told = gr.HTML("")
                self.recipe = gr.State("")
            with gr.Column(scale=6, elem_classes="loom-right"):
                heading("Do something with it")
                with gr.Row(elem_classes="loom-row"):
                    self.run = gr.Button("Draw it again", variant="primary", elem_id="lora_loom_recipe_run")
                    self.to_host = gr.Button("Send to txt2img", elem_id="lora_loom_recipe_txt2img")
                    self.to_inpaint = gr.Button("Send to our Inpaint", elem_id="lora_loom_recipe_inpaint")
                    self.to_train = gr.Button("Prompt to Train's previews", elem_id="lora_loom_recipe_train")
                self.text = gr.Textbox(label="Parameters", lines=6, elem_id="lora_loom_recipe_text")
                page.panel(("generate", "img2img"), "Pictures drawn from a recipe will be shown here.")
        self.wire()

    def wire(self) -> None:
        said, inpaint, train = self.said, self.page.shared["inpaint"], self.page.shared["train"]
        said.bind(self.picture.change, self.dropped, {self.picture}, [self.told, self.text, self.recipe])
        said.bind(self.run.click, self.drawn, {self.recipe}, ())
        self.host.send_button(self.to_host, "txt2img", text=self.text)
        outputs = [*inpaint.form.outputs, *inpaint.editor.components]
        said.bind(self.to_inpaint.click, self.to_our_inpaint, {self.recipe, self.picture}, outputs)
        open_tab(self.to_inpaint.click, "inpaint")
        previews = train.form.components["preview_prompts"]
        said.bind(self.to_train.click, self.as_preview, {self.recipe, previews}, [previews])
        open_tab(self.to_train.click, "train")

    def dropped(self, data: Data) -> dict[Any, Any]:
        path = data[self.picture]
        if not path:
            return {self.told: "", self.text: "", self.recipe: ""}
        recipe = with_files(recipe_of(path), self.host)
        stored = {"kind": recipe.kind, "job": to_json(recipe.job)}
        text = read_picture_text(path).texts.get("parameters") or parameters(recipe.job, drawn_by(recipe.job))
        told = recipe_html(recipe, self.page)
        return {self.told: told, self.text: self.understood(text), self.recipe: stored}

    def understood(self, text: str) -> str:
        """Parameters as this version of the host reads them: without a list of schedules they are in the sampler."""
        held = self.host.img2img()
        return before_1_9(text) if held and "scheduler" not in held else text

    def job(self, data: Data) -> GenerateJob:
        stored = data[self.recipe]
        if not stored:
            raise ConfigError("There is no recipe: drop a picture first.")
        return from_json(RUNNERS[stored["kind"]].job, stored["job"])

    def drawn(self, data: Data) -> dict[Any, Any]:
        job = self.job(data)
        places = {
            "output_dir": str(self.host.picture_folder()),
            "base": job.base or self.host.current_checkpoint(),
            "lora_dirs": (*job.lora_dirs, *map(str, self.host.lora_folders())),
            "embedding_dirs": (*job.embedding_dirs, *map(str, self.host.embedding_folders())),
        }
        self.page.submit(replace(job, **places), job.prompt[:60] or "recipe")
        return {self.said.said: good("It is in the queue.")}

    def to_our_inpaint(self, data: Data) -> dict[Any, Any]:
        from lora_core.picture_read import read_picture

        picture = read_picture(data[self.picture]) if data[self.picture] else None
        return self.page.shared["inpaint"].carried(self.job(data), picture)

    def as_preview(self, data: Data) -> dict[Any, Any]:
        previews = self.page.shared["train"].form.components["preview_prompts"]
        lines = [*str(data[previews] or "").splitlines(), " ".join(without_lora_tags(self.job(data).prompt).split())]
        return {previews: "\n".join(line for line in dict.fromkeys(lines) if line)}


def drawn_by(job: GenerateJob) -> Drawn:
    """The first picture of a job."""
    return Drawn(job.seed, job.randomness.subseed)


def recipe_html(recipe: Recipe, page: Page) -> str:
    """What was read, what is missing here, what was assumed."""
    values = leaf_values(recipe.job)
    labels = {s.name: s.declaration.label for s in describe(type(recipe.job))}
    spelled = {name: spelled_value(name, values[name], page) for name in TOLD if name in values}
    rows = "".join(f"<dt>{escape(labels[n])}</dt><dd>{escape(v)}</dd>" for n, v in spelled.items() if v)
    warnings = "".join(f'<p class="loom-warning">{escape(line)}</p>' for line in recipe.unmapped)
    assumed = "".join(f"<li>{escape(line)}</li>" for line in recipe.assumed)
    more = f'<details class="loom-more"><summary>Assumed</summary><ul>{assumed}</ul></details>' if assumed else ""
    negative = recipe.job.negative_prompt
    return (
        f'<h3 class="loom-heading">{TITLES[recipe.kind]}<span>{escape(recipe.source)}</span></h3>'
        f'<p class="loom-prompt">{escape(tagged_prompt(recipe.job))}</p>'
        + (f'<p class="loom-prompt loom-negative">{escape(negative)}</p>' if negative else "")
        + f'<dl class="loom-facts">{rows}</dl>{warnings}{more}'
    )


def spelled_value(name: str, value: Any, page: Page) -> str:
    if name == "base":
        return page.title_of(str(value))
    if name == "sampler":
        return host_names.SAMPLER[value].a1111
    if name == "scheduler":
        return host_names.SCHEDULE[value].a1111
    return f"{value:g}" if isinstance(value, float) else str(value)
