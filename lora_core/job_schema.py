"""The settings of a job in words of JSON: rows for a form, and JSON Schema."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from lora_core.settings import Setting, describe, hints, to_json

PLAIN: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def rows(cls: type) -> list[dict[str, Any]]:
    """One row a setting, in order: its name, its place in the job's JSON, type, default and declaration."""
    return [row(setting) for setting in describe(cls)]


def row(setting: Setting) -> dict[str, Any]:
    declaration = {k: v for k, v in dataclasses.asdict(setting.declaration).items() if v not in (None, "", (), False)}
    return {
        "name": setting.name,
        "path": list(setting.path),
        "schema": schema_of(setting.type),
        "default": None if setting.default is dataclasses.MISSING else to_json(setting.default),
        **{k: list(v) if isinstance(v, tuple) else v for k, v in declaration.items()},
    }


def job_schema(cls: type) -> dict[str, Any]:
    """JSON Schema of a job class, as `settings.from_json` reads it: no unknown fields, defaults for missing ones."""
    fields: dict[str, Any] = {}
    required = []
    types_of = hints(cls)
    declared = {s.path[-1]: s for s in describe(cls) if len(s.path) == 1}
    for f in dataclasses.fields(cls):
        fields[f.name] = schema_of(types_of[f.name])
        if f.name in declared:
            refine(fields[f.name], declared[f.name])
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            required.append(f.name)
        elif f.default is not dataclasses.MISSING:
            fields[f.name]["default"] = to_json(f.default)
    schema = {"type": "object", "additionalProperties": False, "properties": fields}
    about = (cls.__doc__ or "").strip().partition("\n")[0]
    return {**schema, **({"required": required} if required else {}), **({"description": about} if about else {})}


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a type, without bounds."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        inner = schema_of(next(a for a in args if a is not type(None)))
        return {**inner, "nullable": True}
    if dataclasses.is_dataclass(kind):
        return job_schema(typing.cast(type, kind))
    if origin is tuple:
        several = {"type": "array", "items": schema_of(args[0])}
        fixed = None if args[-1] is Ellipsis else len(args)
        return several if fixed is None else {**several, "minItems": fixed, "maxItems": fixed}
    return {"type": PLAIN[kind]} if kind in PLAIN else {"type": "object"} if origin is dict else {}


def refine(schema: dict[str, Any], setting: Setting) -> None:
    """Label, help, bounds and choices; those of a list hold for its items."""
    d = setting.declaration
    schema["title"] = d.label or setting.name
    if d.help:
        schema["description"] = d.help
    inner = schema.get("items", schema)
    bounds = {"minimum": d.min, "maximum": d.max}
    inner.update({k: int(v) if v == int(v) else v for k, v in bounds.items() if v is not None})
    if d.choices:
        inner["enum"] = list(d.choices)
