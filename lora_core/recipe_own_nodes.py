"""LoRA Loom's own ComfyUI nodes as a job: their inputs bear the names of a job's settings."""

from __future__ import annotations

from typing import Any

from lora_core.comfyui_chains import Chains
from lora_core.comfyui_graph import Link, Node
from lora_core.errors import ConfigError
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob
from lora_core.recipe_values import Recipe, Wanted
from lora_core.settings import describe, replace_by_name

PREFIX = "LoraLoom"
KINDS: dict[str, type[GenerateJob]] = {"inpaint": InpaintJob, "img2img": Img2ImgJob, "generate": GenerateJob}


def own_node(node: Node) -> bool:
    """Whether a node is one of ours that draws."""
    return node.kind.startswith(PREFIX) and any(kind in node.kind.casefold() for kind in KINDS)


def recipe_of_own(node: Node, chains: Chains, source: str) -> Recipe:
    """The job that one of our nodes ran."""
    kind = next(kind for kind in KINDS if kind in node.kind.casefold())
    job: GenerateJob = KINDS[kind]()
    for s in describe(type(job)):
        value = chains.scalar(node.inputs.get(s.name), (s.name, "text", "string", "value"))
        if value is None:
            if isinstance(node.inputs.get(s.name), Link):
                chains.note(f"{s.declaration.label} comes from another node: set {s.name}.")
            continue
        try:
            job = replace_by_name(job, {s.name: _fitting(value, s.default)})
        except ConfigError as error:
            chains.note(f"{node.name}: {error}")
    return Recipe(job, kind, tuple(chains.notes), (), source, Wanted((job.base, ""), (job.vae, "")))


def _fitting(value: Any, default: Any) -> Any:
    """Lines of a text box as a tuple; whole numbers where a fraction is meant."""
    if isinstance(default, tuple) and isinstance(value, str):
        return tuple(line for line in value.splitlines() if line.strip())
    return float(value) if isinstance(default, float) and isinstance(value, int) else value
