"""The page "Train": pictures, a goal, all settings behind it, and what runs."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lora_core import goals
from lora_core.caption_edit import caption_rows, write_captions
from lora_core.errors import ConfigError
from lora_core.forecast import speeds_of
from lora_core.inspect_file import checkpoint_facts
from lora_core.job_file import LORA, read_training
from lora_core.jobs import TrainJob
from lora_core.settings import from_json, leaf_values, replace_by_name, to_json
from lora_core.train_like import differences
from lora_core.uploads import keep_uploads

from . import cards, compat
from .page import Bridge, Data, Handlers, Page, good, heading, listed, quiet

SIMPLE = ("folder", "trigger", "name", "base")
HIDDEN = ("resume", "output_dir", "work_dir", "cache_dir")
DEFAULTS = leaf_values(TrainJob())
SIZES = ("rank", "alpha", "conv_rank", "conv_alpha", "rs_lora")
RATES = ("learning_rate", "text_encoder_lr", "text_encoder_2_lr", "conv_alpha")


class TrainTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.host = page, page.host
        self.form = page.form(TrainJob, "train", {"metadata": self.host.option("metadata")})
        with gr.Row(elem_classes="loom-columns"):
            with gr.Column(scale=6, elem_classes="loom-left"):
                self.pictures()
                self.wishes()
                self.plan_area()
                self.everything()
            with gr.Column(scale=5, elem_classes="loom-right"):
                heading("What runs")
                page.panel(
                    ("train",), "No training yet. Progress, the loss curve and previews will be shown here.",
                    reuse="loom_train_reuse", choose="loom_choose_job",
                )  # fmt: skip
        self.reuse = Bridge.make("loom_train_reuse")
        self.wire()
        page.shared["train"] = self

    def pictures(self) -> None:
        heading("1. Pictures", "10 to 30 of the same thing, each different in everything else")
        with gr.Row(elem_classes="loom-row"):
            self.form.place("folder", scale=5, placeholder="/path/to/pictures")
            self.look = gr.Button("Look", elem_id="lora_loom_look", elem_classes="loom-side")
        self.files = gr.File(
            label="or drop pictures here, with their .txt captions if there are any",
            file_count="multiple", elem_id="lora_loom_files", elem_classes="loom-drop", height=120,
        )  # fmt: skip
        self.said = Handlers.make("lora_loom_train_said")
        self.report = gr.HTML("", elem_id="lora_loom_report")
        with gr.Accordion("Captions", open=False, elem_id="lora_loom_captions") as self.fold:
            self.cards = gr.HTML(quiet("Name a folder first."))
        self.save_captions, self.turn = Bridge.make("loom_captions"), Bridge.make("loom_turn")

    def wishes(self) -> None:
        heading("2. What to learn")
        with gr.Row(elem_classes="loom-row"):
            self.goal = gr.Radio(
                [g.capitalize() for g in goals.GOALS], value="Character", label="Goal", elem_id="lora_loom_goal"
            )
            self.effort = gr.Radio(
                [e.capitalize() for e in goals.EFFORTS], value="Normal", label="Effort", elem_id="lora_loom_effort"
            )
        with gr.Row(elem_classes="loom-row"):
            self.form.place("trigger", placeholder="a word that the base does not know")
            self.form.place("name")
        with gr.Row(elem_classes="loom-row"):
            self.form.place("base", scale=5, value=self.page.title_of(self.host.current_checkpoint()) or None)
            self.refresh = gr.Button("Refresh", elem_id="lora_loom_refresh", elem_classes="loom-side")
        low = bool(self.host.option("low_memory"))
        with gr.Row(elem_classes="loom-row"):
            self.form.place("time_budget")
            self.low = gr.Checkbox(low, label="Low memory", info="Slower; fits small cards.", elem_id="lora_loom_low")

    def plan_area(self) -> None:
        heading("3. Start")
        self.plan = gr.HTML(quiet("Choose pictures and a base: here you will see steps, time and memory."))
        self.start_said = Handlers.make("lora_loom_start_said")
        with gr.Row(elem_classes="loom-row"):
            self.check = gr.Button("Check", elem_id="lora_loom_check")
            self.start = gr.Button("Start training", variant="primary", elem_id="lora_loom_start")
        self.carried = gr.State("")
        self.sized = gr.State({name: DEFAULTS[name] for name in SIZES})
        self.demo = gr.Button("Fill in the demo", elem_id="lora_loom_demo", elem_classes="loom-link")

    def everything(self) -> None:
        with gr.Accordion("All settings", open=False, elem_id="lora_loom_all"):
            gr.HTML(quiet("Goal, effort, base and low memory set these; what you change here afterwards counts."))
            self.form.rest(leave=HIDDEN)
            with gr.Row(elem_classes="loom-row"):
                self.file = gr.File(
                    label="Load settings: kohya's TOML or JSON, a job's JSON, or a LoRA to train like",
                    elem_classes="loom-drop",
                )

    def wire(self) -> None:
        form, said = self.form, self.said
        wish = {self.goal, self.effort, self.low}
        seen = [self.report, self.cards, self.fold]
        planned = [*form.outputs, self.plan, self.carried, self.sized]
        for trigger in (self.look.click, form.components["folder"].submit):
            said.bind(trigger, self.looked, form.inputs | wish, [*seen, *planned])
        said.bind(self.files.upload, self.dropped, {*form.inputs, *wish, self.files}, [*seen, *planned, self.files])
        said.bind(
            self.save_captions.go.click,
            self.captions_saved,
            {*form.inputs, self.carried, self.save_captions.text},
            seen,
        )
        said.bind(self.turn.go.click, self.turned, {form.components["folder"], self.turn.text}, [self.cards])
        for trigger in (self.goal.input, self.effort.input, self.low.input, form.components["base"].input):
            self.start_said.bind(trigger, self.wished, form.inputs | wish, planned)
        for name in ("rank", "alpha", "rs_lora"):
            changed = form.components[name].input
            self.start_said.bind(changed, self.resized, form.inputs | {self.sized}, [*planned, self.start_said.said])
        self.start_said.bind(self.check.click, self.checked, {*form.inputs, self.carried}, [self.plan, *seen])
        self.start_said.bind(self.start.click, self.started, {*form.inputs, self.carried}, [self.plan, self.report])
        self.start_said.bind(self.demo.click, self.demo_filled, form.inputs | wish, [*seen, *planned])
        self.start_said.bind(self.file.upload, self.loaded, form.inputs | {self.file}, planned)
        self.start_said.bind(self.reuse.go.click, self.reused, {self.reuse.text}, planned)

    # what the buttons do

    def looked(self, data: Data) -> dict[Any, Any]:
        """The report, the cards, and the plan for this many pictures."""
        folder, values = self.folder(data), goals.settings_for(self.wish(data))
        told = self.dataset(folder, replace_by_name(TrainJob(), values))
        return {**told, **self.planned(data, values)}

    def planned(self, data: Data, values: dict[str, Any]) -> dict[Any, Any]:
        """Show these settings, and why they are so."""
        limit = {"time_budget": self.form.values(data)["time_budget"]}
        plan = listed(goals.explained({**values, **limit}), "loom-plan")
        return {**self.form.shown(values), self.plan: plan, self.sized: {n: values.get(n, DEFAULTS[n]) for n in SIZES}}

    def resized(self, data: Data) -> dict[Any, Any]:
        """Another rank or alpha: the learning rate follows, so that the effective one stays."""
        values = self.form.values(data)
        now = {name: values[name] for name in SIZES}
        if not now["rank"] or not now["alpha"]:
            return {}
        merged, told = goals.on_top({**values, **data[self.sized]}, {n: now[n] for n in ("rank", "alpha", "rs_lora")})
        rates = {name: merged[name] for name in RATES}
        plan = listed(goals.explained(merged), "loom-plan")
        kept = {**now, "conv_alpha": merged["conv_alpha"]}
        said = {self.start_said.said: good(told)} if told else {}
        return {**self.form.shown(rates), self.plan: plan, self.sized: kept, **said}

    def dataset(self, folder: str, job: TrainJob | None = None) -> dict[Any, Any]:
        """The report on a folder at the sizes of the job, and a card for each picture."""
        from lora_core.engine.dataset import open_dataset

        report = open_dataset(replace_by_name(job or TrainJob(), {"folder": folder})).report
        rows = caption_rows(folder)
        return {
            self.report: cards.report_html(report),
            self.cards: cards.cards_html(rows, 0, "loom_captions", "loom_turn"),
            self.fold: gr.update(label=f"Captions ({report.captioned} / {report.pictures})"),
        }

    def folder(self, data: Data) -> str:
        folder = str(data[self.form.components["folder"]] or "").strip().strip('"')
        if not folder:
            raise ConfigError("No pictures are named: give a folder, or drop pictures.")
        return self.page.readable(folder)

    def dropped(self, data: Data) -> dict[Any, Any]:
        name = time.strftime("pictures-%Y%m%d-%H%M%S")
        folder = self.host.data_folder() / "uploads" / name
        keep_uploads(compat.uploaded(data[self.files]), folder)
        data = {**data, self.form.components["folder"]: str(folder)}
        return {**self.looked(data), **self.form.shown({"folder": str(folder)}), self.files: gr.update(value=None)}

    def captions_saved(self, data: Data) -> dict[Any, Any]:
        folder, job = self.folder(data), self.job(data)
        written = write_captions(folder, json.loads(data[self.save_captions.text] or "{}"))
        return {**self.dataset(folder, job), self.said.said: good(f"{len(written)} captions saved.")}

    def turned(self, data: Data) -> dict[Any, Any]:
        rows = caption_rows(self.folder(data))
        return {self.cards: cards.cards_html(rows, int(data[self.turn.text] or 0), "loom_captions", "loom_turn")}

    def wished(self, data: Data) -> dict[Any, Any]:
        """The settings that goal, effort, base and memory ask for, shown in the form, and explained."""
        return self.planned(data, goals.settings_for(self.wish(data)))

    def wish(self, data: Data) -> goals.Wish:
        """What the page asks for, with the base's family and the number of pictures."""
        found = self.form.values(data)
        family, pictures = "sd1", 0
        if found["base"]:
            family = str(checkpoint_facts(self.page.readable(found["base"]))["family"])
        if found["folder"]:
            pictures = len(caption_rows(self.page.readable(found["folder"])))
        low = bool(data[self.low])
        return goals.Wish(data[self.goal].lower(), data[self.effort].lower(), family, pictures, low)

    def job(self, data: Data) -> TrainJob:
        """The job as the page has it, on top of the settings that were loaded; folders are the host's."""
        values = self.form.values(data)
        if values["name"] in ("", DEFAULTS["name"]):
            values["name"] = values["trigger"] or DEFAULTS["name"]
        carried = from_json(TrainJob, json.loads(data[self.carried])) if data[self.carried] else TrainJob()
        job = replace_by_name(carried, {**values, "output_dir": "", "work_dir": "", "resume": True})
        return self.page.placed(job)

    def checked(self, data: Data) -> dict[Any, Any]:
        """Everything that can be told before the start."""
        from lora_core.engine.outlook import outlook

        job = self.job(data)
        faults = job.problems()
        if faults:
            raise ConfigError(faults)
        found = outlook(job, speeds_of(self.host.desk))
        values = self.form.values(data)
        values["steps"] = found.report.steps
        tight = f'<p class="loom-warning">{escape(found.tight())}</p>' if found.tight() else ""
        told = f'<p class="loom-forecast">{escape(found.forecast.text())}</p>'
        return {
            self.plan: told + tight + listed(goals.explained(values), "loom-plan"),
            self.report: cards.report_html(found.report),
        }

    def started(self, data: Data) -> dict[Any, Any]:
        job, told = self.job(data), self.checked(data)
        self.page.submit(job, job.name)
        return {**told, self.start_said.said: good(f"{job.name} is in the queue.")}

    def demo_filled(self, data: Data) -> dict[Any, Any]:
        """The shipped character on the shipped base, as `make demo` trains it."""
        job = demo_job()
        return {**self.dataset(job.dataset.folder, job), **self.filled(job, [])}

    def loaded(self, data: Data) -> dict[Any, Any]:
        """Settings from a file into the form; what is not understood is said, and of a LoRA what is not as it was."""
        paths = compat.uploaded(data[self.file])
        if not paths:
            return {}
        job, notes = read_training(paths[0])
        if Path(paths[0]).suffix.lower() == LORA:
            values = self.form.values(data)
            here = replace_by_name(TrainJob(), {n: v for n, v in values.items() if n not in HIDDEN})
            job = replace_by_name(job, {name: values[name] for name in ("folder", "base")})
            notes += [f"{d.label}: {d.second}, before {d.first}." for d in differences(here, job)]
        return self.filled(job, notes)

    def reused(self, data: Data) -> dict[Any, Any]:
        job = self.host.desk.job(str(data[self.reuse.text]))
        if not isinstance(job, TrainJob):
            raise ConfigError("These are not the settings of a training.")
        return self.filled(job, [])

    def filled(self, job: TrainJob, notes: list[str]) -> dict[Any, Any]:
        """Show a whole job; what has no widget (folders with rules of their own) is carried along and said."""
        values = leaf_values(job)
        more = [f"Also trained on: {s.folder} ({s.repeats} x)." for s in job.dataset.subsets]
        told = listed([*goals.explained(values), *more, *notes], "loom-plan")
        return {
            **self.form.shown(values, self.page.title_of),
            self.carried: json.dumps(to_json(job)),
            self.plan: told,
            self.sized: {name: values[name] for name in SIZES},
        }


def demo_job() -> TrainJob:
    """The shipped demo's training with the character's folder as the main one."""
    from lora_core.demo import plan
    from lora_core.jobs.demo import DemoJob

    made = plan.training(DemoJob(), plan.inputs(DemoJob()), Path(), Path())
    character, *others = made.dataset.subsets
    dataset = replace(made.dataset, folder=character.folder, repeats=character.repeats, subsets=tuple(others))
    saves = replace(
        made.saves,
        preview_every_steps=50,
        preview_prompts=plan.GRID_PROMPTS[:2],
        preview_cfg=plan.CFG_SCALE,
        state_every_steps=25,
    )
    captions = replace(made.captions, trigger=plan.NAME)
    return replace(made, dataset=dataset, captions=captions, saves=saves, name="demo_character", seed=1)
