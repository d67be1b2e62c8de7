"""Train LoRA, and one node of options for each group of the training's settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.architecture import architecture_of
from lora_core.chart import LossCurve, loss_chart
from lora_core.goals import EFFORTS, FAMILIES, GOALS, Wish, explained, settings_for
from lora_core.jobs import TrainJob
from lora_core.pictures import SUFFIXES
from lora_core.settings import groups, replace_by_name

from . import host, places
from .dataset import Pictures
from .declare import BOOLEAN, COMBO, DATASET, IMAGE, INT, LORA_MODEL, PREFIX, STRING, Context, Node, Out, Port, Result
from .widgets import chosen_file, port, ports, setting, settings, value_of, values_of
from .work import Done, perform

CUSTOM = "custom"
SHOWN = 16
TITLES = {"dataset": "Batches", "optimization": "Optimizer", "noise": "Noise"}
LABELS = {"dataset": "Resolution and batches"}
# Settings that Train or Dataset show themselves.
ELSEWHERE = ("folder", "held_out", "validation_split", "repeats", "caption_extension", "trigger", "preview_prompts")
OWN = ("vae", "resume")
GOAL_HELP = (
    "Sets everything that no option node sets. custom: LoRA Loom's defaults, for those who set it all themselves."
)


def title(group: str) -> str:
    return TITLES.get(group, group.capitalize())


def socket(group: str) -> str:
    return f"LORALOOM_OPTIONS_{title(group).upper()}"


def group_settings(group: str) -> tuple[Any, ...]:
    return settings(TrainJob, group, ELSEWHERE)


def train_inputs() -> tuple[Port, ...]:
    prompts = setting(TrainJob, "preview_prompts")
    return (
        port(setting(TrainJob, "base")),
        Port("dataset", DATASET, "Dataset"),
        port(setting(TrainJob, "name"), default="my_lora"),
        port(setting(TrainJob, "trigger")),
        Port("goal", COMBO, "Goal", GOAL_HELP, options={"options": [*GOALS, CUSTOM], "default": "character"}),
        Port(
            "effort",
            COMBO,
            "Time",
            "quick: half the steps; thorough: twice as many.",
            options={"options": list(EFFORTS), "default": "normal"},
        ),
        Port(
            "total_steps", INT, "Steps", "0: as goal and time say.", options={"default": 0, "min": 0, "max": 1_000_000}
        ),
        Port(
            "resolution",
            INT,
            "Resolution",
            "0: 512 for SD 1.x and 2.x, 1024 for SDXL.",
            options={"default": 0, "min": 0, "max": 4096, "step": 64},
        ),
        Port("low_memory", BOOLEAN, "Low memory", "Fits a small card; slower.", options={"default": False}),
        Port(
            "preview_prompts",
            STRING,
            "Preview prompts",
            f"{prompts.declaration.help} Empty: the trigger word.",
            options={"default": "", "multiline": True},
        ),
        port(setting(TrainJob, "seed")),
        *(port(setting(TrainJob, name), advanced=True) for name in OWN),
        *(Port(f"options_{n}", socket(n), label, f"From Options: {label}.", True) for n, label, _ in option_groups()),
    )


@functools.cache
def option_groups() -> tuple[tuple[str, str, str], ...]:
    """(name, label, help) of each group that has a node of options."""
    found = groups(TrainJob).items()
    return tuple((name, LABELS.get(name, d.label), d.help) for name, d in found if group_settings(name))


def train_job(values: dict[str, Any]) -> TrainJob:
    """The job of a Train node. Raises ConfigError."""
    base, pictures = chosen_file("checkpoints", values["base"]), values["dataset"]
    chosen = wished(values, base, pictures) | pictures.values
    chosen |= {"steps": values["total_steps"]} if values.get("total_steps") else {}
    size = values.get("resolution")
    chosen |= {"width": size, "height": size} if size else {}
    for name, _, _ in option_groups():
        chosen |= values.get(f"options_{name}") or {}
    trigger = values.get("trigger", "").strip()
    prompts = value_of(setting(TrainJob, "preview_prompts"), values.get("preview_prompts", ""))
    chosen |= {"trigger": trigger, "preview_prompts": prompts or ((trigger,) if trigger else ())}
    chosen |= values_of([setting(TrainJob, name) for name in ("name", "seed", *OWN)], values)
    name = str(chosen["name"])
    where = {"output_dir": str(places.lora_folder()), "work_dir": str(places.work_folder(name))}
    return replace_by_name(TrainJob(), {"base": base, **chosen, **where})


def wished(values: dict[str, Any], base: str, pictures: Pictures) -> dict[str, Any]:
    """The settings that the goal decides for this base and so many pictures."""
    goal = values.get("goal", GOALS[0])
    family = architecture_of(base).family if base else FAMILIES[0]
    if goal == CUSTOM or family not in FAMILIES:
        return {}
    count = sum(path.suffix.lower() in SUFFIXES for path in Path(pictures.folder).rglob("*"))
    return settings_for(Wish(goal, values.get("effort", EFFORTS[1]), family, count, bool(values.get("low_memory"))))


def run_train(context: Context, values: dict[str, Any]) -> Result:
    job = train_job(values)
    done = perform(context, job, job.name)
    return trained(job, done, values.get("goal") != CUSTOM)


def trained(job: TrainJob, done: Done, by_goal: bool) -> Result:
    from .pictures import image_of, read_picture

    path = Path(done.finished.outputs[0])
    previews = [read_picture(p.path) for p in done.previews()[-SHOWN:] if Path(p.path).exists()]
    plot = image_of([loss_chart(LossCurve.from_events(done.events), job.name)])
    name = places.listed_name("loras", path)
    text = report(job, done, name)
    shown = {"lora_loom": [done.id], "text": [text]}
    return Result((host.read_tensors(path), name, plot, image_of(previews), text), shown)


def report(job: TrainJob, done: Done, name: str) -> str:
    """What was trained, for a person."""
    figures = done.finished.report
    loss, held_out = figures.get("loss"), figures.get("held_out") or []
    lines = [f"{name}: {figures.get('steps')} steps on {Path(job.base).name}"]
    lines += [f"Loss {loss:.4f}"] if isinstance(loss, float) else []
    lines += [f"Held-out loss {held_out[0][1]:.4f} -> {held_out[-1][1]:.4f}"] if len(held_out) > 1 else []
    values = {s.name: _leaf(job, s.path) for s in settings(TrainJob)}
    return "\n".join([*lines, *explained(values), *done.notes])


def _leaf(job: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        job = getattr(job, part)
    return job


def options_node(group: str, label: str, help: str) -> Node:
    """A node with all settings of a group; it sets them all."""

    def run(context: Context, values: dict[str, Any]) -> Result:
        return Result((values_of(group_settings(group), values),))

    inputs: Callable[[], tuple[Port, ...]] = functools.partial(group_inputs, group)
    told = help or f"Settings of a training: {label}. Connected to Train LoRA, they replace what the goal sets."
    id = f"{PREFIX}{title(group)}"
    return Node(id, f"Options: {label}", told, inputs, (Out(socket(group), group),), run, group="Training/Options")


def group_inputs(group: str) -> tuple[Port, ...]:
    """The widgets of a group: on a node of options nothing is hidden."""
    return ports(group_settings(group))


NODES = (
    Node(
        f"{PREFIX}Train",
        "Train LoRA",
        "Trains a LoRA that every host reads. Stop keeps what was learned; queued again, it goes on.",
        train_inputs,
        (
            Out(LORA_MODEL, "lora", "For Load LoRA Model, at once."),
            Out(STRING, "lora_name", "As the lists of LoRAs show it."),
            Out(IMAGE, "loss_plot"),
            Out(IMAGE, "previews"),
            Out(STRING, "report"),
        ),
        run_train,
        shows=True,
        group="Training",
    ),
    *(options_node(*group) for group in option_groups()),
)
