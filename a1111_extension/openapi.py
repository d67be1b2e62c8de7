"""What the REST API looks like, as OpenAPI 3.0: made from the jobs' own declarations."""

from __future__ import annotations

import copy
from typing import Any

from lora_core.job_schema import job_schema, rows
from lora_core.run import RUNNERS

__all__ = ["document", "rows"]

ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{12}$"}}
ERRORS = {
    "400": "The request is not understood, or cannot be done now.",
    "401": "A user name and password are needed (--api-auth, --gradio-auth).",
    "403": "The request comes from another site.",
    "404": "There is no such job or file.",
    "413": "The request is larger than 1 MB.",
    "415": "The body is not JSON.",
    "422": "The job cannot run as written; `problems` lists every fault.",
}
ACTIONS = {
    "stop": "End the job soon and keep what there is; `now` ends it by force.",
    "save": "Save the LoRA as it is now.",
    "sample": "Draw the previews now.",
    "pause": "Hold the job after its step.",
    "resume": "Go on after a pause.",
    "cancel": "Take a job out that has not begun.",
    "again": "Put the same job into the queue once more; a training goes on where it ended.",
    "remove": "Forget the job; its results stay.",
}
MADE_UP = {
    "train": {
        "base": "model.safetensors",
        "name": "armin",
        "dataset": {"folder": "/data/pictures/armin"},
        "captions": {"trigger": "armin"},
        "length": {"epochs": 10},
    },
    "merge": {
        "loras": [{"path": "a.safetensors", "strength": 0.7}, {"path": "b.safetensors"}],
        "output": "ab.safetensors",
    },
    "inspect": {"lora": "armin.safetensors"},
}


def document() -> dict[str, Any]:
    """The whole description, JSON values."""
    return {
        "openapi": "3.0.3",
        "info": {"title": "LoRA Loom", "version": "1", "description": ABOUT},
        "servers": [{"url": "/lora-loom/v1"}],
        "security": [{}, {"basic": []}, {"page": []}],
        "paths": {**shared_paths(), **job_paths(), **tool_paths()},
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "page": {"type": "apiKey", "in": "header", "name": "X-LoRA-Loom"},
            },
            "schemas": {**SCHEMAS, **{f"job-{kind}": job_schema(runner.job) for kind, runner in our_jobs()}},
        },
    }


ABOUT = (
    "Jobs in the WebUI's process: the same JSON as the command line's `--print-config` and `--config`. Paths must lie "
    "in the WebUI's folders; relative ones belong to the folder that fits (LoRAs, models, pictures)."
)
SCHEMAS: dict[str, Any] = {
    "error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}, "problems": {"type": "array", "items": {"type": "string"}}},
    },
    "id": {"type": "object", "required": ["id"], "properties": {"id": ID["schema"]}},
    "ticket": {
        "type": "object",
        "required": ["id", "kind", "title", "state", "created", "error", "outputs", "resumable"],
        "properties": {
            "id": ID["schema"],
            "kind": {"type": "string"},
            "title": {"type": "string"},
            "state": {
                "type": "string",
                "enum": ["queued", "running", "paused", "done", "stopped", "failed", "interrupted"],
            },
            "created": {"type": "number", "description": "Seconds since 1970."},
            "started": {"type": "number", "nullable": True},
            "ended": {"type": "number", "nullable": True},
            "error": {"type": "string", "description": "A sentence for a person, or empty."},
            "outputs": {"type": "array", "items": {"type": "string"}},
            "resumable": {"type": "boolean", "description": "`again` goes on where it ended."},
        },
    },
    "snapshot": {
        "allOf": [{"$ref": "#/components/schemas/ticket"}],
        "type": "object",
        "required": ["stage", "losses", "held_out", "marks", "previews", "notes", "report", "last", "ahead"],
        "properties": {
            "stage": {"type": "string"},
            "progress": {"type": "object", "nullable": True},
            "seconds_left": {"type": "number", "nullable": True},
            "losses": {
                "type": "array",
                "description": "[step, loss, average, learning rate], at most 1000.",
                "items": {"type": "array", "items": {"type": "number", "nullable": True}},
            },
            "held_out": {"type": "array", "items": {"type": "array", "items": {"type": "number", "nullable": True}}},
            "marks": {"type": "array", "items": {"type": "object"}, "description": "Saves."},
            "previews": {"type": "array", "items": {"type": "object"}},
            "notes": {"type": "array", "items": {"type": "object"}},
            "files": {"type": "array", "items": {"type": "object"}},
            "report": {"type": "object"},
            "last": {"type": "integer", "description": "Number of the newest event."},
            "ahead": {"type": "integer", "description": "Jobs that come first."},
        },
    },
    "settings-row": {
        "type": "object",
        "required": ["name", "path", "schema"],
        "properties": {"name": {"type": "string"}, "path": {"type": "array", "items": {"type": "string"}}},
    },
}


def our_jobs() -> list[tuple[str, Any]]:
    return [(kind, runner) for kind, runner in RUNNERS.items() if runner.job.__module__.startswith("lora_core.")]


def shared_paths() -> dict[str, Any]:
    kind = {"name": "kind", "in": "path", "required": True, "schema": {"type": "string"}}
    list_of_rows = {"type": "array", "items": ref("settings-row")}
    jobs = {"type": "object", "required": ["jobs"], "properties": {"jobs": {"type": "array", "items": ref("ticket")}}}
    return {
        "/": {"get": operation("What answers here", {"type": "object"})},
        "/openapi.json": {"get": operation("This description", {"type": "object"})},
        "/schema": {
            "get": operation(
                "Every setting of every kind of job", {"type": "object", "additionalProperties": list_of_rows}
            )
        },
        "/schema/{kind}": {"get": operation("The settings of one kind of job", list_of_rows, [kind], ("404",))},
        "/jobs": {
            "get": operation("All jobs, the newest last", jobs),
            "post": posted("Put a job into the queue", any_job(), "201", example("train")),
        },
    }


def any_job() -> dict[str, Any]:
    kinds = {"type": "string", "enum": [kind for kind, _ in our_jobs()]}
    settings = {"oneOf": [ref(f"job-{kind}") for kind, _ in our_jobs()]}
    fields = {"job": kinds, "settings": {**settings, "description": "Of the kind that `job` names."}}
    return {
        "type": "object",
        "required": ["job", "settings"],
        "additionalProperties": False,
        "properties": {**fields, "title": {"type": "string", "maxLength": 200}},
    }


def job_paths() -> dict[str, Any]:
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
    size = {"name": "size", "in": "query", "schema": {"type": "integer", "minimum": 16, "maximum": 2048}}
    after = {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    later = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    plain = {"name": "stream", "in": "query", "schema": {"type": "string", "enum": ["0", "1"]}}
    files = operation(
        "A picture of the job (`size`: as a small JPEG), or its LoRA", None, [ID, number, size], ("400", "404")
    )
    events = operation(EVENTS, None, [ID, after, later, plain], ("404",))
    remove = operation(ACTIONS["remove"], ref("id"), [ID], ("400", "404", "422"))
    log = {"type": "object", "properties": {"log": {"type": "string"}}}
    found: dict[str, Any] = {
        "/jobs/{id}": {
            "get": operation("What a page shows of a job", ref("snapshot"), [ID], ("404",)),
            "delete": remove,
        },
        "/jobs/{id}/settings": {"get": operation("The job itself", {"type": "object"}, [ID], ("404", "422"))},
        "/jobs/{id}/log": {"get": operation("The end of what its libraries wrote", log, [ID], ("404",))},
        "/jobs/{id}/files/{number}": {"get": files},
        "/jobs/{id}/events": {"get": events},
    }
    for name, words in ACTIONS.items():
        fields = {"now": {"type": "boolean"}} if name == "stop" else {}
        body = {"type": "object", "properties": fields}
        status = "201" if name == "again" else "200"
        found[f"/jobs/{{id}}/{name}"] = {"post": posted(words, body, status, {}, [ID])}
    return found


EVENTS = (
    "Server-sent events: `event` with the job's events, numbered, and `ticket` when its state changes; ends with the "
    "job. Last-Event-ID or `after`: only later ones. `stream=0`: those there are, as JSON."
)


def tool_paths() -> dict[str, Any]:
    """POST /KIND: the kind's settings are the whole body."""
    found: dict[str, Any] = {}
    for kind, runner in our_jobs():
        words = (runner.job.__doc__ or kind).strip().partition("\n")[0]
        if kind == "inspect":
            found["/inspect"] = {"post": posted(words, ref("job-inspect"), "200", MADE_UP["inspect"], answer={})}
        else:
            found[f"/{kind}"] = {"post": posted(words, ref(f"job-{kind}"), "201", MADE_UP.get(kind, {}))}
    return found


def example(kind: str) -> dict[str, Any]:
    return {"job": kind, "settings": MADE_UP[kind], "title": "My training"}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def operation(words: str, schema: Any, parameters: Any = (), errors: Any = ()) -> dict[str, Any]:
    """A GET or DELETE. `schema` None: the answer is no JSON."""
    content = {"*/*": {}} if schema is None else {"application/json": {"schema": schema}}
    answers = {"200": {"description": "Done.", "content": content}, **faults("401", "403", *errors)}
    return {
        "summary": words,
        "responses": answers,
        **({"parameters": copy.deepcopy(list(parameters))} if parameters else {}),
    }


def posted(
    words: str, body: Any, status: str, shown: dict[str, Any], parameters: Any = (), answer: Any = None
) -> dict[str, Any]:
    """A POST with a JSON body."""
    content = {"application/json": {"schema": body, **({"example": shown} if shown else {})}}
    schema = ref("id") if answer is None else {"type": "object"}
    answers = {status: {"description": "Done.", "content": {"application/json": {"schema": schema}}}}
    every = ("400", "401", "403", "413", "415", "422", *(("404",) if parameters else ()))
    return {
        "summary": words,
        "requestBody": {"required": True, "content": content},
        "responses": {**answers, **faults(*every)},
        **({"parameters": copy.deepcopy(list(parameters))} if parameters else {}),
    }


def faults(*statuses: str) -> dict[str, Any]:
    content = {"application/json": {"schema": ref("error")}}
    return {status: {"description": ERRORS[status], "content": content} for status in sorted(set(statuses))}
