"""Cases of the REST API over a fake host; run by tests/test_rest.py with each host's web packages."""

import contextlib
import json
import threading
import time

import pytest
from fake_a1111 import FakeHost, extension
from fastapi import FastAPI
from PIL import Image
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient

from lora_core.desk import Desk
from lora_core.events import Loss
from lora_core.jobs import GenerateJob
from lora_core.remote import Child
from lora_core.run import RUNNERS
from lora_core.tensors import write_tensors

extension()

from lora_loom_a1111 import api, guard  # noqa: E402

V1 = "/lora-loom/v1"
LOCAL = "http://127.0.0.1:7860"


@pytest.fixture
def host(tmp_path):
    """Its engine cannot be started: jobs of the engine fail at once, tools work."""
    host = FakeHost(tmp_path / "host", Desk(tmp_path / "jobs", Child(python="/no/such/python")))
    yield host
    host.desk.close(5)


def app_of(host):
    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=1000)

    @app.get("/{path:path}")
    def everything(path: str):
        return {"page": path}

    api.mount(app, host)
    return app


@pytest.fixture
def client(host):
    with TestClient(app_of(host), base_url=LOCAL) as client:
        yield client


@pytest.fixture
def lora(host):
    return small_lora(host.lora_folders()[0] / "one.safetensors")


def small_lora(path, **metadata):
    import torch

    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{key}.lora_down.weight": torch.ones(2, 320), f"{key}.lora_up.weight": torch.ones(320, 2)}
    write_tensors(path, {**factors, f"{key}.alpha": torch.tensor(2.0)}, {"ss_output_name": path.stem, **metadata})
    return path


def over(client, id):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        shown = client.get(f"{V1}/jobs/{id}").json()
        if shown["over"]:
            return shown
        time.sleep(0.02)
    raise AssertionError("waited too long")


def test_a_merge_from_submission_to_download(client, host, lora):
    body = {"loras": [{"path": "one.safetensors", "strength": 0.5}], "output": "two.safetensors"}
    answer = client.post(f"{V1}/merge", json=body)
    assert answer.status_code == 201
    id = answer.json()["id"]
    shown = over(client, id)
    assert shown["state"] == "done", shown["error"]
    assert (host.lora_folders()[0] / "two.safetensors").exists()
    assert [ticket["id"] for ticket in client.get(f"{V1}/jobs").json()["jobs"]] == [id]
    settings = client.get(f"{V1}/jobs/{id}/settings").json()
    assert settings["job"] == "merge" and settings["settings"]["loras"][0]["strength"] == 0.5
    named = {item["name"]: item["file"] for item in shown["files"]}
    got = client.get(f"{V1}/jobs/{id}/files/{named['two.safetensors']}")
    assert got.content == (host.lora_folders()[0] / "two.safetensors").read_bytes()
    assert got.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"{V1}/jobs/{id}/log").json() == {"log": ""}
    again = client.post(f"{V1}/jobs/{id}/again", json={})
    assert again.status_code == 201 and over(client, again.json()["id"])["state"] == "failed"  # the output exists
    assert client.delete(f"{V1}/jobs/{id}").status_code == 200
    assert client.get(f"{V1}/jobs/{id}").status_code == 404


def test_one_save_is_kept_and_only_saves_in_the_hosts_folders_are_removed(client, host, tmp_path):
    folder = host.lora_folders()[0]
    for path in (folder / "cat.safetensors", folder / "cat-000100.safetensors", tmp_path / "backup.safetensors"):
        small_lora(path, ss_session_id="77")
    outside = client.post(
        f"{V1}/keep", json={"lora": "cat.safetensors", "remove": [str(tmp_path / "backup.safetensors")]}
    )
    assert outside.status_code == 422 and (tmp_path / "backup.safetensors").exists()
    answer = client.post(f"{V1}/keep", json={"lora": "cat.safetensors", "remove": ["cat-000100.safetensors"]})
    shown = over(client, answer.json()["id"])
    assert shown["state"] == "done", shown["error"]
    assert sorted(path.name for path in folder.iterdir()) == ["cat.json", "cat.safetensors"]


def test_the_same_json_as_the_command_line(client, host):
    settings = client.get(f"{V1}/schema/train").json()
    assert {"rank", "learning_rate", "folder"} <= {row["name"] for row in settings}
    assert set(client.get(f"{V1}/schema").json()) == set(RUNNERS)
    body = {
        "job": "train",
        "settings": {"base": "x.safetensors", "name": "a", "dataset": {"folder": "p"}},
        "title": "T",
    }
    answer = client.post(f"{V1}/jobs", json=body)
    assert answer.status_code == 201, answer.text
    shown = over(client, answer.json()["id"])
    assert shown["title"] == "T" and shown["state"] == "failed" and shown["error"]
    job = host.desk.job(shown["id"])
    assert job.output_dir == str(host.lora_folders()[0]) and "Lora" not in job.work_dir


TRAINING = {"base": "b", "dataset": {"folder": "p"}}
FAULTS = [
    ("/merge", {"loras": [], "output": "x.safetensors"}, 422, "No LoRA"),
    ("/merge", {"loras": [{"path": "/etc/passwd"}], "output": "x.safetensors"}, 422, "outside"),
    ("/merge", {"loras": [{"path": "../../x"}], "output": "x.safetensors"}, 422, '".."'),
    ("/merge", {"loras": [{"path": "a"}], "output": "/tmp/x.safetensors"}, 422, "outside"),
    ("/merge", {"loras": "a", "output": 3}, 422, "output"),
    ("/merge", {"nonsense": 1}, 422, "nonsense"),
    ("/jobs", {"job": "rm", "settings": {}}, 422, "rm"),
    ("/jobs", {"job": "merge", "settings": 3}, 422, "object"),
    ("/jobs", {"job": "merge", "settings": {}, "more": 1}, 422, "more"),
    ("/inspect", {"lora": "missing.safetensors"}, 400, "missing"),
    ("/inspect", {"lora": "//server/share"}, 422, "network"),
    ("/keep", {"lora": "one.safetensors", "remove": ["/etc/passwd"]}, 422, "outside"),
    ("/keep", {"lora": "one.safetensors", "remove": ["/etc/nothing"]}, 422, "outside"),
    ("/keep", {"lora": "one.safetensors", "remove": ["//server/share/x"]}, 422, "network"),
    ("/keep", {"lora": "/etc/passwd"}, 422, "outside"),
    ("/train", {**TRAINING, "optimization": {"optimizer_class": "antigravity.X"}}, 422, "pages and requests may name"),
    ("/train", {**TRAINING, "optimization": {"schedule_class": "antigravity.X"}}, 422, "pages and requests may name"),
    ("/jobs/000000000000/stop", {}, 404, "no job"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), FAULTS)
def test_faults_are_sentences(client, path, body, status, words):
    answer = client.post(V1 + path, json=body)
    assert answer.status_code == status and words in answer.json()["error"], answer.text


@pytest.mark.parametrize(
    "path", ["/jobs/x", "/jobs/..%2f..%2fetc", "/jobs/000000000000/files/0", "/schema/x", "/nothing"]
)
def test_unknown_addresses(client, path):
    assert client.get(V1 + path).status_code == 404


def test_inspect_answers_at_once(client, lora):
    report = client.post(f"{V1}/inspect", json={"lora": "one.safetensors"}).json()
    assert "kohya" in json.dumps(report)


BODIES = [
    (b"{", "application/json", 400),
    (b"[1]", "application/json", 400),
    (b'{"a": NaN}', "application/json", 400),
    (b"\xff", "application/json", 400),
    (b"[" * 100_000, "application/json", 400),
    (b"{}", "text/plain", 415),
    (b"a=1", "application/x-www-form-urlencoded", 415),
    (b" " * (2 << 20), "application/json", 413),
]


@pytest.mark.parametrize(("body", "kind", "status"), BODIES)
def test_bodies_that_are_not_small_json_objects(client, body, kind, status):
    assert client.post(f"{V1}/merge", content=body, headers={"content-type": kind}).status_code == status


def test_a_body_of_unknown_length_is_cut(client):
    def pieces():
        for _ in range(40):
            yield b" " * 50_000

    answer = client.post(f"{V1}/merge", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


FOREIGN = [
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://127.0.0.1:9999"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
    ({"host": "evil.example:7860"}, 403),
    ({"host": "127.0.0.1.evil.example"}, 403),
    ({"host": ""}, 403),
    ({"host": "[::1"}, 403),
    ({"origin": "http://[::1"}, 403),
    ({"origin": "nonsense"}, 403),
    ({"host": "127.0.0.2:7860", "origin": "http://127.0.0.2:7860"}, 200),
    ({"origin": LOCAL, "sec-fetch-site": "same-origin"}, 200),
    ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
    ({"host": "[::1]:7860"}, 200),
    ({"sec-fetch-site": "none"}, 200),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_other_sites_are_refused(client, headers, status):
    assert client.get(f"{V1}/jobs", headers=headers).status_code == status


def access(client, host, headers, **asked):
    host.access = lambda sessions: guard.Access(host.key, sessions={"token": "me"}, **asked)
    return client.get(f"{V1}/jobs", headers=headers)


LOGINS = [
    ({}, 401),
    ({"authorization": "Basic dTpw"}, 200),  # u:p
    ({"authorization": "Basic dTpx"}, 401),  # u:x
    ({"authorization": "Basic !!"}, 401),
    ({"authorization": "Bearer dTpw"}, 401),
    ({"x-lora-loom": "wrong"}, 401),
    ({"x-lora-loom": "KEY"}, 200),
    ({"cookie": "a=b; access-token=token"}, 200),
    ({"cookie": "access-token-unsecure-abc=token"}, 200),
    ({"cookie": "access-token=other"}, 401),
    ({"cookie": "other=token"}, 401),
]


@pytest.mark.parametrize("asked", [{"api": {"u": "p"}}, {"page": {"u": "p"}}])
@pytest.mark.parametrize(("headers", "status"), LOGINS)
def test_the_hosts_logins_cover_the_routes(client, host, headers, status, asked):
    headers = {name: value.replace("KEY", host.key) for name, value in headers.items()}
    answer = access(client, host, headers, **asked)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_public_server_has_any_name_but_one_origin(client, host):
    names = {"host": "my.box:7860"}
    assert access(client, host, names, public=True).status_code == 200
    assert access(client, host, {**names, "origin": "http://other"}, public=True).status_code == 403
    allowed = access(client, host, {**names, "origin": "http://other"}, public=True, origins=("http://other",))
    assert allowed.status_code == 200
    every = access(client, host, {"origin": "http://other", "sec-fetch-site": "cross-site"}, origins=("*",))
    assert every.status_code == 200


def parsed(text):
    """(event name, id, data) of each server-sent event."""
    for block in text.strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if fields:
            yield fields["event"], int(fields.get("id", 0)), json.loads(fields["data"])


def test_events_are_streamed_to_the_end_and_go_on_from_an_id(client, lora):
    body = {"loras": [{"path": "one.safetensors"}], "output": "events.safetensors"}
    id = client.post(f"{V1}/merge", json=body).json()["id"]
    answer = client.get(f"{V1}/jobs/{id}/events", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "gzip" not in answer.headers.get("content-encoding", "")  # it would hold events back
    said = list(parsed(answer.text))
    numbers = [number for name, number, _ in said if name == "event"]
    assert numbers == list(range(1, len(numbers) + 1)) and said[-1][0] == "ticket" and said[-1][2]["state"] == "done"
    assert [data["event"] for name, _, data in said if name == "event"][-1] == "Finished"
    rest = list(parsed(client.get(f"{V1}/jobs/{id}/events", headers={"last-event-id": str(numbers[-2])}).text))
    assert [number for name, number, _ in rest if name == "event"] == numbers[-1:]
    plain = client.get(f"{V1}/jobs/{id}/events?stream=0&after=1").json()["events"]
    assert [event["id"] for event in plain] == numbers[1:]
    assert client.get(f"{V1}/jobs/000000000000/events").status_code == 404


def test_jobs_that_wait_and_that_run(client, host, tmp_path):
    free = threading.Event()

    @contextlib.contextmanager
    def waiting(job):
        yield free.wait(30)

    host.desk.close()
    host.desk = Desk(tmp_path / "slow", Child(python="/no/such/python"), waiting)
    job = {"base": "b", "dataset": {"folder": "p"}}
    first, second = (client.post(f"{V1}/train", json={**job, "name": n}).json()["id"] for n in ("a", "b"))
    assert client.get(f"{V1}/jobs/{second}").json()["ahead"] == 1
    assert client.post(f"{V1}/jobs/{second}/pause", json={}).status_code == 422  # it does not run yet
    assert client.post(f"{V1}/jobs/{second}/cancel", json={}).status_code == 200
    assert over(client, second)["state"] == "stopped"
    assert client.delete(f"{V1}/jobs/{first}").status_code == 422  # it runs
    for action, state in (("pause", "paused"), ("save", "paused"), ("resume", "running"), ("stop", "running")):
        assert client.post(f"{V1}/jobs/{first}/{action}", json={}).status_code == 200
        assert client.get(f"{V1}/jobs/{first}").json()["state"] == state
    free.set()
    assert over(client, first)["state"] == "stopped"
    assert client.post(f"{V1}/jobs/{second}/remove", json={}).status_code == 200
    assert client.get(f"{V1}/jobs/{second}").status_code == 404


def test_pictures_are_served_small_and_other_files_are_not(client, host):
    from lora_core.events import Finished, Preview

    Image.new("RGB", (640, 320), "red").save(host.root / "big.png")
    (host.root / "page.html").write_text("<script>")
    id = client.post(f"{V1}/merge", json={"loras": [{"path": "no"}], "output": "x.safetensors"}).json()["id"]
    over(client, id)
    for event in (Preview(1, str(host.root / "big.png")), Finished((str(host.root / "page.html"), "/etc/gone.png"))):
        host.desk._say(id, None, event)
    small = client.get(f"{V1}/jobs/{id}/files/0?size=64")
    assert small.headers["content-type"] == "image/jpeg" and len(small.content) < 3000
    assert client.get(f"{V1}/jobs/{id}/files/0").headers["content-type"] == "image/png"
    assert client.get(f"{V1}/jobs/{id}/files/0?size=x").status_code == 400
    for number in ("1", "2", "3", "-1", "x"):
        assert client.get(f"{V1}/jobs/{id}/files/{number}").status_code == 404


def test_our_routes_come_before_a_catch_all_and_leave_the_others_alone(client):
    assert client.get(f"{V1}/").json()["name"] == "LoRA Loom"
    assert client.get("/sdapi/v1/x").json() == {"page": "sdapi/v1/x"}
    assert client.get("/other", headers={"origin": "https://evil.example"}).status_code == 200
    assert client.put(f"{V1}/jobs").status_code in (405, 415)


def test_the_queue_is_bounded(client, host, monkeypatch):
    from lora_core import desk

    monkeypatch.setattr(desk, "MAX_WAITING", 0)
    answer = client.post(f"{V1}/merge", json={"loras": [{"path": "a"}], "output": "x.safetensors"})
    assert answer.status_code == 422 and "waiting" in answer.json()["error"]


def test_the_curve_of_a_resumed_training_begins_with_the_first_run(client, host, monkeypatch):
    ids = [host.desk.submit(GenerateJob(base="x", prompt="y", output_dir="z"), title) for title in ("a", "b", "a")]
    for id in ids:
        over(client, id)
    steps = dict(zip(ids, (range(1, 5), range(1, 3), range(4, 7))))
    rows = {id: [(n, Loss(n, float(i), 0.5, 1e-4, 0.25)) for n in steps[id]] for i, id in enumerate(ids)}
    monkeypatch.setattr(host.desk, "events", lambda id, after=0: rows[id])
    curves = [client.get(f"{V1}/jobs/{id}").json() for id in ids]
    assert [[p[:2] for p in shown["losses"]] for shown in curves] == [
        [[1, 0], [2, 0], [3, 0], [4, 0]],
        [[1, 1], [2, 1]],
        [[1, 0], [2, 0], [3, 0], [4, 2], [5, 2], [6, 2]],
    ]
    assert [p[0] for p in curves[2]["held_out"]] == [1, 2, 3, 4, 5, 6]
