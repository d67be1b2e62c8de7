"""What a page shows of a job, made from its ticket and its events."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from lora_core.desk_store import MAX_LOSSES, Row, Ticket, thinned
from lora_core.events import Change, Finished, Loss, Note, Preview, Progress, Saved, Stage

MAX_SHOWN = 200


def snapshot(ticket: Ticket, rows: Sequence[Row]) -> dict[str, Any]:
    """JSON values: the ticket's fields, and what the events amount to.

    `stage`, `progress` (done, total, unit or None), `seconds_left`, `losses` [step, loss, average, learning rate] and
    `held_out` [step, loss] (at most 1000 each), `marks` (saves), `previews`, `changes` [step, |dW| / |W|] and
    `blocks` (the last change of each), `notes`, `report`, `last` (event number);
    `files`, and "file" of marks and previews: places in `Desk.files`.
    """
    events = [event for _, event in rows]
    progress = next((event for event in reversed(events) if isinstance(event, (Progress, Stage))), None)
    finished = [event for event in events if isinstance(event, Finished)]
    running = isinstance(progress, Progress)
    place = {path: number for number, path in enumerate(files(ticket, rows))}
    return {
        **dataclasses.asdict(ticket),
        "outputs": list(ticket.outputs),
        "over": ticket.over,
        "last": rows[-1][0] if rows else 0,
        "stage": next((event.title for event in reversed(events) if isinstance(event, Stage)), ""),
        "progress": {"done": progress.done, "total": progress.total, "unit": progress.unit} if running else None,
        "seconds_left": finite(progress.seconds_left) if running and not ticket.over else None,
        **curves([event for event in events if isinstance(event, Loss)]),
        "marks": [{**dataclasses.asdict(e), "file": place[e.path]} for e in events if isinstance(e, Saved)][
            -MAX_SHOWN:
        ],
        "previews": [{**dataclasses.asdict(e), "file": place[e.path]} for e in events if isinstance(e, Preview)][
            -MAX_SHOWN:
        ],
        "files": [{"file": n, "name": os.path.basename(path)} for path, n in place.items()][-MAX_SHOWN:],
        "changes": [[e.step, finite(e.mean)] for e in events if isinstance(e, Change)][-MAX_LOSSES:],
        "blocks": next((finite(dict(e.blocks)) for e in reversed(events) if isinstance(e, Change)), {}),
        "notes": [dataclasses.asdict(e) for e in events if isinstance(e, Note)][-MAX_SHOWN:],
        "report": finite(dict(finished[-1].report)) if finished else {},
    }


class Shown(Protocol):
    """Of a desk what `whole_snapshot` asks."""

    def tickets(self) -> tuple[Ticket, ...]: ...

    def snapshot(self, id: str) -> dict[str, Any]: ...


def whole_snapshot(desk: Shown, id: str) -> dict[str, Any]:
    """A job's snapshot; where it went on from earlier runs, with their curves before its own."""
    return continued(desk.snapshot(id), map(desk.snapshot, earlier(desk.tickets(), id)))


def earlier(tickets: Sequence[Ticket], id: str) -> list[str]:
    """The ids of earlier jobs of the same kind and name, the newest first: a training goes on from the last of them."""
    alike = {t.id: (t.kind, t.title) for t in tickets}
    before = itertools.takewhile(lambda known: known != id, alike)
    return [known for known in before if alike[known] == alike.get(id)][::-1]


def continued(shown: dict[str, Any], earlier: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A snapshot whose curves begin with those of the runs that it went on from; `earlier`: the newest first."""
    curves = {key: shown[key] for key in ("losses", "held_out")}
    for run in earlier:
        first = curves["losses"][0][0] if curves["losses"] else 0
        if first <= 1:
            break
        curves = {key: [p for p in run[key] if p[0] < first] + points for key, points in curves.items()}
    return {**shown, **curves}


def curves(losses: Sequence[Loss]) -> dict[str, list[list[float | None]]]:
    """The points of the two curves; of steps that were done twice, after a fall-back or a resume, the later counts."""
    latest = {loss.step: loss for loss in losses}
    points = [latest[step] for step in sorted(latest)]
    trained = [p for p in points if p.loss is not None or p.average is not None]
    measured = [p for p in points if p.held_out is not None]
    return {
        "losses": [
            [p.step, finite(p.loss), finite(p.average), finite(p.learning_rate)]
            for p in thinned(trained, [p.step for p in trained], MAX_LOSSES)
        ],
        "held_out": [[p.step, finite(p.held_out)] for p in thinned(measured, [p.step for p in measured], MAX_LOSSES)],
    }


def finite(value: Any) -> Any:
    """The value as JSON can say it: numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def files(ticket: Ticket, rows: Sequence[Row]) -> tuple[str, ...]:
    """Every file that the job spoke of, in the order of the first mention; their places in it never change."""
    said = [event.path for _, event in rows if isinstance(event, (Preview, Saved))]
    said += [path for _, event in rows if isinstance(event, Finished) for path in event.outputs]
    return tuple(dict.fromkeys([*said, *ticket.outputs]))
