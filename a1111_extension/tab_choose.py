"""The page "Choose": the saves of a training side by side, scored, one recommended, the others put away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_core.errors import ConfigError
from lora_core.jobs import ChooseJob, KeepJob, TrainJob
from lora_core.keep_one import keep_one, saves_of
from lora_core.run import run
from lora_core.settings import replace_by_name

from .page import Bridge, Data, Handlers, Page, good, heading, open_tab, quiet

HIDDEN = ("loras", "folder", "name", "output_dir")


class ChooseTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.host = page, page.host
        self.form = page.form(ChooseJob, "choose")
        with gr.Row(elem_classes="loom-columns"):
            with gr.Column(scale=5, elem_classes="loom-left"):
                heading("1. Which training")
                with gr.Row(elem_classes="loom-row"):
                    self.training = gr.Dropdown(
                        list(self.trainings()), label="Training", elem_id="lora_loom_choose_training", scale=5
                    )
                    self.refresh = gr.Button("Refresh", elem_classes="loom-side")
                self.saves = gr.CheckboxGroup([], label="Saves to compare", elem_id="lora_loom_choose_saves")
                heading("2. How to compare them")
                self.form.place("prompts", lines=3)
                self.form.place("neutral_prompts", lines=2)
                with gr.Row(elem_classes="loom-row"):
                    self.form.place("strengths")
                    self.form.place("seeds")
                self.form.place("base", info=None)
                with gr.Accordion("More", open=False, elem_classes="loom-group"):
                    self.form.grid([s for s in self.form.settings.values() if self.is_more(s.name)])
                self.start = gr.Button("Compare", variant="primary", elem_id="lora_loom_choose_start")
                self.said = Handlers.make()
            with gr.Column(scale=6, elem_classes="loom-right"):
                heading("3. Keep one")
                gr.HTML(quiet("The others leave the host's list; they are put away, not deleted."))
                with gr.Row(elem_classes="loom-row"):
                    how = {"allow_custom_value": True, "scale": 4}
                    self.kept = gr.Dropdown([], label="Save", elem_id="lora_loom_choose_kept", **how)
                    self.strength = gr.Slider(
                        0.05, 2, value=1, step=0.05, label="Strength", elem_id="lora_loom_choose_strength", scale=3
                    )
                    self.keep = gr.Button(
                        "Keep this one", elem_id="lora_loom_choose_keep", elem_classes="loom-side loom-wide"
                    )
                empty = "Nothing compared yet: grid and scores will be shown here."
                page.panel(("choose",), empty, wide="yes", keep="loom_choose_pick")
        self.asked, self.pick = Bridge.make("loom_choose_job"), Bridge.make("loom_choose_pick")
        self.wire()

    def is_more(self, name: str) -> bool:
        return name not in HIDDEN and name not in self.form.components

    def trainings(self) -> dict[str, str]:
        """Titles with their job's id, the newest first."""
        tickets = [t for t in self.host.desk.tickets() if t.kind == "train" and t.outputs]
        dated = [(t, time.strftime("%d.%m. %H:%M:%S", time.localtime(t.created))) for t in reversed(tickets)]
        return {f"{t.title} ({day})": t.id for t, day in dated}

    def wire(self) -> None:
        said, form = self.said, self.form
        shown = [self.training, self.saves, self.kept, *form.outputs]
        said.bind(self.training.input, self.chosen, {self.training}, shown)
        said.bind(self.asked.go.click, self.from_training, {self.asked.text}, shown)
        open_tab(self.asked.go.click, "choose")
        said.bind(self.refresh.click, self.refreshed, (), [self.training])
        said.bind(self.start.click, self.started, {self.training, self.saves, *form.inputs}, ())
        said.bind(self.pick.go.click, self.picked_save, {self.pick.text}, [self.kept, self.strength])
        said.bind(self.keep.click, self.kept_one, {self.training, self.kept, self.strength}, [self.saves, self.kept])

    def picked_save(self, data: Data) -> dict[Any, Any]:
        """ "STRENGTH FILE" of a row of the scores."""
        strength, _, name = str(data[self.pick.text]).partition(" ")
        return {self.kept: name, self.strength: float(strength)}

    def chosen(self, data: Data) -> dict[Any, Any]:
        return self.show(self.picked(data))

    def from_training(self, data: Data) -> dict[Any, Any]:
        return self.show(str(data[self.asked.text]))

    def refreshed(self, data: Data) -> dict[Any, Any]:
        return {self.training: gr.update(choices=list(self.trainings()))}

    def picked(self, data: Data) -> str:
        return self.trainings().get(str(data[self.training]), "")

    def training_of(self, id: str) -> TrainJob:
        job = self.host.desk.job(id) if id else None
        if not isinstance(job, TrainJob):
            raise ConfigError("No training is chosen.")
        return job

    def saves_of(self, id: str) -> list[Path]:
        """The saves that this training still has in its folder. Raises ConfigError when there is none."""
        job, desk = self.training_of(id), self.host.desk
        found = saves_of(job.output_dir, job.name, desk.files(id), desk.ticket(id).ended)
        if not found:
            raise ConfigError(f"The saves of {job.name} are not in {job.output_dir} any more.")
        return found

    def chosen_saves(self, id: str, names: Sequence[str]) -> list[Path]:
        """The saves of these names. Raises ConfigError for a name that is none of the training's."""
        known = {path.name: path for path in self.saves_of(id)}
        strange = [name for name in names if name not in known]
        if strange:
            raise ConfigError(f"{strange[0][:200]} is not among the saves of this training (any more).")
        return [known[name] for name in names]

    def show(self, id: str) -> dict[Any, Any]:
        """The saves of the training, and its own prompts and pictures to compare them by."""
        job, names = self.training_of(id), [path.name for path in self.saves_of(id)]
        known = self.trainings()
        side = job.dataset.width // 64 * 64 or 64, job.dataset.height // 64 * 64 or 64
        values = {
            "base": job.base,
            "prompts": job.saves.preview_prompts or (job.captions.trigger or job.name,),
            "held_out": job.dataset.held_out,
            "training_pictures": job.dataset.folder,
            "width": side[0],
            "height": side[1],
            "clip_skip": job.captions.clip_skip,
            "cfg_scale": job.saves.preview_cfg,
        }
        return {
            self.training: gr.update(choices=list(known), value=next((t for t, i in known.items() if i == id), None)),
            self.saves: gr.update(choices=names, value=names),
            self.kept: gr.update(choices=names, value=names[-1]),
            **self.form.shown(values, self.page.title_of),
        }

    def started(self, data: Data) -> dict[Any, Any]:
        id = self.picked(data)
        job = self.training_of(id)
        loras = tuple(map(str, self.chosen_saves(id, data[self.saves] or ())))
        if not loras:
            raise ConfigError("No save is chosen: tick those to compare.")
        folder = self.host.data_folder() / "choices" / f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        values = {**self.form.values(data), "loras": loras, "output_dir": str(folder)}
        self.page.submit(replace_by_name(ChooseJob(), values), f"{job.name}: choose")
        return {}

    def kept_one(self, data: Data) -> dict[Any, Any]:
        id = self.picked(data)
        job = self.training_of(id)
        if not data[self.kept]:
            raise ConfigError("No save is chosen.")
        [chosen], every = self.chosen_saves(id, [str(data[self.kept])]), self.saves_of(id)
        away = self.host.data_folder() / "put_away" / job.name
        strength, trigger = float(data[self.strength]), job.captions.trigger.strip()
        for _ in run(KeepJob(lora=str(chosen), strength=strength, trigger=trigger)):
            pass
        moved = keep_one(chosen, every, away)
        self.host.refresh()
        told = f"{chosen.name} stays, for use at {strength:g}; {len(moved)} files were moved to {away}."
        names = [chosen.name]
        return {
            self.saves: gr.update(choices=names, value=names),
            self.kept: gr.update(choices=names, value=chosen.name),
            self.said.said: good(told),
        }
