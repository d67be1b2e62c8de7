"""What ComfyUI's start needs to know of the nodes, from nodes.json: the jobs are loaded when a node first runs.

`tools/comfyui_texts.py` writes nodes.json from the declarations in `catalog`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from .declare import Context, Node, Out, Port, Result

FILE = Path(__file__).with_name("nodes.json")
WORK = ("run", "fingerprint")


def nodes() -> tuple[Node, ...]:
    """All nodes as recorded; those that run are taken from `catalog`."""
    return tuple(_node(said) for said in json.loads(FILE.read_text("utf-8")))


def _node(said: dict[str, Any]) -> Node:
    id = said["id"]
    drawn = {
        "inputs": tuple(Port(**port) for port in said["inputs"]),
        "outputs": tuple(Out(**out) for out in said["outputs"]),
        "run": functools.partial(_run, id),
        "fingerprint": functools.partial(_fingerprint, id) if said["fingerprint"] else None,
    }
    return Node(**{**said, **drawn})


def _run(id: str, context: Context, values: dict[str, Any]) -> Result:
    from . import catalog

    return catalog.node(id).execute(context, values)


def _fingerprint(id: str, values: dict[str, Any]) -> Any:
    from . import catalog

    told = catalog.node(id).fingerprint
    return told(values) if told else None


def recorded(nodes: tuple[Node, ...]) -> str:
    """The text of nodes.json: one line for each input and output."""
    return "[\n" + ",\n".join(map(_recorded, nodes)) + "\n]\n"


def _recorded(node: Node) -> str:
    parts = {field.name: getattr(node, field.name) for field in dataclasses.fields(node) if field.name not in WORK}
    lines = {"fingerprint": json.dumps(node.fingerprint is not None)}
    for name, value in parts.items():
        many = isinstance(value, tuple)
        lines[name] = _rows(value) if many else json.dumps(value, ensure_ascii=False)
    return "{\n" + ",\n".join(f' "{name}": {text}' for name, text in lines.items()) + "\n}"


def _rows(parts: tuple[Any, ...]) -> str:
    rows = [json.dumps(_said(part), ensure_ascii=False) for part in parts]
    return "[\n  " + ",\n  ".join(rows) + "\n ]" if rows else "[]"


def _said(part: Any) -> dict[str, Any]:
    """The fields of an input or output that are not as by default."""
    found = {}
    for field in dataclasses.fields(part):
        value, factory = getattr(part, field.name), field.default_factory
        default = factory() if factory is not dataclasses.MISSING else field.default
        if value != default:
            found[field.name] = dict(value) if field.name == "options" else value
    return found
