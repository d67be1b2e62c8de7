"""What the tables of kohya's options are made of: rows, conversions of values, and the notes for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lora_core.errors import ConfigError

How = Literal["done", "differently", "not needed", "not supported"]


@dataclass(frozen=True)
class Option:
    """`default` is sd-scripts' own, `settings` are those of TrainJob, `convert` is for an option with one of them."""

    name: str
    default: Any
    how: How
    settings: tuple[str, ...] = ()
    convert: Callable[[Any], Any] | None = None
    sentence: str = ""

    def used(self, value: Any) -> bool:
        """True when a value asks for something: neither the default nor off."""
        off = (None, False, "", "no", "None", "0", "0.0", "False", "false")
        return value != [] and value not in off and not equal(value, self.default)


def equal(value: Any, other: Any) -> bool:
    """Equal as numbers where both can be read as such ("1" and 1.0), else as they are."""
    try:
        return float(value) == float(other)
    except (TypeError, ValueError):
        return value == other


def whole(value: Any) -> int:
    """A whole number, also from texts and floats without a fraction. Raises ValueError."""
    number = float(value or 0)
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def number(value: Any) -> float:
    return float(value or 0)


def text(value: Any) -> str:
    return "" if value in (None, False) else str(value)


def truth(value: Any) -> bool:
    """True or false, also as text. Raises ValueError."""
    if isinstance(value, str) and value.strip().lower() not in ("true", "false", "1", "0", ""):
        raise ValueError(f"{value!r} is neither true nor false")
    return value.strip().lower() in ("true", "1") if isinstance(value, str) else bool(value)


def same(name: str, default: Any, setting: str, convert: Callable[[Any], Any]) -> Option:
    return Option(name, default, "done", (setting,), convert)


def rule(name: str, default: Any, *settings: str, sentence: str = "") -> Option:
    """An option that a rule of kohya_config translates, alone or together with others."""
    return Option(name, default, "done", settings, None, sentence)


def other(name: str, default: Any, sentence: str, *settings: str) -> Option:
    return Option(name, default, "differently", settings, None, sentence)


def spare(name: str, default: Any, sentence: str) -> Option:
    return Option(name, default, "not needed", (), None, sentence)


def refuse(name: str, default: Any, sentence: str) -> Option:
    return Option(name, default, "not supported", (), None, sentence)


SECRETS = ("wandb_api_key", "huggingface_token")


@dataclass
class Notes:
    """Sentences for a person, in the order in which they were found; faults that forbid the job are kept apart."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unneeded: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def say(self, name: str, value: Any, sentence: str, how: str = "") -> None:
        """`name = value (how): sentence`, once; what is not needed or not known is told together at the end."""
        together = {"not needed": self.unneeded, "unknown": self.unknown}.get(how)
        if together is not None:
            together += [name] if name not in together else []
            return
        shown = "..." if name in SECRETS else repr(value)
        line = f"{name} = {shown}{f' ({how})' if how else ''}: {sentence}"
        if line not in self.lines:
            self.lines.append(line)

    def convert(self, name: str, value: Any, conversion: Callable[[Any], Any]) -> Any:
        """The converted value, or a fault and None."""
        try:
            return conversion(value)
        except (TypeError, ValueError):
            kinds = {"whole": "a whole number", "number": "a number", "truth": "true or false"}
            self.faults.append(f"{name} must be {kinds.get(conversion.__name__, 'another value')}, not {value!r}.")
            return None

    def told(self) -> list[str]:
        """All sentences."""
        groups = (
            ("Not known here and left out", self.unknown),
            ("Of other model families, without effect here", self.foreign),
            ("Not needed here, the result is the same without", self.unneeded),
        )
        return self.lines + [f"{title}: {', '.join(names)}." for title, names in groups if names]

    def raise_faults(self) -> None:
        """Raise ConfigError when there are faults."""
        if self.faults:
            raise ConfigError(self.faults)
