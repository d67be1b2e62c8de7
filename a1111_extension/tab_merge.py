"""The page "Merge": LoRA + LoRA, into a checkpoint, extract, resize. Each is a job of the desk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from lora_core.errors import ConfigError
from lora_core.jobs.generate import LoraUse
from lora_core.jobs.tools import ExtractJob, MergeIntoCheckpointJob, MergeJob, ResizeJob

from .page import Data, Handlers, Page, good, heading, quiet
from .widgets import Form

ROWS = 6
SHOWN = 2
KINDS = ("merge", "merge-checkpoint", "extract", "resize")


class LoraRows:
    """Rows of a LoRA, its strength, and the strength of its text encoder."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.names: list[Any] = []
        self.strengths: list[Any] = []
        self.rows: list[Any] = []
        for number in range(ROWS):
            with gr.Row(visible=number < SHOWN, elem_classes="loom-row") as row:
                self.names.append(
                    page.lora_list(f"LoRA {number + 1}", elem_id=f"lora_loom_{name}_lora_{number}", scale=3)
                )
                self.strengths.append(gr.Slider(-2, 2, value=1, step=0.05, label="Strength", scale=2))
            self.rows.append(row)
        self.more = gr.Button("Another LoRA", elem_classes="loom-link")
        self.count = gr.State(SHOWN)

    @property
    def inputs(self) -> set[Any]:
        return {*self.names, *self.strengths}

    def uses(self, data: Data) -> tuple[LoraUse, ...]:
        pairs = zip(self.names, self.strengths)
        return tuple(LoraUse(self.page.path_of(data[n]), float(data[s])) for n, s in pairs if data[n])

    def grow(self, data: Data) -> dict[Any, Any]:
        count = min(ROWS, int(data[self.count]) + 1)
        return {self.count: count, self.rows[count - 1]: gr.update(visible=True)}


@dataclass(frozen=True)
class Tool:
    """One of the page's tools. `folders`: where its result goes; `rows`: its LoRAs, where it takes several."""

    form: Form
    folders: Sequence[Path]
    rows: LoraRows | None
    start: Any


class MergeTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.host = page, page.host
        with gr.Row(elem_classes="loom-columns"):
            with gr.Column(scale=6, elem_classes="loom-left"), gr.Tabs(elem_id="lora_loom_merge_tools"):
                loras, bases = self.host.lora_folders(), self.host.checkpoint_folders()
                with gr.Tab("LoRA + LoRA"):
                    self.merge = self.tool(MergeJob, "merge", loras, "Merge", rows=True)
                with gr.Tab("Into a checkpoint"):
                    self.bake = self.tool(MergeIntoCheckpointJob, "bake", bases, "Merge into the checkpoint", rows=True)
                with gr.Tab("Extract"):
                    self.extract = self.tool(ExtractJob, "extract", loras, "Extract")
                with gr.Tab("Resize"):
                    self.resize = self.tool(ResizeJob, "resize", loras, "Resize")
            with gr.Column(scale=5, elem_classes="loom-right"):
                heading("Result")
                self.said = Handlers.make()
                page.panel(KINDS, "Nothing merged yet. Errors and ranks are told here after a job.")
        for tool in (self.merge, self.bake, self.extract, self.resize):
            self.wire(tool)

    def tool(self, job_class: type, name: str, folders: Sequence[Path], words: str, rows: bool = False) -> Tool:
        gr.HTML(quiet((job_class.__doc__ or "").strip().splitlines()[0]))
        form = self.page.form(job_class, name)
        for source in ("tuned", "lora", "base"):
            if source in form.settings and not form.settings[source].declaration.advanced:
                form.place(source)
        lines = LoraRows(self.page, name) if rows else None
        folder = folders[0] if folders else Path()
        form.place("output", label="Name of the result", info=f"Goes into {folder.name}.", placeholder="my_result")
        form.rest()
        return Tool(form, folders, lines, gr.Button(words, variant="primary", elem_id=f"lora_loom_{name}_start"))

    def wire(self, tool: Tool) -> None:
        inputs = tool.form.inputs | (tool.rows.inputs if tool.rows else set())
        self.said.bind(tool.start.click, lambda data: self.started(tool, data), inputs, ())
        if tool.rows:
            self.said.bind(tool.rows.more.click, tool.rows.grow, {tool.rows.count}, [tool.rows.count, *tool.rows.rows])

    def started(self, tool: Tool, data: Data) -> dict[Any, Any]:
        values = tool.form.values(data)
        values["output"] = result_path(values["output"], tool.folders)
        from lora_core.settings import replace_by_name

        job = replace_by_name(tool.form.job_class(), values)
        if tool.rows:
            job = replace(job, loras=tool.rows.uses(data))
        self.page.submit(job, Path(values["output"]).stem)
        return {self.said.said: good(f"{Path(values['output']).name} is in the queue.")}


def result_path(name: str, folders: Sequence[Path]) -> str:
    """A bare name becomes a .safetensors file in the host's folder. Raises ConfigError."""
    if not name.strip():
        raise ConfigError("The result has no name: give one.")
    path = Path(name.strip())
    if path.suffix.lower() != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    return str(path if path.is_absolute() or not folders else Path(folders[0]) / path)
