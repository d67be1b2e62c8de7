"""What pages may ask over HTTP: the state of jobs, their pictures, commands. By job ids, never by paths."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lora_core.errors import LoomError

from . import host

COMMANDS = ("stop", "save", "sample", "pause", "resume")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
ROOT = "/lora_loom/jobs"


def register() -> None:
    host.add_route("get", ROOT, jobs)
    host.add_route("get", ROOT + "/{id}", job)
    host.add_route("get", ROOT + "/{id}/files/{number}", file)
    host.add_route("post", ROOT + "/{id}/{command}", command)


def jobs(_: dict[str, str]) -> Any:
    """Every job known, the newest last, and which node shows which."""
    from .work import JOBS, desk

    nodes = {id: node for node, id in JOBS.items()}
    found = []
    for ticket in desk().tickets():
        values = dataclasses.asdict(ticket) | {"node": nodes.get(ticket.id, ""), "over": ticket.over}
        found.append(values | {"outputs": [Path(path).name for path in ticket.outputs]})
    return {"jobs": found}


def job(parts: dict[str, str]) -> Any:
    """A job as `Desk.snapshot` says, files by number and name; `steps`: of the training, [done, total] or None."""
    from lora_core.desk_view import whole_snapshot
    from lora_core.events import Progress

    from .work import desk

    try:
        found = whole_snapshot(desk(), desk().ticket(parts["id"]).id)
        files = desk().files(parts["id"])
        steps = [e for _, e in desk().events(parts["id"]) if isinstance(e, Progress) and e.unit == "step"]
    except LoomError:
        return None
    found["steps"] = [steps[-1].done, steps[-1].total] if steps else None
    for key in ("marks", "previews"):
        found[key] = [_without_path(item, files) for item in found[key]]
    return found | {"outputs": [Path(path).name for path in found["outputs"]], "report": {}}


def _without_path(item: dict[str, Any], files: tuple[str, ...]) -> dict[str, Any]:
    path = item.pop("path")
    return item | {"file": files.index(path) if path in files else None, "name": Path(path).name}


def file(parts: dict[str, str]) -> Any:
    """A picture that a job made, by its number."""
    from .work import desk

    try:
        found = Path(desk().files(parts["id"])[int(parts["number"])])
    except (LoomError, IndexError):
        return None
    return found if found.suffix.lower() in PICTURES and found.is_file() else None


def command(parts: dict[str, str]) -> Any:
    """Stop, save, sample, pause or resume a running job."""
    from .work import desk

    if parts["command"] not in COMMANDS:
        raise ValueError(f"There is no command {parts['command'][:40]!r}.")
    try:
        getattr(desk(), parts["command"])(parts["id"])
        return {"state": desk().ticket(parts["id"]).state}
    except LoomError as error:
        raise ValueError(str(error)) from None
