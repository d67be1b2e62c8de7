"""ComfyUI's graphs as they lie in pictures: the API form ("prompt") and the editor's form ("workflow")."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_core.errors import FileError

NODES_AT_MOST = 20_000
SEED = ("seed", "control_after_generate")
# the editor stores a node's widgets by position
WIDGETS: dict[str, tuple[str, ...]] = {
    "CheckpointLoaderSimple": ("ckpt_name",),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    ),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "KSampler": (*SEED, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "control_after_generate", "cfg"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "RandomNoise": ("noise_seed", "control_after_generate"),
    "CFGGuider": ("cfg",),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "RepeatLatentBatch": ("amount",),
    "LoadImage": ("image",),
    "LoadImageMask": ("image", "channel"),
    "ImageScale": ("upscale_method", "width", "height", "crop"),
    "ImageScaleBy": ("upscale_method", "scale_by"),
    "VAEEncodeForInpaint": ("grow_mask_by",),
    "InpaintModelConditioning": ("noise_mask",),
    "ModelSamplingDiscrete": ("sampling", "zsnr"),
    "RescaleCFG": ("multiplier",),
    "SaveImage": ("filename_prefix",),
    "PrimitiveNode": ("value",),
}
MUTED, BYPASSED = 2, 4


@dataclass(frozen=True)
class Link:
    """The output `slot` of node `node`."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """A node: its class, its inputs by name (values, or a Link), and what a person sees of it."""

    id: str
    kind: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kind} (node {self.id})"

    def links(self) -> Iterator[tuple[str, Link]]:
        return ((name, value) for name, value in self.inputs.items() if isinstance(value, Link))


Graph = dict[str, Node]


def graph_of(prompt: str, workflow: str = "") -> Graph:
    """The graph of a picture: its "prompt", or where that is missing its "workflow". Raises FileError."""
    text, form = (prompt, "prompt") if prompt.strip() else (workflow, "workflow")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise FileError(f"The ComfyUI {form} in the picture is damaged: it is not JSON.") from None
    if not isinstance(data, dict):
        raise FileError(f"The ComfyUI {form} in the picture is damaged: it is not an object.")
    graph = from_workflow(data) if isinstance(data.get("nodes"), list) else from_prompt(data)
    if not graph or len(graph) > NODES_AT_MOST:
        raise FileError(f"The ComfyUI {form} in the picture holds {'too many' if graph else 'no'} nodes.")
    return graph


def from_prompt(data: Mapping[str, Any]) -> Graph:
    """{"3": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "seed": 1}}} -> nodes."""
    found: Graph = {}
    for key, node in data.items():
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            inputs = node.get("inputs") if isinstance(node.get("inputs"), dict) else {}
            found[str(key)] = Node(str(key), node["class_type"], {k: _value(v) for k, v in (inputs or {}).items()})
    return found


def _value(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int):
        return Link(str(value[0]), value[1])
    return value


def from_workflow(data: Mapping[str, Any]) -> Graph:
    """The editor's form: nodes with positional widgets, and links [id, from, slot, to, slot, type]."""
    links = {}
    for link in data.get("links") or ():
        if isinstance(link, list) and len(link) >= 5:
            links[link[0]] = Link(str(link[1]), int(link[2]))
        elif isinstance(link, dict):
            links[link.get("id")] = Link(str(link.get("origin_id")), int(link.get("origin_slot") or 0))
    nodes = [n for n in data["nodes"] if isinstance(n, dict) and isinstance(n.get("type"), str)]
    passed = dict(p for n in nodes if n.get("mode") == BYPASSED for p in _bypass(n, links))
    found: Graph = {}
    for node in nodes:
        if node.get("mode") not in (MUTED, BYPASSED):
            key = str(node.get("id"))
            linked = {name: _behind(link, passed) for name, link in _linked(node, links)}
            found[key] = Node(key, node["type"], {**_widgets(node), **linked})
    return found


def _linked(node: Mapping[str, Any], links: Mapping[Any, Link]) -> Iterator[tuple[str, Link]]:
    for slot in node.get("inputs") or ():
        if isinstance(slot, dict) and slot.get("link") in links and slot.get("link") is not None:
            yield str(slot.get("name")), links[slot["link"]]


def _bypass(node: Mapping[str, Any], links: Mapping[Any, Link]) -> Iterator[tuple[Link, Link]]:
    """Each output of a bypassed node -> what comes into its first input of the same type."""
    inputs = [s for s in node.get("inputs") or () if isinstance(s, dict) and s.get("link") in links]
    for place, output in enumerate(node.get("outputs") or ()):
        same = next((s for s in inputs if isinstance(output, dict) and s.get("type") == output.get("type")), None)
        if same:
            yield Link(str(node.get("id")), place), links[same["link"]]


def _behind(link: Link, passed: Mapping[Link, Link]) -> Link:
    for _ in range(len(passed)):
        if link not in passed:
            break
        link = passed[link]
    return link


def _widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return dict(values)
    slots = [slot for slot in node.get("inputs") or () if isinstance(slot, dict)]
    told = tuple(slot["widget"].get("name") for slot in slots if isinstance(slot.get("widget"), dict))
    names = WIDGETS.get(node["type"]) or told
    return dict(zip(names, values)) if isinstance(values, list) else {}
