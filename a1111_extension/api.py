"""The REST API below /lora-loom/v1: jobs of every kind as the command line has them, and what they say."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router

from lora_core.desk import Desk
from lora_core.desk_view import finite, whole_snapshot
from lora_core.errors import ConfigError, LoomError
from lora_core.events import Finished, event_to_json
from lora_core.run import RUNNERS, run
from lora_core.settings import from_json
from lora_core.thumbnails import thumbnail
from lora_core.wire import job_to_wire

from . import openapi
from .guard import Guard
from .host_api import Host

PREFIX = "/lora-loom/v1"
ACTIONS = ("stop", "save", "sample", "pause", "resume", "cancel", "again", "remove")
SHOWN = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
MAX_STREAMS = 64
SECONDS_BETWEEN_LOOKS = 0.25
QUIET_SECONDS = 15.0
SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Missing(LoomError):
    """There is no such thing at this address."""


def mount(app: Any, host: Host) -> None:
    """Put our routes in front of the app's own, behind the host's logins."""
    sessions = getattr(app, "tokens", {})
    guard = Guard(Api(host).router(), lambda: host.access(sessions))
    app.router.routes.insert(0, Mount(PREFIX, app=guard))


def answer(value: Any, status: int = 200) -> Response:
    return JSONResponse(finite(value), status, headers=SAFE)


def fault(error: Exception) -> Response:
    """An error as the status and the sentence that fit it."""
    if isinstance(error, ConfigError):
        return answer({"error": str(error), "problems": error.problems}, 422)
    status = 404 if isinstance(error, Missing) else 400 if isinstance(error, (LoomError, ValueError)) else 500
    return answer({"error": str(error) if status != 500 else f"{type(error).__name__}: {error}"}, status)


Handler = Callable[..., Any]


def route(path: str, function: Handler, method: str = "GET") -> Route:
    """A route whose function gets the path's parameters, and the body's JSON object when it is posted.

    It runs in a thread, so that nothing it reads or writes holds up the host.
    """

    async def endpoint(request: Request) -> Response:
        try:
            inputs = dict(request.path_params)
            if method == "POST":
                inputs["body"] = await json_body(request)
            result = await run_in_threadpool(partial(function, query=request.query_params, **inputs))
            return result if isinstance(result, Response) else answer(result)
        except ClientDisconnect:
            return answer({"error": "The request is too large or was broken off."}, 413)
        except Exception as error:
            return fault(error)

    return Route(path, endpoint, methods=[method])


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; {} for an empty body. Raises ValueError."""
    raw = await request.body()
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=no_number) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The body is not valid JSON ({str(error)[:200]}).") from None
    if not isinstance(value, dict):
        raise ValueError("The body must be a JSON object.")
    return value


def no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


class Api:
    """The handlers. Each speaks of job ids; paths come in only as settings of jobs, confined to the host's folders."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.streams = 0

    @property
    def desk(self) -> Desk:
        return self.host.desk

    def router(self) -> Router:
        job = "/jobs/{id:str}"
        posts = [route(f"{job}/{name}", partial(self.act, name=name), "POST") for name in ACTIONS]
        tools = [
            route(f"/{kind}", partial(self.submit_kind, kind=kind), "POST") for kind in RUNNERS if kind != "inspect"
        ]
        return Router(
            [
                route("/", self.about),
                route("/openapi.json", self.openapi),
                route("/schema", self.schemas),
                route("/schema/{kind:str}", self.schema),
                route("/jobs", self.jobs),
                route("/jobs", self.submit, "POST"),
                route("/inspect", self.inspect, "POST"),
                *tools,
                route(job, self.job),
                route(job, self.remove, "DELETE"),
                route(f"{job}/settings", self.settings),
                route(f"{job}/log", self.log),
                route(f"{job}/files/{{number:str}}", self.file),
                Route(f"{job}/events", self.events),
                *posts,
            ]
        )

    def about(self, query: Any) -> Any:
        return {"name": "LoRA Loom", "host": self.host.name, "kinds": sorted(RUNNERS)}

    def openapi(self, query: Any) -> Any:
        return openapi.document()

    def schemas(self, query: Any) -> Any:
        return {kind: openapi.rows(runner.job) for kind, runner in RUNNERS.items()}

    def schema(self, kind: str, query: Any) -> Any:
        if kind not in RUNNERS:
            raise Missing(f"There is no kind of job {kind[:40]!r}.")
        return openapi.rows(RUNNERS[kind].job)

    def jobs(self, query: Any) -> Any:
        return {"jobs": [dataclasses.asdict(ticket) for ticket in self.desk.tickets()]}

    def submit(self, body: dict[str, Any], query: Any) -> Response:
        unknown = sorted(body.keys() - {"job", "settings", "title"})
        if unknown:
            raise ConfigError(f"Unknown: {', '.join(unknown)[:200]}; a request holds job, settings and title.")
        return self.submit_kind(body.get("settings", {}), str(body.get("job", "")), query, str(body.get("title", "")))

    def submit_kind(self, body: Any, kind: str, query: Any, title: str = "") -> Response:
        return answer({"id": self.desk.submit(self.read_job(kind, body), title)}, 201)

    def read_job(self, kind: str, settings: Any) -> Any:
        """The job of a request. Raises ConfigError for unknown kinds and settings, and for paths outside."""
        if kind not in RUNNERS:
            raise ConfigError(f"There is no kind of job {kind[:40]!r}; known: {', '.join(sorted(RUNNERS))}.")
        return self.host.confined(kind, from_json(RUNNERS[kind].job, settings))

    def inspect(self, body: dict[str, Any], query: Any) -> Any:
        last = list(run(self.read_job("inspect", body)))[-1]
        return last.report if isinstance(last, Finished) else {}

    def known(self, id: str) -> str:
        try:
            return self.desk.ticket(id).id
        except ConfigError as error:
            raise Missing(str(error)) from None

    def job(self, id: str, query: Any) -> Any:
        return whole_snapshot(self.desk, self.known(id))

    def settings(self, id: str, query: Any) -> Any:
        return job_to_wire(self.desk.job(self.known(id)))

    def log(self, id: str, query: Any) -> Any:
        return {"log": self.desk.log(self.known(id))}

    def remove(self, id: str, query: Any) -> Any:
        self.desk.remove(self.known(id))
        return {"id": id}

    def act(self, id: str, name: str, body: dict[str, Any], query: Any) -> Response:
        self.known(id)
        if name == "stop":
            self.desk.stop(id, now=body.get("now") is True)
            return answer({"id": id})
        new = getattr(self.desk, name)(id)
        return answer({"id": new or id}, 201 if name == "again" else 200)

    def file(self, id: str, number: str, query: Any) -> Response:
        """A picture that the job spoke of; `size`: as a small JPEG. A LoRA is handed over as a download."""
        files = self.desk.files(self.known(id))
        path = Path(files[int(number)]) if number.isdecimal() and int(number) < len(files) else None
        if path is None or not path.is_file():
            raise Missing(f"The job {id} has no file {number[:20]!r}, or it is gone.")
        suffix = path.suffix.lower()
        size = query.get("size", "")
        if size and suffix in SHOWN:
            return Response(thumbnail(path, int(size)), media_type="image/jpeg", headers=SAFE)
        if suffix in SHOWN:
            return FileResponse(path, media_type=SHOWN[suffix], headers=SAFE)
        if suffix == ".safetensors":
            return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=SAFE)
        raise Missing(f"The file {path.name} is no picture and no LoRA.")

    async def events(self, request: Request) -> Response:
        """Server-sent events: the job's events with their numbers as ids, and "ticket" whenever its state changes.

        With `after` or Last-Event-ID only what came later; `stream=0` answers at once with a JSON list.
        """
        try:
            id = self.known(request.path_params["id"])
            begin = request.headers.get("last-event-id") or request.query_params.get("after", "0")
            after = int(begin) if begin.isdecimal() else 0
            if request.query_params.get("stream") == "0":
                rows = await run_in_threadpool(self.desk.events, id, after)
                return answer({"events": [{"id": number, **event_to_json(event)} for number, event in rows]})
            if self.streams >= MAX_STREAMS:
                return answer({"error": f"{MAX_STREAMS} streams are open already."}, 429)
            headers = {**SAFE, "Content-Encoding": "identity", "X-Accel-Buffering": "no"}
            return StreamingResponse(self.stream(request, id, after), media_type="text/event-stream", headers=headers)
        except Exception as error:
            return fault(error)

    async def stream(self, request: Request, id: str, after: int) -> AsyncIterator[bytes]:
        self.streams += 1
        try:
            shown: dict[str, Any] = {}
            silent = 0.0
            while not await request.is_disconnected():
                try:
                    ticket = dataclasses.asdict(self.desk.ticket(id))
                    rows = self.desk.events(id, after)
                except ConfigError:
                    return
                for after, event in rows:
                    yield message(event_to_json(event), "event", after)
                if ticket != shown:
                    shown = ticket
                    yield message(ticket, "ticket")
                    silent = 0.0
                if ticket["ended"] is not None:
                    return
                silent = 0.0 if rows else silent + SECONDS_BETWEEN_LOOKS
                if silent >= QUIET_SECONDS:
                    yield b": still here\n\n"
                    silent = 0.0
                await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            self.streams -= 1


def message(value: dict[str, Any], name: str, number: int | None = None) -> bytes:
    """One server-sent event."""
    id = "" if number is None else f"id: {number}\n"
    return f"{id}event: {name}\ndata: {json.dumps(finite(value))}\n\n".encode()
