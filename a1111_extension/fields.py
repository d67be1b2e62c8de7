"""From a setting's declaration to a widget in plain data, and values back and forth. Knows no gradio."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_core.errors import ConfigError
from lora_core.settings import Setting, spell

EXACT_IN_A_BROWSER = 2**53
SLIDER_STOPS = 1100
FILES = ("checkpoint", "lora")


@dataclass(frozen=True)
class Widget:
    """`kind`: "checkbox", "slider", "number", "text", "radio", "dropdown", "checkpoint" or "lora"."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


def bare(kind: Any) -> tuple[Any, bool]:
    """(type, may be empty): int | None -> (int, True)."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(a for a in typing.get_args(kind) if a is not type(None)), True
    return kind, False


def widget_of(s: Setting) -> Widget:
    """The widget for a setting."""
    kind, empty = bare(s.type)
    d = s.declaration
    if kind is bool:
        return Widget("checkbox")
    if d.choices:
        few = len(d.choices) <= 4 and sum(map(len, d.choices)) <= 40
        return Widget("radio" if few else "dropdown", {"choices": list(d.choices)})
    if d.widget in FILES:
        return Widget(d.widget)
    if typing.get_origin(kind) is tuple or empty or (kind is int and (d.max or 0) > EXACT_IN_A_BROWSER):
        return Widget("text", {"lines": 3 if d.widget == "lines" else 1})
    if kind in (int, float):
        return number(s, kind)
    return Widget("text", {"lines": 3 if d.widget == "text" else 1})


def number(s: Setting, kind: type) -> Widget:
    """A slider where its stops are few enough to hit, else a number field."""
    d = s.declaration
    field = Widget("number", {"precision": 0} if kind is int else {})
    if d.min is None or d.max is None:
        return field
    step = d.step or (1 if kind is int else 0.01)
    stops = (d.max - d.min) / step
    too_fine = kind is float and not d.step and (d.max - d.min > 2 or abs(stops - round(stops)) > 1e-6)
    if stops > SLIDER_STOPS or too_fine:
        return field
    return Widget("slider", {"minimum": d.min, "maximum": d.max, "step": step})


def to_page(s: Setting, value: Any) -> Any:
    """A job's value as its widget shows it."""
    kind = widget_of(s).kind
    if kind != "text":
        return value
    if isinstance(value, tuple):
        return ("\n" if s.declaration.widget == "lines" else ", ").join(_spelled(item) for item in value)
    return "" if value is None else _spelled(value)


def _spelled(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def from_page(s: Setting, value: Any) -> Any:
    """A widget's value as the job wants it. Raises ConfigError with a sentence that names the setting."""
    kind, empty = bare(s.type)
    if typing.get_origin(kind) is tuple:
        text = str(value or "")
        parts = text.splitlines() if s.declaration.widget == "lines" else text.split(",")
        inner = typing.get_args(kind)[0]
        return tuple(_number(s, part, inner) for part in map(str.strip, parts) if part)
    if value is None or (isinstance(value, str) and not value.strip() and kind is not str):
        if empty:
            return None
        value = "" if kind is str else s.default
    if kind is bool:
        return bool(value)
    return _number(s, value, kind) if kind in (int, float) else str(value) if value or not empty else None


def _number(s: Setting, value: Any, kind: type) -> Any:
    if kind is str:
        return str(value)
    try:
        number = float(value)
        if kind is float and math.isfinite(number):
            return number
        if number == int(number):
            return int(str(value).strip()) if isinstance(value, str) else int(value)
    except (ValueError, TypeError, OverflowError):
        pass
    raise ConfigError(f"{s.declaration.label or s.name} ({s.name}) must be {spell(kind)}, not {value!r}.")
