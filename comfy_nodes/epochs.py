"""Epoch Grid: saves of a training x strengths, scored; and the report on a dataset before training."""

from __future__ import annotations

from lora_core.jobs import ChooseJob, TrainJob

from .declare import DATASET, FLOAT, IMAGE, PREFIX, STRING, Node, Out, Port
from .tools import LORA_BY_NAME
from .use import lora_ports
from .widgets import ports, setting, settings

NOT_ASKED = ("loras", "folder", "name", "held_out", "training_pictures")


def grid_inputs() -> tuple[Port, ...]:
    lora = next(p for p in lora_ports() if p.name == "lora")
    return (
        lora,
        *ports(settings(ChooseJob, leave_out=NOT_ASKED)),
        LORA_BY_NAME,
        Port("dataset", DATASET, "Dataset", "For the held-out loss, likeness, and to notice copies.", True),
    )


def report_inputs() -> tuple[Port, ...]:
    own = [setting(TrainJob, name) for name in ("width", "height", "batch_size", "trigger")]
    return (Port("dataset", DATASET, "Dataset"), *ports(own))


NODES = (
    Node(
        f"{PREFIX}EpochGrid",
        "Epoch Grid",
        "Draws every save of a training at several strengths, scores them and recommends one.",
        grid_inputs(),
        (
            Out(IMAGE, "grid"),
            Out(STRING, "lora_name", "The recommended save."),
            Out(FLOAT, "strength", "The recommended strength."),
            Out(STRING, "report"),
        ),
        "run_epochs:run_grid",
        shows=True,
        group="Training",
    ),
    Node(
        f"{PREFIX}DatasetReport",
        "Dataset Report",
        "What the trainer would see: sizes, captions, faults, duplicates.",
        report_inputs(),
        (Out(STRING, "report"), Out(IMAGE, "thumbnails")),
        "run_epochs:run_report",
        shows=True,
        group="Training",
    ),
)
