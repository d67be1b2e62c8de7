"""Writes comfy_nodes/nodes.json, locales/*/nodeDefs.json and web/docs/*.md from the nodes' declarations.

    python tools/comfyui_texts.py

Introductions are the files of tools/comfyui_introductions, words the lines of tools/comfyui_words.tsv (English,
Chinese, Japanese).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hosts")]

import fake_comfy  # noqa: E402

WORDS, INTRODUCTIONS = ROOT / "tools" / "comfyui_words.tsv", ROOT / "tools" / "comfyui_introductions"
LANGUAGES = ("en", "zh", "ja")
CATEGORIES = {
    "LoRA Loom": ("LoRA Loom", "LoRA Loom"),
    "Training": ("训练", "学習"),
    "Options": ("选项", "オプション"),
    "Use": ("使用", "利用"),
    "Pictures": ("图片", "画像"),
    "Tools": ("工具", "ツール"),
}


def words() -> dict[str, tuple[str, str]]:
    lines = WORDS.read_text("utf-8").splitlines()
    return {english: (chinese, japanese) for english, chinese, japanese in (line.split("\t") for line in lines)}


def part(comfy: fake_comfy.Comfy, name: str) -> Any:
    """A module of the pack, loaded in a stand-in for ComfyUI that lists no files."""
    pack = fake_comfy.load_pack(comfy.base).__name__
    importlib.import_module(f"{pack}.comfy_nodes").nodes()
    return importlib.import_module(f"{pack}.comfy_nodes.{name}")


def nodes() -> tuple[Any, ...]:
    """The pack's nodes, each with its inputs."""
    with stand_in() as comfy:
        choices = part(comfy, "lists").with_choices
        found = part(comfy, "catalog").NODES
        return tuple((node, tuple(replace(p, options=choices(p)) for p in node.inputs)) for node in found)


@contextlib.contextmanager
def stand_in() -> Iterator[fake_comfy.Comfy]:
    with tempfile.TemporaryDirectory() as folder, fake_comfy.running(Path(folder)) as comfy:
        yield comfy


def menu() -> str:
    """nodes.json, from which ComfyUI's start knows the nodes."""
    with stand_in() as comfy:
        return part(comfy, "menu").recorded(part(comfy, "catalog").NODES)


def definitions(language: str) -> dict[str, Any]:
    """nodeDefs.json: titles, labels and tooltips; what has no word in the language stays out, and English shows."""
    known, place = words(), LANGUAGES.index(language) - 1

    def said(text: str) -> str:
        return text if language == "en" else known.get(text, ("", ""))[place]

    found: dict[str, Any] = {}
    for node, ports in nodes():
        inputs = {p.name: kept(name=said(p.label or p.name), tooltip=said(p.help)) for p in ports}
        outputs = {str(n): kept(name=said(o.label), tooltip=said(o.help)) for n, o in enumerate(node.outputs)}
        told = kept(display_name=said(node.title), description=said(node.help))
        found[node.id] = {**told, "inputs": filled(inputs), "outputs": filled(outputs)}
    return found


def kept(**texts: str) -> dict[str, str]:
    return {key: text for key, text in texts.items() if text}


def filled(parts: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {name: part for name, part in parts.items() if part}


def page(node: Any, ports: tuple[Any, ...]) -> str:
    """The help page of a node in Markdown."""
    introduction = INTRODUCTIONS / f"{node.id.removeprefix('LoraLoom')}.md"
    lines = [f"# {node.title}", "", introduction.read_text("utf-8").strip() if introduction.exists() else node.help, ""]
    for title, chosen in (
        ("Inputs", [p for p in ports if not p.options.get("advanced")]),
        ("More options", [p for p in ports if p.options.get("advanced")]),
    ):
        if chosen:
            lines += [f"## {title}", "", "| input | default | what it does |", "|---|---|---|", *map(row, chosen), ""]
    if node.outputs:
        lines += ["## Outputs", "", "| output | |", "|---|---|"]
        lines += [f"| {o.label} | {cell(o.help) or o.type} |" for o in node.outputs]
    return "\n".join(lines).rstrip() + "\n"


def row(port: Any) -> str:
    o = port.options
    default = o.get("default", "")
    bounds = f" {o['min']} to {o['max']}." if "min" in o and "max" in o and o["max"] < 1e9 else ""
    choices = f" One of: {', '.join(o['options'])}." if o.get("options") and "default" in o else ""
    label = f"{port.label or port.name} (`{port.name}`)" + (" — optional" if port.optional else "")
    return f"| {label} | {cell(str(default))} | {cell(port.help + bounds + choices)} |"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def files() -> dict[Path, str]:
    """Every file that this script writes, with its text."""
    found = {ROOT / "comfy_nodes" / "nodes.json": menu()}
    for number, language in enumerate(LANGUAGES):
        data = json.dumps(definitions(language), indent=1, ensure_ascii=False) + "\n"
        found[ROOT / "locales" / language / "nodeDefs.json"] = data
        names = {english: english if number == 0 else CATEGORIES[english][number - 1] for english in CATEGORIES}
        found[ROOT / "locales" / language / "main.json"] = (
            json.dumps({"nodeCategories": names}, indent=1, ensure_ascii=False) + "\n"
        )
    found |= {ROOT / "web" / "docs" / f"{node.id}.md": page(node, ports) for node, ports in nodes()}
    return found


def main() -> None:
    for path, text in files().items():
        write(path, text)


if __name__ == "__main__":
    main()
