"""Walks up the chains of a ComfyUI graph: models with their LoRAs, text encoders, prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_core.comfyui_graph import Graph, Link, Node

DEPTH = 500
TEXTS = ("text", "string", "value", "prompt", "Text", "text_positive")
NUMBERS = ("value", "int", "float", "seed", "noise_seed", "number", "Number", "Value")


@dataclass(frozen=True)
class LoraInGraph:
    """A LoRA of a loader: its file name, and its strengths on the UNet and on the text encoder."""

    node: str
    name: str
    strength: float
    text_encoder_strength: float


@dataclass(frozen=True)
class ModelChain:
    """From a sampler's model up to the checkpoint; LoRAs in the order in which they are applied."""

    checkpoint: str = ""
    loras: tuple[LoraInGraph, ...] = ()
    nodes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


class Chains:
    """A graph and the sentences about what in it has no counterpart."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def node(self, link: Any) -> Node | None:
        return self.graph.get(link.node) if isinstance(link, Link) else None

    def scalar(self, value: Any, names: tuple[str, ...] = NUMBERS) -> Any:
        """A plain value, also one that comes from a primitive node; None where it is computed."""
        for _ in range(DEPTH):
            node = self.node(value)
            if node is None:
                return None if isinstance(value, Link) else value
            value = next((node.inputs[name] for name in names if name in node.inputs), None)
        return None

    def text(self, value: Any) -> str:
        """A prompt's text, also one that other nodes hand over or join."""
        node = self.node(value)
        if node is not None and "string_a" in node.inputs:
            between = str(self.scalar(node.inputs.get("delimiter", ""), TEXTS) or "")
            return between.join(self.text(node.inputs.get(name, "")) for name in ("string_a", "string_b"))
        found = self.scalar(value, TEXTS)
        if not isinstance(found, str):
            self.note(f"A prompt is made by {node.name if node else 'a missing node'}, whose text is not in the graph.")
        return found if isinstance(found, str) else ""

    def up(self, link: Any, step: Callable[[Node, Link], Any]) -> None:
        """Go up from a link: `step` gives the next link, or anything else to end."""
        for _ in range(DEPTH):
            node = self.node(link)
            if node is None:
                return
            link = step(node, link)

    def model(self, link: Any) -> ModelChain:
        chain = ModelChain()

        def step(node: Node, _: Link) -> Any:
            nonlocal chain
            settings = _model_settings(node)
            loras = tuple(_loras(node))
            if not (loras or settings or self._checkpoint(node)) and "model" in node.inputs:
                self.note(f"{node.name} changes the model; it has no counterpart here.")
            chain = ModelChain(
                self._checkpoint(node) or chain.checkpoint,
                (*loras, *chain.loras),
                (*chain.nodes, node.id),
                {**settings, **chain.settings},
            )
            return node.inputs.get("model", node.inputs.get("MODEL"))

        self.up(link, step)
        return chain

    def _checkpoint(self, node: Node) -> str:
        for name in ("ckpt_name", "unet_name", "base_ckpt_name", "model_path"):
            found = self.scalar(node.inputs.get(name))
            if isinstance(found, str):
                return found
        return ""

    def clip(self, link: Any) -> tuple[int, tuple[LoraInGraph, ...]]:
        """Clip skip, and the LoRAs that the text encoder gets."""
        skip, loras = 1, ()

        def step(node: Node, _: Link) -> Any:
            nonlocal skip, loras
            loras = (*_loras(node), *loras)
            layer = self.scalar(node.inputs.get("stop_at_clip_layer"))
            skip = -int(layer) if isinstance(layer, (int, float)) and skip == 1 else skip
            return node.inputs.get("clip")

        self.up(link, step)
        return skip, loras

    def prompt(self, link: Any) -> tuple[str, Any]:
        """The text of a conditioning and the link to its text encoder."""
        found: tuple[str, Any] = ("", None)

        def step(node: Node, came: Link) -> Any:
            nonlocal found
            texts = [name for name in ("text", "text_g", "text_l", "prompt") if name in node.inputs]
            if texts and "conditioning" not in node.inputs:
                found = (self._encoded(node, texts), node.inputs.get("clip"))
                return None
            return self._conditioning(node, came)

        self.up(link, step)
        return found

    def _encoded(self, node: Node, names: list[str]) -> str:
        texts = [self.text(node.inputs[name]) for name in names]
        if len(set(texts)) > 1:
            self.note(f"{node.name} has two texts; the second is left out: {texts[1]}")
        sizes = [self.scalar(node.inputs.get(name)) for name in ("width", "height", "target_width", "target_height")]
        crops = [self.scalar(node.inputs.get(name)) for name in ("crop_w", "crop_h")]
        if sizes[:2] != sizes[2:] or any(crops):
            self.note(f"{node.name} tells the model other sizes than the picture's; here it hears the picture's.")
        return texts[0]

    def _conditioning(self, node: Node, came: Link) -> Any:
        """The conditioning that goes into a node that changes one."""
        if node.kind in ("InpaintModelConditioning", "ControlNetApplyAdvanced"):
            name = "negative" if came.slot == 1 else "positive"
        else:
            name = next((n for n, _ in node.links() if "cond" in n.lower()), "")
        if node.kind == "ConditioningZeroOut":
            self.note(f"{node.name} empties a conditioning; here the prompt counts as it is.")
        elif node.kind != "InpaintModelConditioning":
            self.note(f"{node.name} changes a conditioning; it has no counterpart here.")
        return node.inputs.get(name)


def _model_settings(node: Node) -> dict[str, Any]:
    if node.kind == "ModelSamplingDiscrete":
        prediction = {"eps": "epsilon", "v_prediction": "v"}.get(str(node.inputs.get("sampling")))
        zsnr = "on" if node.inputs.get("zsnr") is True else "off"
        return {"prediction": prediction, "zero_terminal_snr": zsnr} if prediction else {}
    multiplier = node.inputs.get("multiplier")
    if node.kind == "RescaleCFG" and isinstance(multiplier, (int, float)):
        return {"cfg_rescale": float(multiplier)}
    return {}


def _loras(node: Node) -> list[LoraInGraph]:
    """The LoRAs of a loader node; also loaders that hold several as {"on": true, "lora": ..., "strength": ...}."""
    name = node.inputs.get("lora_name")
    if isinstance(name, str):
        strength = _number(node.inputs.get("strength_model"), 1.0)
        text = 0.0 if node.kind.endswith("ModelOnly") else _number(node.inputs.get("strength_clip"), strength)
        return [LoraInGraph(node.id, name, strength, text)]
    rows = [value for value in node.inputs.values() if isinstance(value, dict) and isinstance(value.get("lora"), str)]
    found = []
    for row in rows:
        strength = _number(row.get("strength"), 1.0)
        text = _number(row.get("strengthTwo"), strength)
        if row.get("on", True):
            found.append(LoraInGraph(f"{node.id} {row['lora']}", row["lora"], strength, text))
    return found


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default
