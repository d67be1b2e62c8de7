"""Tools on LoRA files: merge, extract, resize, convert, repair, inspect, metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_core.errors import ConfigError
from lora_core.jobs.files import ConvertJob, InspectJob, MetadataJob, RepairJob
from lora_core.jobs.tools import ExtractJob, MergeIntoCheckpointJob, MergeJob, ResizeJob
from lora_core.jobs.train import name_problems
from lora_core.settings import replace_by_name

from . import places
from .declare import IMAGE, LORAS, PREFIX, STRING, Context, Node, Out, Port, Result
from .use import lora_state
from .widgets import ports, settings, values_of

LORA_BY_NAME = Port("lora_name", STRING, "LoRA by name", "Takes the place of the list.", True, {"forceInput": True})
SAVED_AS = "Without .safetensors, in ComfyUI's folder for {what}. A name that is taken gets a number."


@dataclass(frozen=True)
class Tool:
    """A job that writes one file: its class, where that goes, the name that the widget begins with."""

    job: type
    folder: str
    name: str
    stack: bool = False

    def settings(self) -> tuple[Any, ...]:
        return settings(self.job, leave_out=("output", "blocks"))

    def inputs(self) -> tuple[Port, ...]:
        what = "LoRAs" if self.folder == "loras" else "checkpoints"
        named = Port("name", STRING, "Name", SAVED_AS.format(what=what), options={"default": self.name})
        own = [s.name for s in self.settings()]
        more = (LORA_BY_NAME,) if "lora" in own else ()
        sockets = (Port("loras", LORAS, "LoRAs", "From LoRA Stack."),) if self.stack else ()
        return (*sockets, named, *ports(self.settings(), self.job), *more)

    def run(self, context: Context, values: dict[str, Any]) -> Result:
        from .work import perform

        job = replace_by_name(self.job(), self.values(values))
        if self.stack:
            uses = tuple(values["loras"])
            plain = tuple(replace(use, blocks="") for use in uses)
            job = replace(job, loras=plain, blocks=tuple(use.blocks for use in uses))
        done = perform(context, job, values["name"])
        path = Path(done.finished.outputs[0])
        text = "\n".join([path.name, *done.notes])
        return Result((places.listed_name(self.folder, path), text), {"text": [text]})

    def values(self, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("lora_name"):
            values = {**values, "lora": values["lora_name"]}
        found = values_of(self.settings(), values)
        return {**found, "output": str(self.output(values["name"], bool(found.get("overwrite"))))}

    def output(self, name: str, overwrite: bool) -> Path:
        """Where the result goes: a new name unless an old file may be replaced. Raises ConfigError."""
        faults = name_problems(name)
        if faults:
            raise ConfigError(faults)
        folder = places.lora_folder() if self.folder == "loras" else places.checkpoint_folder()
        wanted, number = folder / f"{name}.safetensors", 1
        while wanted.exists() and not overwrite:
            number += 1
            wanted = folder / f"{name}-{number}.safetensors"
        return wanted


def node(id: str, title: str, help: str, tool: Tool) -> Node:
    fingerprint: Callable[[dict[str, Any]], Any] | None = lora_state if not tool.stack else None
    label = "lora_name" if tool.folder == "loras" else "checkpoint_name"
    outputs = (Out(STRING, label, "As ComfyUI's lists show it."), Out(STRING, "report"))
    return Node(f"{PREFIX}{id}", title, help, tool.inputs(), outputs, tool.run, fingerprint, shows=True, group="Tools")


def inspect_inputs() -> tuple[Port, ...]:
    return (*ports(settings(InspectJob, leave_out=("numbers", "picture")), InspectJob), LORA_BY_NAME)


def metadata_inputs() -> tuple[Port, ...]:
    own = settings(MetadataJob, leave_out=("output", "cover", "overwrite"))
    return (
        *ports(own, MetadataJob),
        LORA_BY_NAME,
        Port("cover", IMAGE, "Preview picture", "Stored in the file, small.", True),
    )


NODES = (
    node(
        "Merge",
        "Merge LoRAs",
        "Several LoRAs into one: exact, or at a smaller rank.",
        Tool(MergeJob, "loras", "merged", stack=True),
    ),
    node(
        "MergeCheckpoint",
        "Merge LoRAs into Checkpoint",
        "Bakes LoRAs into a checkpoint, tensor by tensor.",
        Tool(MergeIntoCheckpointJob, "checkpoints", "merged", stack=True),
    ),
    node(
        "Extract",
        "Extract LoRA",
        "The difference of two checkpoints as a LoRA.",
        Tool(ExtractJob, "loras", "extracted"),
    ),
    node("Resize", "Resize LoRA", "A LoRA at a smaller rank.", Tool(ResizeJob, "loras", "resized")),
    node(
        "Convert",
        "Convert LoRA",
        "A LoRA, LoHa, LoKr, DoRA or ComfyUI-trained file in the dialect of another program.",
        Tool(ConvertJob, "loras", "converted"),
    ),
    node(
        "Repair",
        "Repair LoRA",
        "A file that every host reads: right alphas, hashes and metadata, stray keys taken out.",
        Tool(RepairJob, "loras", "repaired"),
    ),
    Node(
        f"{PREFIX}Inspect",
        "Inspect LoRA",
        "What is in a LoRA, who applies it, and where it acts.",
        inspect_inputs(),
        (Out(STRING, "report"), Out(IMAGE, "heat_map")),
        "run_tools:run_inspect",
        fingerprint=lora_state,
        shows=True,
        group="Tools",
    ),
    Node(
        f"{PREFIX}Metadata",
        "LoRA Metadata",
        "Shows and edits what a LoRA says about itself: title, trigger words, preview.",
        metadata_inputs(),
        (Out(STRING, "lora_name"), Out(STRING, "metadata")),
        "run_tools:run_metadata",
        fingerprint=lora_state,
        shows=True,
        group="Tools",
    ),
)
