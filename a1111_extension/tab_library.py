"""The page "Library": all LoRAs of the host, what each is, who applies it, and the tools for one file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lora_core.errors import ConfigError
from lora_core.inspect_file import Inspection, inspect_network, lines
from lora_core.jobs.files import ConvertJob, InspectJob, MetadataJob, RepairJob
from lora_core.library import Card, card
from lora_core.metadata_edit import FIELDS
from lora_core.settings import replace_by_name
from lora_core.uploads import keep_uploads

from . import compat
from .cards import turner
from .page import Bridge, Data, Handlers, Page, good, listed, quiet
from .tab_merge import result_path

PER_PAGE = 18
KINDS = ("inspect", "repair", "convert", "metadata")
ANSWERS = {"fully": "loom-yes", "partly": "loom-partly", "no": "loom-no"}
FILES = ("lora", "output", "cover")


class LibraryTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.host = page, page.host
        self.convert = page.form(ConvertJob, "convert")
        self.metadata = page.form(MetadataJob, "metadata")
        with gr.Row(elem_classes="loom-columns"):
            with gr.Column(scale=6, elem_classes="loom-left"):
                with gr.Row(elem_classes="loom-row"):
                    self.search = gr.Textbox(label="Search", max_lines=1, placeholder="name", scale=5)
                    self.refresh = gr.Button("Refresh", elem_classes="loom-side", elem_id="lora_loom_library_refresh")
                self.shelf = gr.HTML(self.shelf_html(self.found(""), 0, ""))
            with gr.Column(scale=6, elem_classes="loom-right"):
                self.details()
        self.pick, self.turn = Bridge.make("loom_library_pick"), Bridge.make("loom_library_turn")
        self.wire()
        page.shared["library"] = self

    def details(self) -> None:
        self.chosen = gr.State("")
        self.stated = gr.State({})
        self.facts = gr.HTML(quiet("Choose a LoRA on the left."))
        self.said = Handlers.make()
        with gr.Row(elem_classes="loom-row"):
            self.measure = gr.Button("Read the weights, draw the heat map", elem_id="lora_loom_measure")
            self.repair = gr.Button("Repair a copy", elem_id="lora_loom_repair")
        with gr.Accordion("Metadata", open=False, elem_classes="loom-group"):
            with gr.Row(elem_classes="loom-row"):
                self.metadata.place("title")
                self.metadata.place("trigger")
            self.metadata.place("description", lines=3)
            self.cover = compat.picture("Preview picture", "lora_loom_cover", height=160)
            self.metadata.rest(leave=(*FILES, "overwrite"))
            self.write = gr.Button("Write into the file", variant="primary", elem_id="lora_loom_write_metadata")
        with gr.Accordion("Convert", open=False, elem_classes="loom-group"):
            self.convert.place("to", kind="radio")
            self.convert.place("output", label="Name of the copy", info="", placeholder="my_lora_converted")
            self.convert.rest(leave=("lora",))
            self.start_convert = gr.Button("Convert", variant="primary", elem_id="lora_loom_convert")
        self.page.panel(KINDS, "", wide="yes")

    def wire(self) -> None:
        said = self.said
        said.bind(self.search.submit, self.searched, {self.search}, [self.shelf])
        said.bind(self.refresh.click, self.refreshed, {self.search}, [self.shelf])
        said.bind(self.turn.go.click, self.turned, {self.search, self.turn.text, self.chosen}, [self.shelf])
        shown = [self.facts, self.chosen, self.shelf, self.stated, *self.metadata.outputs]
        said.bind(self.pick.go.click, self.picked, {self.pick.text, self.search}, shown)
        said.bind(self.measure.click, self.measured, {self.chosen}, ())
        said.bind(self.repair.click, self.repaired, {self.chosen}, ())
        said.bind(self.write.click, self.written, {self.chosen, self.cover, self.stated, *self.metadata.inputs}, ())
        said.bind(self.start_convert.click, self.converted, {self.chosen, *self.convert.inputs}, ())

    # the shelf

    def found(self, words: str) -> list[Any]:
        wanted = (words or "").casefold().split()
        return [c for c in self.host.loras() if all(word in c.title.casefold() for word in wanted)]

    def shelf_html(self, choices: Sequence[Any], page: int, chosen: str) -> str:
        if not choices:
            return quiet("No LoRA is here yet. Train one, or put files into the host's LoRA folder and refresh.")
        pages = max(1, -(-len(choices) // PER_PAGE))
        page = min(max(0, page), pages - 1)
        shown = choices[page * PER_PAGE : (page + 1) * PER_PAGE]
        cards = "".join(card_html(c.title, card(c.path), c.title == chosen) for c in shown)
        bar = turner(page, pages, "loom_library_turn")
        return f'<div class="loom-shelf">{cards}</div><div class="loom-cards-bar">{bar}</div>'

    def searched(self, data: Data) -> dict[Any, Any]:
        return {self.shelf: self.shelf_html(self.found(data[self.search]), 0, "")}

    def refreshed(self, data: Data) -> dict[Any, Any]:
        self.host.refresh()
        return self.searched(data)

    def turned(self, data: Data) -> dict[Any, Any]:
        page = int(data[self.turn.text] or 0)
        return {self.shelf: self.shelf_html(self.found(data[self.search]), page, data[self.chosen])}

    def picked(self, data: Data) -> dict[Any, Any]:
        title = str(data[self.pick.text])
        found = inspect_network(self.page.readable(self.page.path_of(title)))
        stated = {name: found.metadata.get(key, "") for name, key in FIELDS.items()}
        choices = self.found(data[self.search])
        place = next((i for i, choice in enumerate(choices) if choice.title == title), 0)
        return {
            self.facts: facts_html(title, found),
            self.chosen: title,
            self.stated: stated,
            self.shelf: self.shelf_html(choices, place // PER_PAGE, title),
            **self.metadata.shown({name: value for name, value in stated.items()}),
        }

    # the tools

    def path(self, data: Data) -> str:
        if not data[self.chosen]:
            raise ConfigError("No LoRA is chosen: click one on the left.")
        return self.page.path_of(str(data[self.chosen]))

    def measured(self, data: Data) -> dict[Any, Any]:
        path = self.path(data)
        folder = self.host.data_folder() / "heat_maps"
        folder.mkdir(parents=True, exist_ok=True)
        job = InspectJob(lora=path, numbers=True, picture=str(folder / f"{Path(path).stem}.png"))
        self.page.submit(job, Path(path).stem)
        return {}

    def repaired(self, data: Data) -> dict[Any, Any]:
        path = Path(self.path(data))
        job = RepairJob(lora=str(path), output=str(path.with_name(f"{path.stem}_repaired.safetensors")))
        self.page.submit(job, Path(job.output).stem)
        return {self.said.said: good("A repaired copy is being written beside it.")}

    def converted(self, data: Data) -> dict[Any, Any]:
        path = Path(self.path(data))
        values = self.convert.values(data)
        name = values["output"] or f"{path.stem}_{values['to']}"
        values |= {"lora": str(path), "output": result_path(name, (path.parent,))}
        self.page.submit(replace_by_name(ConvertJob(), values), Path(values["output"]).stem)
        return {self.said.said: good(f"{Path(values['output']).name} is being written.")}

    def written(self, data: Data) -> dict[Any, Any]:
        """Only what was changed is sent; an emptied field is removed."""
        path, stated = self.path(data), dict(data[self.stated] or {})
        values = {name: "" if value is None else value for name, value in self.metadata.values(data).items()}
        changed = {k: v for k, v in values.items() if k not in FIELDS or v != stated.get(k, "")}
        cover = self.kept(data[self.cover]) if data[self.cover] else ""
        job = replace_by_name(MetadataJob(), {**changed, "lora": path, "cover": cover})
        self.page.submit(job, Path(path).stem)
        return {self.said.said: good("The metadata is being written; the weights stay as they are.")}

    def kept(self, picture: str) -> str:
        """A copy of an uploaded picture in our own folder: the job reads it later, and only from the host's folders."""
        return str(keep_uploads([picture], self.host.data_folder() / "uploads" / "covers")[0])


def card_html(title: str, shown: Card, chosen: bool) -> str:
    picture = (
        f'<img alt="" src="{shown.cover}">' if shown.cover else f'<span class="loom-blank">{escape(title[:2])}</span>'
    )
    facts = " · ".join(
        filter(None, [shown.family, f"rank {shown.ranks}" if shown.ranks else "", f"{shown.megabytes:.0f} MB"])
    )
    dots = "".join(
        f'<i class="{ANSWERS.get(v.answer, "")}" title="{escape(f"{v.program}: {v.answer}. {v.reason}")}"></i>'
        for v in shown.verdicts
    )
    told = (
        f'<small class="loom-bad">{escape(shown.fault[:90])}</small>'
        if shown.fault
        else f"<small>{escape(facts)}</small>"
    )
    return (
        f'<button type="button" class="loom-book{" loom-on" if chosen else ""}" data-loom-tell="loom_library_pick" '
        f'data-value="{escape(title)}">{picture}<b title="{escape(title)}">{escape(title)}</b>{told}'
        f'<span class="loom-dots">{dots}</span></button>'
    )


def facts_html(title: str, found: Inspection) -> str:
    """The verdicts as a table, then the inspector's lines."""
    rows = "".join(
        f'<tr><td><i class="{ANSWERS.get(v.answer, "")}"></i>{escape(v.program)}</td><td>{escape(v.answer)}</td>'
        f"<td>{escape(v.reason)}</td></tr>"
        for v in found.verdicts
    )
    told = [line.strip() for line in lines(found)]
    told = [line for line in told[1:] if " applies it " not in line]
    trigger = f'<p class="loom-trigger">{escape(", ".join(found.triggers))}</p>' if found.triggers else ""
    return (
        f'<h3 class="loom-heading">{escape(title)}<span>{escape(found.dialect)}, {found.size / 1e6:.1f} MB</span></h3>'
        f'{trigger}<table class="loom-table"><tr><th>Program</th><th>applies it</th><th></th></tr>{rows}</table>'
        f'<details class="loom-more"><summary>All facts</summary>{listed(told)}</details>'
    )
