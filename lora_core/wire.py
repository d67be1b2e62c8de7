"""The lines between a host and its child process: JSON, one value a line, ASCII only, so no console can break it.

To the child: {"job": kind, "settings": {...}}, then {"command": name}. From the child: events (`event_to_json`),
{"error": class, "text": sentence, "problems": [...]}, and {"ended": true} after the last line of a job;
{"released": true} when it has dropped what it kept loaded.
"""

from __future__ import annotations

import json
from typing import Any

from lora_core.errors import BY_NAME, ConfigError, LoomError, WorkerCrashed
from lora_core.run import RUNNERS, kind_of
from lora_core.settings import from_json, to_json

ENDED = {"ended": True}
RELEASED = {"released": True}


def encode(value: dict[str, Any]) -> bytes:
    """One line, ending in a newline. Numbers of other libraries and paths become plain numbers and texts."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=plain).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Inverse of `encode`. Raises ValueError for anything that is not a JSON object."""
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"Not a message: {line[:80]!r}")
    return value


def plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def job_to_wire(job: Any) -> dict[str, Any]:
    return {"job": kind_of(job), "settings": to_json(job)}


def job_from_wire(message: dict[str, Any]) -> Any:
    """Inverse of `job_to_wire`. Raises ConfigError for an unknown kind or wrong settings."""
    kind = message["job"]
    if kind not in RUNNERS:
        raise ConfigError(f"Unknown kind of job {kind!r}; known: {', '.join(sorted(RUNNERS))}.")
    return from_json(RUNNERS[kind].job, message["settings"])


def error_to_wire(error: LoomError) -> dict[str, Any]:
    known = next((cls.__name__ for cls in type(error).__mro__ if BY_NAME.get(cls.__name__) is cls), "LoomError")
    return {"error": known, "text": str(error), "problems": getattr(error, "problems", None)}


def error_from_wire(message: dict[str, Any]) -> LoomError:
    cls = BY_NAME.get(message["error"], WorkerCrashed)
    return ConfigError(message["problems"]) if cls is ConfigError else cls(message["text"])
