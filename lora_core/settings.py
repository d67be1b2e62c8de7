"""One declaration per option: `setting(...)` on a job's field feeds command line, hosts, docs and checks.

A job is a frozen dataclass whose fields are plain values (bool, int, float, str, tuples of them, `| None`), nested
frozen dataclasses (a group of settings), or tuples of frozen dataclasses. Names of leaf fields are unique in a job.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from lora_core.errors import ConfigError

T = TypeVar("T")
_KEY = "lora_loom"


@dataclass(frozen=True)
class Declaration:
    """What `setting` was told about one field."""

    label: str
    help: str = ""
    min: float | None = None
    max: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    widget: str = ""
    advanced: bool = False


@dataclass(frozen=True)
class Setting:
    """A leaf option of a job: where it lives (`path`, e.g. ("network", "rank")), its type, default and declaration."""

    path: tuple[str, ...]
    type: Any
    default: Any
    declaration: Declaration

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def group(self) -> str:
        return self.path[0] if len(self.path) > 1 else ""


def setting(
    default: Any = dataclasses.MISSING,
    label: str = "",
    help: str = "",
    *,
    min: float | None = None,
    max: float | None = None,
    step: float | None = None,
    choices: tuple[str, ...] = (),
    widget: str = "",
    advanced: bool = False,
) -> Any:
    """Declare one option. `widget`: "", "file", "folder", "save_folder", "text", "lines", "checkpoint", "lora"."""
    declaration = Declaration(label, help, min, max, step, tuple(choices), widget, advanced)
    return dataclasses.field(default=default, metadata={_KEY: declaration})


def group(cls: type, label: str, help: str = "") -> Any:
    """Declare a nested group of settings with its defaults."""
    return dataclasses.field(default_factory=cls, metadata={_KEY: Declaration(label, help)})


def hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def describe(cls: type, prefix: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """All leaf settings of a job class, in order of declaration. Fields without a declaration are left out."""
    found: list[Setting] = []
    types_of = hints(cls)
    for f in dataclasses.fields(cls):
        kind = types_of[f.name]
        if dataclasses.is_dataclass(kind):
            found += describe(typing.cast(type, kind), (*prefix, f.name))
        elif _KEY in f.metadata:
            default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
            found.append(Setting((*prefix, f.name), kind, default, f.metadata[_KEY]))
    return tuple(found)


def to_json(job: Any) -> Any:
    """A job as plain JSON values."""
    if dataclasses.is_dataclass(job):
        return {f.name: to_json(getattr(job, f.name)) for f in dataclasses.fields(job)}
    if isinstance(job, (tuple, list)):
        return [to_json(item) for item in job]
    if isinstance(job, dict):
        return {key: to_json(value) for key, value in job.items()}
    return job


def groups(cls: type) -> dict[str, Declaration]:
    """The groups of a job class by the name of their field, in order of declaration."""
    kinds = hints(cls)
    found = [f for f in dataclasses.fields(cls) if dataclasses.is_dataclass(kinds[f.name]) and _KEY in f.metadata]
    return {f.name: f.metadata[_KEY] for f in found}


def from_json(cls: type[T], data: Any, where: str = "") -> T:
    """Build a job from JSON values. Raises ConfigError that names every unknown field, missing field and wrong type."""
    faults: list[str] = []
    value = _build(cls, data, where, faults)
    if faults:
        raise ConfigError(faults)
    return typing.cast(T, value)


def _build(cls: type, data: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        faults.append(f"{where or cls.__name__} must be an object with named fields, not {data!r}.")
        return None
    types_of = hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in data.keys() - fields.keys():
        faults.append(f"Unknown setting {where}{name}; known here: {', '.join(sorted(fields))}.")
    values: dict[str, Any] = {}
    for name, f in fields.items():
        if name in data:
            values[name] = _convert(types_of[name], data[name], f"{where}{name}", faults)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            faults.append(f"Setting {where}{name} is missing.")
    return None if faults else cls(**values)


def _convert(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where, faults)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, f"{where}.", faults)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(inner) == len(value):
            return tuple(_convert(k, v, f"{where}[{i}]", faults) for i, (k, v) in enumerate(zip(inner, value)))
    elif kind is Any or origin is dict:
        return value
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    faults.append(f"Setting {where} must be {spell(kind)}, not {value!r}.")
    return None


def spell(kind: Any) -> str:
    """A type in words for a sentence."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if typing.get_origin(kind) is tuple:
        return f"a list (of {spell(typing.get_args(kind)[0])})"
    return words.get(kind, str(kind))


def problems(job: Any) -> list[str]:
    """Every value outside its declared bounds or choices, one sentence each."""
    found: list[str] = []
    for s in describe(type(job)):
        value = job
        for part in s.path:
            value = getattr(value, part)
        found += value_problems(s, value)
    return found


def value_problems(s: Setting, value: Any) -> list[str]:
    """The faults of one value against its declaration."""
    d = s.declaration
    title = d.label or s.name
    numbers = value if isinstance(value, tuple) else (value,)
    found: list[str] = []
    for number in numbers:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if not math.isfinite(number):
                found.append(f"{title} ({s.name}) must be a finite number, not {number}.")
            elif d.min is not None and number < d.min:
                found.append(f"{title} ({s.name}) is {number}; the least allowed is {d.min:g}.")
            elif d.max is not None and number > d.max:
                found.append(f"{title} ({s.name}) is {number}; the most allowed is {d.max:g}.")
    if d.choices and isinstance(value, str) and value not in d.choices:
        found.append(f"{title} ({s.name}) is {value!r}; choose one of: {', '.join(d.choices)}.")
    return found


def leaf_values(job: Any) -> dict[str, Any]:
    """{name: value} of all leaf settings of a job."""
    found: dict[str, Any] = {}
    for s in describe(type(job)):
        found[s.name] = functools.reduce(getattr, s.path, job)
    return found


def replace_by_name(job: T, values: dict[str, Any]) -> T:
    """A copy of the job with leaf settings replaced by their unique names. Raises ConfigError for unknown names."""
    paths = {s.name: s.path for s in describe(type(job))}
    unknown = [name for name in values if name not in paths]
    if unknown:
        raise ConfigError([f"Unknown setting {name}." for name in unknown])
    data = to_json(job)
    for name, value in values.items():
        target = data
        for part in paths[name][:-1]:
            target = target[part]
        target[paths[name][-1]] = to_json(value)
    return from_json(type(job), data)
