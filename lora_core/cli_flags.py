"""Command-line flags from the declarations of a job's settings."""

from __future__ import annotations

import argparse
import types
import typing
from typing import Any

from lora_core.settings import Setting, describe, spell


def add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    """One flag for each leaf setting of a job class, grouped as in the job. A flag that is not given sets nothing."""
    groups: dict[str, Any] = {}
    for s in describe(cls):
        if s.group not in groups:
            groups[s.group] = parser.add_argument_group(group_title(cls, s.group))
        options = flag_options(s)
        groups[s.group].add_argument(flag(s.name), **options)
        if options.get("action") == "store_true":
            groups[s.group].add_argument(negation(s.name), dest=s.name, action="store_false", default=argparse.SUPPRESS)


def group_title(cls: type, group: str) -> str:
    if not group:
        return "settings"
    fields = {f.name: f for f in cls.__dataclass_fields__.values()}  # type: ignore[attr-defined]
    declaration = next(iter(fields[group].metadata.values()), None)
    return (getattr(declaration, "label", "") or group).lower()


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def negation(name: str) -> str:
    """--no-shuffle for shuffle, --upscale for no_upscale."""
    return flag(name.removeprefix("no_") if name.startswith("no_") else f"no_{name}")


def flag_options(s: Setting) -> dict[str, Any]:
    """The arguments of argparse's add_argument for a setting."""
    d = s.declaration
    options: dict[str, Any] = {"dest": s.name, "default": argparse.SUPPRESS, "help": help_text(s)}
    kind, optional = plain_type(s.type)
    if kind is bool:
        return {**options, "action": "store_true"}
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return {**options, "action": "extend", "nargs": "*", "type": converter(inner, False), "metavar": words(inner)}
    if d.choices:
        return {**options, "choices": d.choices}
    return {**options, "type": converter(kind, optional), "metavar": words(kind)}


def plain_type(kind: Any) -> tuple[Any, bool]:
    """The type without "or None", and whether None was allowed."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(a for a in typing.get_args(kind) if a is not type(None)), True
    return kind, False


def words(kind: Any) -> str:
    return {int: "N", float: "X"}.get(kind, "TEXT")


def converter(kind: Any, optional: bool) -> Any:
    """A function from the flag's text to the setting's value."""

    def convert(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {spell(kind)}, not {text!r}") from error

    return convert


def help_text(s: Setting) -> str:
    """Label, help, bounds and default, safe for argparse."""
    d = s.declaration
    bounds = [f"{name} {value:g}" for name, value in (("least", d.min), ("most", d.max)) if value is not None]
    said = f"{d.label}. {d.help}".strip() if d.help else d.label
    default = "" if s.default in ("", (), None) else f"default {s.default}"
    facts = ", ".join(filter(None, [*bounds, default]))
    return (f"{said} [{facts}]" if facts else said).replace("%", "%%")


def given_settings(options: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Only the settings whose flags were given; lists as tuples. The job's class gives the names."""
    names = {s.name for s in describe(cls)}
    found = {name: value for name, value in vars(options).items() if name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
