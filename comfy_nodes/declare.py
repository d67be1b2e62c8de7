"""Our nodes as plain values, free of any host: `host.py` turns them into ComfyUI's classes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_core.errors import ConfigError

PREFIX = "LoraLoom"
CATEGORY = "LoRA Loom"

IMAGE, MASK, LATENT, MODEL, CLIP, LORA_MODEL = "IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "LORA_MODEL"
STRING, INT, FLOAT, BOOLEAN, COMBO = "STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"
VAE = "VAE"
OWN_SOCKETS = "LORALOOM_"
DATASET, LORAS, PLAN, RECIPE = "LORALOOM_DATASET", "LORALOOM_LORAS", "LORALOOM_INPAINT_PLAN", "LORALOOM_RECIPE"
# Outputs that fit the lists of ComfyUI's own samplers; `host` puts those lists in their place.
SAMPLER_NAME, SCHEDULER_NAME = "LORALOOM_SAMPLER_NAME", "LORALOOM_SCHEDULER_NAME"


@dataclass(frozen=True)
class Port:
    """An input: a socket, or a widget where `options` hold what ComfyUI's widgets take (default, min, max, ...).

    `listed`: which of the lists in `lists` is to be chosen from, after the choices among the options.
    """

    name: str
    type: str
    label: str = ""
    help: str = ""
    optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    listed: str = ""


@dataclass(frozen=True)
class Out:
    """An output: its type, the name on the node, a tooltip. `many`: a list, each item used in turn."""

    type: str
    label: str
    help: str = ""
    many: bool = False


@dataclass(frozen=True)
class Options:
    """Settings by name, from a node of options."""

    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """One execution of a node: which one it is, the graph as queued, and what the page sent for picture files."""

    node_id: str = ""
    prompt: Any = None
    page: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Result:
    """Values in the order of the outputs, and what the page shows on the node."""

    values: tuple[Any, ...] = ()
    ui: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Node:
    """One node. `run(context, values)` does the work, or is named as "module:function" and imported when first
    needed; `fingerprint(values)` tells a change that the inputs do not show;
    `shows`: the node is worth running by itself; `as_lists`: every input comes as a list.
    """

    id: str
    title: str
    help: str
    inputs: tuple[Port, ...]
    outputs: tuple[Out, ...]
    run: Callable[[Context, dict[str, Any]], Result] | str
    fingerprint: Callable[[dict[str, Any]], Any] | None = None
    shows: bool = False
    as_lists: bool = False
    group: str = ""

    def execute(self, context: Context, values: dict[str, Any]) -> Result:
        """Do the work. Raises ConfigError where a graph holds itself what must come from a node."""
        for port in self.inputs:
            if port.type.startswith(OWN_SOCKETS) and isinstance(values.get(port.name), (dict, list, str, int, float)):
                raise ConfigError(f"{port.label} must be connected to a node; it cannot be written into the graph.")
        if not isinstance(self.run, str):
            return self.run(context, values)
        module, _, name = self.run.partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)(context, values)

    @property
    def category(self) -> str:
        return f"{CATEGORY}/{self.group}" if self.group else CATEGORY
