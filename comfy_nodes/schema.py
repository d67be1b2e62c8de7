"""Our nodes as ComfyUI's classes, of the API v3 or of the old kind; its own parts come as arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .declare import (
    BOOLEAN,
    COMBO,
    FLOAT,
    INT,
    SAMPLER_NAME,
    SCHEDULER_NAME,
    STRING,
    Context,
    Node,
    Out,
    Port,
)
from .lists import with_choices

WIDGETS = (BOOLEAN, COMBO, FLOAT, INT, STRING)
Lists = Callable[[], dict[str, list[str]]]


def v3(nodes: tuple[Node, ...], io: Any, lists: Lists) -> list[type]:
    """The nodes as classes of ComfyUI's API v3, whose own classes are in `io`."""
    custom = functools.cache(io.Custom)
    return [_v3(node, io, custom, lists) for node in nodes]


def _v3(node: Node, io: Any, custom: Callable[[str], Any], lists: Lists) -> type:

    def define_schema(cls: Any) -> Any:
        return io.Schema(
            node_id=node.id,
            display_name=node.title,
            category=node.category,
            description=node.help,
            inputs=[_v3_input(custom, port) for port in node.inputs],
            outputs=[_v3_output(io, custom, f"out_{n}", out, lists) for n, out in enumerate(node.outputs)],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=node.shows,
            is_input_list=node.as_lists,
        )

    def execute(cls: Any, **values: Any) -> Any:
        hidden = cls.hidden
        result = node.execute(Context(str(hidden.unique_id or ""), hidden.prompt, hidden.extra_pnginfo), values)
        return io.NodeOutput(*result.values, ui=dict(result.ui) if result.ui else None)

    body: dict[str, Any] = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    if node.fingerprint:
        told = node.fingerprint
        body["fingerprint_inputs"] = classmethod(lambda cls, **values: told(values))
    return type(node.id, (io.ComfyNode,), body)


def _v3_input(custom: Callable[[str], Any], port: Port) -> Any:
    said = (port.name, port.label or None, port.optional, port.help or None)
    if port.type not in WIDGETS:
        return custom(port.type).Input(*said)
    return custom(port.type).Input(*said, extra_dict=with_choices(port))


def _v3_output(io: Any, custom: Callable[[str], Any], name: str, out: Out, lists: Lists) -> Any:
    kind = _type(out, lists)
    if isinstance(kind, list):
        return io.Combo.Output(name, out.label, kind, out.help, out.many)
    return custom(kind).Output(name, out.label, out.help, out.many)


def _type(out: Out, lists: Lists) -> Any:
    """An output's type; names of samplers have the type of the list that ComfyUI's samplers choose from."""
    return lists()[out.type] if out.type in (SAMPLER_NAME, SCHEDULER_NAME) else out.type


def v1(node: Node, lists: Lists) -> type:
    """The node as a class for hosts that only know NODE_CLASS_MAPPINGS."""

    def input_types(cls: Any) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        for port in node.inputs:
            options = with_choices(port) | ({"tooltip": port.help} if port.help else {})
            kind = options.pop("options") if port.type == COMBO else port.type
            found["optional" if port.optional else "required"][port.name] = (kind, options)
        found["hidden"] = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return found

    def execute(self: Any, **values: Any) -> Any:
        hidden = [values.pop(name, None) for name in ("unique_id", "prompt", "extra_pnginfo")]
        result = node.execute(Context(str(hidden[0] or ""), hidden[1], hidden[2]), values)
        return {"ui": dict(result.ui), "result": result.values} if result.ui else result.values

    body: dict[str, Any] = {
        "INPUT_TYPES": classmethod(input_types),
        "RETURN_TYPES": tuple(_type(out, lists) for out in node.outputs),
        "RETURN_NAMES": tuple(out.label for out in node.outputs),
        "OUTPUT_TOOLTIPS": tuple(out.help for out in node.outputs),
        "OUTPUT_IS_LIST": tuple(out.many for out in node.outputs),
        "OUTPUT_NODE": node.shows,
        "INPUT_IS_LIST": node.as_lists,
        "FUNCTION": "execute",
        "CATEGORY": node.category,
        "DESCRIPTION": node.help,
        "execute": execute,
    }
    if node.fingerprint:
        told = node.fingerprint
        body["IS_CHANGED"] = classmethod(lambda cls, **values: told(values))
    return type(node.id, (), body)
