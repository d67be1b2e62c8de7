"""Train LoRA, and one node of options for each group of the training's settings."""

from __future__ import annotations

import functools
from typing import Any

from lora_core.goals import EFFORTS, GOALS
from lora_core.jobs import TrainJob
from lora_core.settings import groups

from .dataset import OWN_SETTINGS
from .declare import (
    BOOLEAN,
    COMBO,
    DATASET,
    IMAGE,
    INT,
    LORA_MODEL,
    LORAS,
    PREFIX,
    STRING,
    Context,
    Node,
    Options,
    Out,
    Port,
    Result,
)
from .widgets import port, ports, setting, settings, values_of

CUSTOM = "custom"
TITLES = {"dataset": "Batches", "optimization": "Optimizer", "noise": "Noise"}
LABELS = {"dataset": "Resolution and batches"}
# Settings that Train or Dataset show themselves.
ELSEWHERE = ("folder", "held_out", *OWN_SETTINGS, "trigger", "preview_prompts")
OWN = ("vae", "resume")
# A shared graph must not name code to import, nor files by their paths.
NOT_FROM_GRAPHS = ("optimizer_class", "schedule_class", "base_loras")
BASE_LORAS_HELP = "Merged into the base in memory before training."
GOAL_HELP = (
    "Sets everything that no option node sets. custom: LoRA Loom's defaults, for those who set it all themselves."
)


def title(group: str) -> str:
    return TITLES.get(group, group.capitalize())


def socket(group: str) -> str:
    return f"LORALOOM_OPTIONS_{title(group).upper()}"


def group_settings(group: str) -> tuple[Any, ...]:
    return settings(TrainJob, group, (*ELSEWHERE, *NOT_FROM_GRAPHS))


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
        port(setting(TrainJob, "time_budget")),
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
        Port("base_loras", LORAS, setting(TrainJob, "base_loras").declaration.label, BASE_LORAS_HELP, True),
        *(Port(f"options_{n}", socket(n), label, f"From Options: {label}.", True) for n, label, _ in option_groups()),
    )


def last_stop(values: dict[str, Any]) -> str:
    """The last training of this name that was stopped: queued again it goes on, although ComfyUI has its results."""
    from .work import desk

    name = str(values.get("name") or "").strip()
    return next((t.id for t in reversed(desk().tickets()) if t.title == name and t.state == "stopped"), "")


@functools.cache
def option_groups() -> tuple[tuple[str, str, str], ...]:
    """(name, label, help) of each group that has a node of options."""
    found = groups(TrainJob).items()
    return tuple((name, LABELS.get(name, d.label), d.help) for name, d in found if group_settings(name))


def options_node(group: str, label: str, help: str) -> Node:
    """A node with all settings of a group; it sets them all."""

    def run(context: Context, values: dict[str, Any]) -> Result:
        return Result((Options(values_of(group_settings(group), values)),))

    told = help or f"Settings of a training: {label}. Connected to Train LoRA, they replace what the goal sets."
    id = f"{PREFIX}{title(group)}"
    return Node(
        id, f"Options: {label}", told, group_inputs(group), (Out(socket(group), group),), run, group="Training/Options"
    )


def group_inputs(group: str) -> tuple[Port, ...]:
    """The widgets of a group: on a node of options nothing is hidden."""
    return ports(group_settings(group))


NODES = (
    Node(
        f"{PREFIX}Train",
        "Train LoRA",
        "Trains a LoRA that every host reads. Stop keeps what was learned; queued again, it goes on.",
        train_inputs(),
        (
            Out(LORA_MODEL, "lora", "For Load LoRA Model, at once: what was trained of the UNet."),
            Out(STRING, "lora_name", "As the lists of LoRAs show it."),
            Out(IMAGE, "loss_plot"),
            Out(IMAGE, "previews"),
            Out(STRING, "report"),
        ),
        "run_train:run_train",
        fingerprint=last_stop,
        shows=True,
        group="Training",
    ),
    *(options_node(*group) for group in option_groups()),
)
