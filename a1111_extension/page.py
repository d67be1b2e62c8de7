"""What every tab shares: the host's lists, sentences for a person, handlers by name, places for the page's script."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from lora_core.errors import ConfigError, LoomError
from lora_core.jobs.files import InspectJob
from lora_core.known_classes import class_faults
from lora_core.run import kind_of

from . import compat
from .host_api import Choice, Host
from .widgets import Form

LOGGER = logging.getLogger("lora_loom")
Data = Mapping[Any, Any]
Handler = Callable[[Data], Mapping[Any, Any]]
TABS = ("train", "choose", "library", "merge", "inpaint", "recipes", "doctor")


@dataclass
class Page:
    """One visit of the tab builder. `shared`: components and functions that one tab offers to the others."""

    host: Host
    shared: dict[str, Any] = field(default_factory=dict)
    forms: list[Form] = field(default_factory=list)
    lora_lists: list[Any] = field(default_factory=list)

    def form(self, job_class: type, name: str, start: Mapping[str, Any] | None = None) -> Form:
        lists = {"checkpoint": lambda: titles(self.host.checkpoints()), "lora": lambda: titles(self.host.loras())}
        self.forms.append(Form(job_class, name, lists, self.path_of, start))
        return self.forms[-1]

    def lora_list(self, label: str, **options: Any) -> gr.Dropdown:
        """A dropdown of the host's LoRAs that is kept up to date."""
        self.lora_lists.append(gr.Dropdown(titles(self.host.loras()), label=label, **options))
        return self.lora_lists[-1]

    def fresh_lists(self, data: Any = None) -> dict[Any, Any]:
        """Every list of models and LoRAs on our pages as the host's folders are now."""
        self.host.refresh()
        found = {component: gr.update(choices=titles(self.host.loras())) for component in self.lora_lists}
        for form in self.forms:
            found |= form.fresh_lists()
        return found

    def path_of(self, title: str) -> str:
        """The path of a title of the host's lists; what is in none of them is a path already."""
        known = (*self.host.checkpoints(), *self.host.loras(), *self.host.vaes())
        return next((choice.path for choice in known if choice.title == title), title)

    def title_of(self, path: str) -> str:
        known = (*self.host.checkpoints(), *self.host.loras(), *self.host.vaes())
        return next((choice.title for choice in known if choice.path == path), path)

    def submit(self, job: Any, title: str) -> str:
        """Put a job into the queue, with the host's folders where it names none; its id. Raises ConfigError.

        On a server that others can reach, paths stay inside the host's folders, as those of requests do.
        """
        return self.host.desk.submit(self.placed(job), title)

    def placed(self, job: Any) -> Any:
        """The job as `submit` hands it over. Raises ConfigError for paths and classes that may not be named."""
        kind, faults = kind_of(job), class_faults(job)
        if faults:
            raise ConfigError(faults)
        return self.host.confined(kind, job) if self.host.access({}).public else self.host.filled(kind, job)

    def readable(self, path: str) -> str:
        """A file or folder that a visitor named. Raises ConfigError where others reach the server and it is not the
        host's."""
        try:
            return self.placed(InspectJob(lora=path)).lora
        except ConfigError as error:
            raise ConfigError([fault.removeprefix("lora: ") for fault in error.problems]) from None

    def panel(self, kinds: Sequence[str], empty: str, **bridges: str) -> gr.HTML:
        """Where the script shows jobs of these kinds: progress, curve, pictures, buttons, queue."""
        more = "".join(f' data-{name}="{escape(value)}"' for name, value in bridges.items())
        said = f'data-kinds="{" ".join(kinds)}" data-empty="{escape(empty)}"{more}'
        return gr.HTML(f'<div class="loom-panel" {said}></div>')


@dataclass(frozen=True)
class Bridge:
    """A hidden text field and button through which the page's script hands something over."""

    text: gr.Textbox
    go: gr.Button

    @classmethod
    def make(cls, name: str) -> Bridge:
        with gr.Row(elem_classes="loom-hidden"):
            text = gr.Textbox(elem_id=f"{name}_text", elem_classes="loom-hidden", show_label=False)
            return cls(text, gr.Button("go", elem_id=f"{name}_go", elem_classes="loom-hidden"))


@dataclass(frozen=True)
class Handlers:
    """Binds handlers that take and give values by component, and says their errors in one place of the page."""

    said: Any

    @classmethod
    def make(cls, elem_id: str = "") -> Handlers:
        options = {"elem_id": elem_id} if elem_id else {}
        return cls(gr.HTML("", elem_classes="loom-said", **options))

    def bind(
        self,
        trigger: Callable[..., Any],
        function: Handler,
        inputs: Iterable[Any],
        outputs: Iterable[Any],
        js: str = "",
    ) -> Any:
        """`function({component: value}) -> {component: update}`; a LoomError becomes the sentence on the page."""

        def run(data: Data) -> dict[Any, Any]:
            try:
                return {self.said: "", **function(data)}
            except LoomError as error:
                return {self.said: sentence(error)}
            except Exception as error:
                LOGGER.exception("A page of LoRA Loom failed")
                return {self.said: sentence(f"Unexpected: {type(error).__name__}: {error}. The console tells more.")}

        every = list(dict.fromkeys([self.said, *outputs]))
        return compat.on(trigger, run, set(inputs) or {self.said}, every, js)


def titles(choices: Iterable[Choice]) -> list[str]:
    return [choice.title for choice in choices]


def sentence(error: LoomError | str) -> str:
    """An error as HTML, a paragraph for each fault."""
    faults = getattr(error, "problems", None) or [str(error)]
    return "".join(f'<p class="loom-error">{escape(fault)}</p>' for fault in faults)


def good(text: str) -> str:
    return f'<p class="loom-good">{escape(text)}</p>'


def quiet(text: str) -> str:
    return f'<p class="loom-quiet">{escape(text)}</p>'


def listed(lines: Iterable[str], cls: str = "loom-lines") -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{cls}">{items}</ul>' if items else ""


def heading(text: str, help: str = "") -> gr.HTML:
    more = f"<span>{escape(help)}</span>" if help else ""
    return gr.HTML(f'<h3 class="loom-heading">{escape(text)}{more}</h3>')


def open_tab(trigger: Callable[..., Any], name: str) -> None:
    """Open one of our tabs when something is clicked."""
    compat.on(trigger, None, js=f"() => {{ window.loraLoom && window.loraLoom.open({name!r}); }}")
