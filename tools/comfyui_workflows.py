"""Writes example_workflows/*.json: graphs said in a few lines, laid out for ComfyUI's page.

    python tools/comfyui_workflows.py

The inputs of our nodes are those that they declare; ComfyUI's own few nodes are in a table here. To be run again when a
setting was added: the page stores values of widgets by their place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfyui_texts import nodes as declared

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
BASE = "demo_base (demo)"
GAP = 40


@dataclass
class Box:
    """A node of a graph: its class, values of widgets, links (node name, output), where it stands and how large."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    at: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (340, 0)
    title: str = ""


@dataclass
class Graph:
    """`notes`: (text, place, size) of the page's own Note nodes."""

    boxes: dict[str, Box]
    notes: tuple[tuple[str, tuple[int, int], tuple[int, int]], ...] = ()


def dataset(at: tuple[int, int], held_out: str = "held_out (demo)") -> Box:
    return Box("LoraLoomDataset", {"folder": "armin_vicerre (demo)", "held_out": held_out}, at=at)


def train(at: tuple[int, int], **values: Any) -> Box:
    chosen = {"base": BASE, "name": "armin_vicerre", "trigger": "armin_vicerre", "resolution": 128, "seed": 1} | values
    prompts = "armin_vicerre, smile, red shirt, blue background\narmin_vicerre, frown, white shirt, green background"
    chosen = {"preview_prompts": prompts} | chosen
    return Box("LoraLoomTrain", chosen, {"dataset": ("dataset", 0)}, at, (430, 760))


def picture(kind: str, at: tuple[int, int], links: dict[str, tuple[str, int]], **values: Any) -> Box:
    chosen = {"base": BASE, "width": 128, "height": 128, "steps": 20, "seed": 7, "save": "only show"} | values
    return Box(kind, chosen, links, at, (400, 600))


def preview(
    at: tuple[int, int], source: str, output: int = 0, title: str = "", size: tuple[int, int] = (420, 320)
) -> Box:
    return Box("PreviewImage", {}, {"images": (source, output)}, at, size, title)


def said(text: str, at: tuple[int, int] = (0, 0), size: tuple[int, int] = (340, 190)) -> tuple[Any, ...]:
    return text, at, size


def train_and_use() -> Graph:
    prompt = "armin_vicerre, smile, black shirt, white background"
    boxes = {
        "dataset": dataset((0, 260)),
        "train": train((400, 40), total_steps=120),
        "stack": Box("LoraLoomStack", {"lora": ""}, {"lora_name": ("train", 1)}, (880, 40), (340, 190)),
        "with": picture("LoraLoomGenerate", (1350, 40), {"loras": ("stack", 0)}, prompt=prompt, batch_count=3),
        "without": picture("LoraLoomGenerate", (1800, 40), {}, prompt=prompt, batch_count=3),
        "plot": preview((880, 300), "train", 2, "Loss"),
        "previews": preview((880, 680), "train", 3, "Previews"),
    }
    text = (
        "Press Run: a LoRA of the demo's character is trained on the demo's base in a few minutes, also without a "
        "graphics card, and used at once.\n\nFor your own: choose your checkpoint and a folder of ComfyUI's input "
        "folder, set Resolution to 0 (512 for SD 1.x, 1024 for SDXL) and Steps to 0."
    )
    return Graph(boxes, (said(text),))


def compare_epochs() -> Graph:
    prompts = "armin_vicerre, smile, red shirt, blue background"
    choice = {"base": BASE, "lora": "", "prompts": prompts, "width": 128, "height": 128, "strengths": "0.6, 1"}
    links = {"lora_name": ("train", 1), "dataset": ("dataset", 0)}
    boxes = {
        "dataset": dataset((0, 260)),
        "train": train((400, 40), name="armin_epochs", total_steps=100, preview_prompts=prompts),
        "grid": Box("LoraLoomEpochGrid", {**choice, "neutral_prompts": "1boy"}, links, (880, 40), (400, 640)),
        "shown": preview((1330, 40), "grid", 0, "Saves and strengths", (760, 760)),
    }
    text = (
        "The training leaves a save every 25 steps. Epoch Grid draws the prompts with each of them at each strength, "
        "measures them against the held-out pictures, and recommends one save and one strength."
    )
    return Graph(boxes, (said(text),))


def inpaint() -> Graph:
    mask = {"destination": ("black", 0), "source": ("white", 0)}
    prompt = "1boy, solo, frown, blue shirt"
    boxes = {
        "dataset": dataset((0, 260), "none"),
        "picture": Box("LoraLoomDatasetPictures", {"first": 0, "count": 1}, {"dataset": ("dataset", 0)}, (0, 560)),
        "black": Box("SolidMask", {"value": 0.0, "width": 128, "height": 128}, {}, (380, 40), (260, 110)),
        "white": Box("SolidMask", {"value": 1.0, "width": 80, "height": 40}, {}, (380, 200), (260, 110)),
        "mask": Box("MaskComposite", {"x": 24, "y": 88, "operation": "add"}, mask, (380, 360), (260, 150)),
        "inpaint": picture(
            "LoraLoomInpaint",
            (700, 40),
            {"image": ("picture", 0), "mask": ("mask", 0)},
            prompt=prompt,
            width=0,
            height=0,
            denoising_strength=0.9,
            masked_content="fill",
        ),
        "soft": Box("LoraLoomSoftInpaint", {}, {}, (380, 560), (280, 200)),
        "softly": picture(
            "LoraLoomInpaint",
            (1150, 40),
            {"image": ("picture", 0), "mask": ("mask", 0), "options_soft": ("soft", 0)},
            prompt=prompt,
            width=0,
            height=0,
            denoising_strength=0.9,
            mask_blur=8,
        ),
        "before": preview((0, 760), "picture", 0, "Before", (340, 340)),
    }
    text = (
        "Inpainting as in A1111: pixels outside the mask keep their values.\n\nWith your own models: "
        "Inpaint Plan -> KSampler -> VAE Decode -> Inpaint Paste.\nFor your picture: Load Image with its mask editor."
    )
    return Graph(boxes, (said(text),))


def merge_and_inspect() -> Graph:
    prompt = "armin_vicerre, smile, red shirt, green background"
    boxes = {
        "dataset": dataset((0, 260), "none"),
        "one": train((400, 40), name="armin_one", total_steps=60, preview_prompts=prompt),
        "two": train((400, 900), name="armin_two", total_steps=60, seed=2, preview_prompts=prompt),
        "first": Box("LoraLoomStack", {"lora": "", "strength": 0.6}, {"lora_name": ("one", 1)}, (880, 40), (340, 190)),
        "both": Box(
            "LoraLoomStack",
            {"lora": "", "strength": 0.6},
            {"lora_name": ("two", 1), "loras": ("first", 0)},
            (880, 290),
            (340, 190),
        ),
        "merge": Box(
            "LoraLoomMerge",
            {"name": "armin_merged", "method": "svd", "rank": 16, "base": BASE},
            {"loras": ("both", 0)},
            (880, 540),
            (340, 420),
        ),
        "inspect": Box(
            "LoraLoomInspect", {"lora": "", "base": BASE}, {"lora_name": ("merge", 0)}, (1270, 40), (420, 600)
        ),
        "use": Box("LoraLoomStack", {"lora": ""}, {"lora_name": ("merge", 0)}, (1270, 760), (340, 190)),
        "draw": picture("LoraLoomGenerate", (1740, 40), {"loras": ("use", 0)}, prompt=prompt, batch_count=2),
    }
    return Graph(boxes, (said("Two LoRAs become one of rank 16; its report says what is in it and who reads it."),))


def walk_through() -> Graph:
    prompt = "armin_vicerre, smile, black shirt, white background"
    choice = {"base": BASE, "lora": "", "prompts": prompt, "neutral_prompts": "1boy", "width": 128, "height": 128}
    boxes = {
        "dataset": dataset((0, 260)),
        "report": Box(
            "LoraLoomDatasetReport", {"width": 128, "height": 128}, {"dataset": ("dataset", 0)}, (0, 560), (360, 620)
        ),
        "train": train((400, 40), total_steps=160, name="armin_walk"),
        "grid": Box(
            "LoraLoomEpochGrid",
            {**choice, "strengths": "0.7, 1"},
            {"lora_name": ("train", 1), "dataset": ("dataset", 0)},
            (880, 40),
            (400, 640),
        ),
        "shown": preview((880, 820), "grid", 0, "Saves and strengths", (400, 420)),
        "stack": Box(
            "LoraLoomStack", {"lora": ""}, {"lora_name": ("grid", 1), "strength": ("grid", 2)}, (1320, 40), (340, 190)
        ),
        "draw": picture("LoraLoomGenerate", (1700, 40), {"loras": ("stack", 0)}, prompt=prompt, batch_count=3),
        "inspect": Box(
            "LoraLoomInspect", {"lora": "", "base": BASE}, {"lora_name": ("grid", 1)}, (1320, 290), (340, 600)
        ),
    }
    text = (
        "The whole way in one graph: look at the pictures, train armin_vicerre, compare the saves, draw with the "
        "recommended one at the recommended strength, and look into the file."
    )
    return Graph(boxes, (said(text),))


def graphs() -> dict[str, Graph]:
    return {
        "1 Train and use": train_and_use(),
        "2 Compare epochs": compare_epochs(),
        "3 Inpaint as A1111": inpaint(),
        "4 Merge and inspect": merge_and_inspect(),
        "5 Walk-through armin_vicerre": walk_through(),
    }


NATIVE: dict[str, Any] = {
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_name": []},
    "SolidMask": {
        "input": {"required": {"value": ["FLOAT", {}], "width": ["INT", {}], "height": ["INT", {}]}},
        "output": ["MASK"],
        "output_name": ["MASK"],
    },
    "MaskComposite": {
        "input": {
            "required": {
                "destination": ["MASK"],
                "source": ["MASK"],
                "x": ["INT", {}],
                "y": ["INT", {}],
                "operation": ["COMBO", {"options": ["multiply", "add"]}],
            }
        },
        "output": ["MASK"],
        "output_name": ["MASK"],
    },
}  # fmt: skip


def infos_of_nodes() -> dict[str, Any]:
    """What ComfyUI's /object_info says of the nodes that the graphs use."""
    found = dict(NATIVE)
    for made, ports in declared():
        inputs: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        for port in ports:
            inputs["optional" if port.optional else "required"][port.name] = [port.type, dict(port.options)]
        names = [out.label for out in made.outputs]
        found[made.id] = {"input": inputs, "output": [out.type for out in made.outputs], "output_name": names}
    return found


def inputs_of(info: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, type, options) of each input in the page's order; lists of choices count as COMBO."""
    found = []
    for part in ("required", "optional"):
        for name, said in info["input"].get(part, {}).items():
            kind, options = said[0], dict(said[1]) if len(said) > 1 else {}
            if isinstance(kind, list):
                kind, options = "COMBO", {**options, "options": kind}
            found.append((name, kind, options))
    return found


def is_widget(kind: str, options: dict[str, Any]) -> bool:
    return kind in WIDGETS and not options.get("forceInput")


def default(kind: str, options: dict[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    return {"COMBO": next(iter(options.get("options") or [""]), ""), "BOOLEAN": False, "STRING": ""}.get(kind, 0)


def widget_values(box: Box, info: dict[str, Any]) -> list[Any]:
    """In the page's order; a seed is followed by what happens to it after each run."""
    values: list[Any] = []
    for name, kind, options in inputs_of(info):
        if is_widget(kind, options):
            values.append(box.values.get(name, default(kind, options)))
            if options.get("control_after_generate"):
                values.append("fixed")
    return values


def workflow(graph: Graph, infos: dict[str, Any]) -> dict[str, Any]:
    """The graph in the page's format."""
    numbers = {name: n for n, name in enumerate(graph.boxes, 1)}
    links: list[list[Any]] = []
    nodes = [node(name, box, numbers, infos, links) for name, box in graph.boxes.items()]
    for number, source, output, target, place, _ in links:
        nodes[source - 1]["outputs"][output]["links"].append(number)
        nodes[target - 1]["inputs"][place]["link"] = number
    for text, at, size in graph.notes:
        nodes.append(note(len(nodes) + 1, text, at, size))
    return {"last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links, "groups": [],
            "config": {}, "extra": {"ds": {"scale": 0.7, "offset": [60, 60]}}, "version": 0.4}  # fmt: skip


def node(name: str, box: Box, numbers: dict[str, int], infos: dict[str, Any], links: list[list[Any]]) -> dict[str, Any]:
    info = infos[box.kind]
    every = inputs_of(info)
    shown = [(n, kind, o) for n, kind, o in every if not is_widget(kind, o) or n in box.links]
    sockets = [socket(*one) for one in shown]
    for place, (input_name, kind, _) in enumerate(shown):
        if input_name in box.links:
            source, output = box.links[input_name]
            links.append([len(links) + 1, numbers[source], output, numbers[name], place, kind])
    outputs = [{"name": label, "type": kind, "links": []} for label, kind in zip(info["output_name"], info["output"])]
    found = {
        "id": numbers[name], "type": box.kind, "pos": list(box.at), "size": [box.size[0], box.size[1] or 120],
        "flags": {}, "order": numbers[name] - 1, "mode": 0, "inputs": sockets, "outputs": outputs,
        "properties": {"Node name for S&R": box.kind}, "widgets_values": widget_values(box, info),
    }  # fmt: skip
    return {**found, "title": box.title} if box.title else found


def socket(name: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    found = {"name": name, "type": kind, "link": None}
    return {**found, "widget": {"name": name}} if is_widget(kind, options) else found


def note(number: int, text: str, at: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": number, "type": "Note", "pos": list(at), "size": list(size), "flags": {}, "order": number - 1, "mode": 0,
        "inputs": [], "outputs": [], "properties": {}, "widgets_values": [text], "color": "#432", "bgcolor": "#653",
    }  # fmt: skip


def files() -> dict[Path, str]:
    """Every workflow with its text."""
    infos = infos_of_nodes()
    return {FOLDER / f"{n}.json": json.dumps(workflow(g, infos), indent=1) + "\n" for n, g in graphs().items()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
