"""ComfyUI's widgets from the declarations of a job's settings, and a job's values from the widgets."""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lora_core.errors import ConfigError
from lora_core.settings import Setting, describe

from . import host, places
from .declare import BOOLEAN, COMBO, FLOAT, INT, STRING, Port
from .lists import DEMO, DEMO_BASE, FOLDERS, NONE

AUTO = -1.0
LISTED = {"checkpoint": "checkpoints", "lora": "loras", "vae": "vae"}
SEED_NAMES = ("seed",)


def settings(job: type, group: str | None = None, leave_out: Iterable[str] = ()) -> tuple[Setting, ...]:
    """The declared settings of a job class; `group` "" are those outside of groups."""
    left_out = set(leave_out)
    found = [s for s in _described(job) if s.name not in left_out and (group is None or s.group == group)]
    return tuple(s for s in found if s.declaration.widget != "save_folder")


@functools.cache
def _described(job: type) -> tuple[Setting, ...]:
    return describe(job)


def setting(job: type, name: str) -> Setting:
    """One declared setting by its name."""
    return next(s for s in _described(job) if s.name == name)


def ports(chosen: Iterable[Setting], job: type | None = None) -> tuple[Port, ...]:
    """Widgets of settings; `job`, where a file need not be chosen for each that is chosen from a list."""
    return tuple(port(s, job) for s in chosen)


@functools.cache
def _needed(job: type) -> str:
    """What an empty job asks for: its problems name every setting that must be set."""
    return " ".join(job().problems())


def port(s: Setting, job: type | None = None, **more: Any) -> Port:
    """The widget of a setting; `more` replaces widget options."""
    needed = f"set {s.name}" in _needed(job) if job is not None else s.name == "base"
    kind, options = _widget(s, needed)
    options |= {"advanced": True} if s.declaration.advanced else {}
    return Port(s.name, kind, s.declaration.label, _tooltip(s), options={**options, **more}, listed=_listed(s))


def _listed(s: Setting) -> str:
    return FOLDERS if s.declaration.widget == "folder" else listed_kind(s)


def _tooltip(s: Setting) -> str:
    help = s.declaration.help
    return f"{help} -1 = empty.".strip() if _is_optional(s) and _plain(s) in (int, float) else help


def _widget(s: Setting, needed: bool) -> tuple[str, dict[str, Any]]:
    kind, widget = _plain(s), _listed(s)
    if widget:
        return COMBO, {"options": [] if needed else [NONE]}
    if kind is bool:
        return BOOLEAN, {"default": bool(s.default)}
    if s.declaration.choices:
        return COMBO, {"options": list(s.declaration.choices), "default": s.default}
    if kind in (int, float):
        return _number(s, kind)
    text = lines_of(s.default) if isinstance(s.default, tuple) else s.default or ""
    return STRING, {"default": text, "multiline": s.declaration.widget in ("text", "lines")}


def _number(s: Setting, kind: type) -> tuple[str, dict[str, Any]]:
    d = s.declaration
    low, high = d.min if d.min is not None else -1e6, d.max if d.max is not None else 1e9
    default = s.default
    if _is_optional(s):
        low, default = AUTO, AUTO if s.default is None else s.default
    if kind is int:
        options = {"default": int(default), "min": int(low), "max": int(high), "step": int(d.step or 1)}
        if s.name in SEED_NAMES:
            options["control_after_generate"] = True
        return INT, options
    step = d.step or _step(s.default)
    return FLOAT, {"default": float(default), "min": float(low), "max": float(high), "step": step, "round": step / 100}


def _step(default: float | None) -> float:
    """A tenth of a small default, at most 0.05: learning rates need fine steps."""
    value = abs(default or 0.0)
    return 0.05 if value == 0 or value >= 0.05 else 10.0 ** (math.floor(math.log10(value)) - 1)


def lines_of(values: tuple[Any, ...]) -> str:
    numbers = bool(values) and all(isinstance(v, (int, float)) for v in values)
    return ", ".join(f"{v:g}" for v in values) if numbers else "\n".join(str(v) for v in values)


def listed_kind(s: Setting) -> str:
    """Which of ComfyUI's lists of files a setting is chosen from, or ""."""
    return LISTED.get("vae" if s.name == "vae" else s.declaration.widget, "")


def _plain(s: Setting) -> Any:
    """The setting's type without "or None"."""
    if _is_optional(s):
        return next(kind for kind in typing.get_args(s.type) if kind is not type(None))
    return s.type


def _is_optional(s: Setting) -> bool:
    union = typing.get_origin(s.type) in (types.UnionType, typing.Union)
    return union and type(None) in typing.get_args(s.type)


def values_of(chosen: Iterable[Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Job values by name from the values of widgets; names that were not given are left out. Raises ConfigError."""
    return {s.name: value_of(s, given[s.name]) for s in chosen if s.name in given}


def value_of(s: Setting, value: Any) -> Any:
    """One value of a widget as the setting's type. Raises ConfigError."""
    kind, files = _plain(s), listed_kind(s)
    if files:
        return chosen_file(files, value)
    if s.declaration.widget == "folder":
        return places.picture_folder("" if value == NONE else str(value or ""))
    if typing.get_origin(kind) is tuple:
        return _many(s, typing.get_args(kind)[0], value)
    if _is_optional(s) and (value is None or value == "" or (kind in (int, float) and value < 0)):
        return None
    return {bool: bool, int: int, float: float, str: str}.get(kind, lambda v: v)(value)


def _many(s: Setting, kind: Callable[[str], Any], value: Any) -> tuple[Any, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(value)
    text = str(value or "")
    parts = text.splitlines() if kind is str else text.replace(";", ",").replace("\n", ",").split(",")
    try:
        return tuple(kind(part.strip()) for part in parts if part.strip())
    except ValueError:
        raise ConfigError(
            f"{s.declaration.label} ({s.name}) takes numbers with commas between, not {text!r}."
        ) from None


def chosen_file(kind: str, name: Any) -> str:
    """The path of a file that ComfyUI lists; "" for none. Raises ConfigError for every other name."""
    if name in (None, "", NONE):
        return ""
    if kind == "checkpoints" and name == DEMO_BASE:
        return str(DEMO / "demo_base.safetensors")
    found = host.file_path(kind, str(name))
    if found is None:
        raise ConfigError(
            f"ComfyUI lists no {kind.rstrip('s')} named {str(name)[:200]!r}. Choose one from the list; R refreshes it."
        )
    return str(found)
