"""gradio widgets made from a job's declarations; values go in and out by the settings' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from lora_core.errors import ConfigError
from lora_core.settings import Setting, describe, hints, replace_by_name

from .fields import Widget, from_page, to_page, widget_of

Choices = Mapping[str, Callable[[], Sequence[str]]]
MAKERS: dict[str, Callable[..., Any]] = {
    "checkbox": gr.Checkbox,
    "slider": gr.Slider,
    "number": gr.Number,
    "text": gr.Textbox,
    "radio": gr.Radio,
    "dropdown": gr.Dropdown,
}


class Form:
    """The widgets of one job class on one page.

    `lists` gives the titles to choose from for the widgets "checkpoint" and "lora"; `paths` turns a title into a path;
    `start` holds values that widgets begin with in place of the defaults.
    """

    def __init__(
        self,
        job_class: type,
        name: str,
        lists: Choices,
        path_of: Callable[[str], str],
        start: Mapping[str, Any] | None = None,
    ) -> None:
        self.start = start or {}
        self.job_class, self.name, self.lists, self.path_of = job_class, name, lists, path_of
        self.settings = {s.name: s for s in describe(job_class)}
        self.components: dict[str, Any] = {}
        self.spelled: dict[str, dict[Any, str]] = {}
        self.labels = group_labels(job_class)

    def place(self, name: str, kind: str = "", labels: Mapping[Any, str] | None = None, **options: Any) -> Any:
        """Make the widget of one setting here; `kind` and `options` replace what its declaration says.

        `labels`: what a person reads for each value, where that differs from the value.
        """
        s = self.settings[name]
        widget = Widget(kind) if kind else widget_of(s)
        if labels:
            self.spelled[name] = dict(labels)
            options["choices"] = [text for value, text in labels.items() if value in (s.declaration.choices or labels)]
        made: dict[str, Any] = {
            "label": s.declaration.label or name,
            "value": self.on_page(name, self.start.get(name, s.default)),
            "elem_id": f"lora_loom_{self.name}_{name}",
            **({"info": s.declaration.help} if s.declaration.help else {}),
            **widget.options,
            **({"max_lines": 1} if widget.options.get("lines") == 1 else {}),
        }
        maker = MAKERS.get(widget.kind)
        if maker is None:
            maker = gr.Dropdown
            made |= {"choices": list(self.lists[widget.kind]()), "allow_custom_value": True, "value": s.default or None}
        component = maker(**{**made, **options})
        self.components[name] = component
        return component

    def rest(self, leave: Sequence[str] = (), open_groups: Sequence[str] = ()) -> None:
        """Make all widgets that are not there yet: groups as accordions, the advanced ones folded at their end."""
        todo = [s for s in self.settings.values() if s.name not in self.components and s.name not in leave]
        for group in dict.fromkeys(s.group for s in todo):
            members = [s for s in todo if s.group == group]
            with gr.Accordion(self.labels.get(group, "More"), open=group in open_groups, elem_classes="loom-group"):
                self.grid([s for s in members if not s.declaration.advanced])
                rare = [s for s in members if s.declaration.advanced]
                if rare and len(rare) < len(members):
                    with gr.Accordion("Rarely needed", open=False, elem_classes="loom-rare"):
                        self.grid(rare)
                else:
                    self.grid(rare)

    def grid(self, settings: Sequence[Setting]) -> None:
        """Two widgets a line, the switches behind the others. One row holds them all and the style sheet makes the
        lines: every row of gradio's costs the host's start."""
        switches = [s for s in settings if widget_of(s).kind == "checkbox"]
        others = [s for s in settings if widget_of(s).kind != "checkbox"]
        for members in (others, switches):
            if members:
                with gr.Row(elem_classes="loom-row loom-grid"):
                    for s in members:
                        self.place(s.name)

    def on_page(self, name: str, value: Any) -> Any:
        return self.spelled[name].get(value, value) if name in self.spelled else to_page(self.settings[name], value)

    def meant(self, name: str, shown: Any) -> Any:
        """The value behind a label."""
        return next((v for v, text in self.spelled.get(name, {}).items() if text == shown), shown)

    @property
    def inputs(self) -> set[Any]:
        return set(self.components.values())

    @property
    def outputs(self) -> list[Any]:
        return list(self.components.values())

    def values(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        """The settings' values by name from a handler's data. Raises ConfigError with every value that is none."""
        found: dict[str, Any] = {}
        faults: list[str] = []
        for name, component in self.components.items():
            s = self.settings[name]
            try:
                found[name] = from_page(s, self.meant(name, data.get(component)))
            except ConfigError as error:
                faults += error.problems
            if widget_of(s).kind in self.lists and found.get(name):
                found[name] = self.path_of(found[name])
        if faults:
            raise ConfigError(faults)
        return found

    def job(self, data: Mapping[Any, Any], **more: Any) -> Any:
        """The job that the page describes; `more` are settings that the page has no widget for."""
        return replace_by_name(self.job_class(), {**self.values(data), **more})

    def shown(self, values: Mapping[str, Any], titles: Callable[[str], str] = str) -> dict[Any, Any]:
        """Updates that show these values; names without a widget are passed over."""
        found: dict[Any, Any] = {}
        for name, value in values.items():
            if name in self.components:
                s = self.settings[name]
                page = titles(value) if widget_of(s).kind in self.lists and value else self.on_page(name, value)
                found[self.components[name]] = gr.update(value=page)
        return found

    def fresh_lists(self) -> dict[Any, Any]:
        """Updates with the choices of the host's lists as they are now."""
        return {
            self.components[name]: gr.update(choices=list(self.lists[widget_of(s).kind]()))
            for name, s in self.settings.items()
            if name in self.components and widget_of(s).kind in self.lists
        }


def group_labels(job_class: type) -> dict[str, str]:
    """{"network": "Network", ...} of the groups that the class declares."""
    import dataclasses

    kinds = hints(job_class)
    return {
        f.name: next(iter(f.metadata.values())).label
        for f in dataclasses.fields(job_class)
        if dataclasses.is_dataclass(kinds[f.name]) and f.metadata
    }
