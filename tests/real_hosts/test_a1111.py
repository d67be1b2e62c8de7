"""The real A1111 with the extension cloned into it: page, REST, a training, its LoRA in a picture, a killed server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from a1111_live import A1111

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from small_models import write_small_hub, write_small_model  # noqa: E402

pytestmark = [pytest.mark.real_host, pytest.mark.slow]
FLAGS = "--skip-prepare-environment --skip-torch-cuda-test --use-cpu all --no-half --api --no-hashing"
FLAGS += " --disable-nan-check --server-name 127.0.0.1 --no-download-sd-model"
PICTURE = {"prompt": "a photo <lora:mine:1>", "steps": 4, "width": 64, "height": 64, "seed": 1, "sampler_name": "DDIM"}
PICTURES = ROOT / "lora_core" / "assets" / "demo" / "armin_vicerre"


@dataclass
class Server:
    """A started webui: its process, log and data folder; `loom` asks our routes."""

    process: subprocess.Popen[bytes]
    host: A1111
    root: str
    log: Path

    def loom(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.root}/lora-loom/v1{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[-2000:]}") from error

    def until(self, id: str, true: Callable[[dict[str, Any]], bool], seconds: float = 600) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.loom(f"/jobs/{id}")
            if true(shown) or shown["over"]:
                return shown
            time.sleep(0.5)
        raise AssertionError(f"waited too long; the log ends:\n{self.loom(f'/jobs/{id}/log')['log'][-3000:]}")

    def done(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        shown = self.until(self.loom(path, body)["id"], lambda shown: shown["over"])
        assert shown["state"] == "done", shown["error"]
        return shown

    def picture(self, **fields: Any) -> np.ndarray:
        return self.host.txt2img(**{**PICTURE, **fields})[0]


@dataclass(frozen=True)
class Installed:
    """A data folder with a small model and a clone of this repository in extensions/."""

    python: str
    folder: Path
    data: Path
    model: Path
    hub: Path
    packages: list[str] = field(default_factory=list)

    def freeze(self) -> str:
        command = [self.python, "-m", "pip", "freeze", "--all"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def start(self) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [self.python, "launch.py", *FLAGS.split(), "--port", str(port), "--data-dir", str(self.data)]
        command += ["--ckpt", str(self.model)]
        hub = {"HF_HOME": str(self.hub), "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, **hub, "PYTHONDONTWRITEBYTECODE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        log = self.data / f"log-{port}.txt"
        with open(log, "wb") as file:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        server = Server(process, A1111(port), f"http://127.0.0.1:{port}", log)
        end = time.monotonic() + 900
        while "Startup time:" not in log.read_text(errors="replace"):  # a request before that can end A1111's start
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"A1111 did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(1)
        return server


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = os.environ.get("A1111_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("A1111_DIR does not name a folder with the real program")
    base = tmp_path_factory.mktemp("a1111")
    model = write_small_model(base / "webui" / "models" / "Stable-diffusion")
    write_small_hub(base / "hub")
    found = Installed(os.environ.get("A1111_PYTHON", "python3"), Path(folder), base / "webui", model, base / "hub")
    clone = found.data / "extensions" / "sd-webui-lora-loom"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    engines = ROOT / "out" / "test-packages" / "engine"
    engines.mkdir(parents=True, exist_ok=True)
    (clone / ".engine").symlink_to(engines)
    found.packages.append(found.freeze())
    done = subprocess.run([found.python, "install.py", "--strict"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.fixture(scope="module")
def server(installed: Installed) -> Iterator[Server]:
    server = installed.start()
    yield server
    server.process.kill()
    server.process.wait()


def training(installed: Installed, **more: Any) -> dict[str, Any]:
    return {
        "base": installed.model.name,
        "name": "mine",
        "dataset": {"folder": str(installed.data / "extensions" / "sd-webui-lora-loom" / PICTURES.relative_to(ROOT))}
        | {"width": 64, "height": 64},
        "network": {"rank": 4},
        "optimization": {"learning_rate": 0.01, "schedule": "constant"},
        "length": {"steps": 20},
        "saves": {"state_every_steps": 1},
        "memory": {"dtype": "fp32"},
        **more,
    }


def test_it_starts_without_errors_and_shows_its_tab(server: Server):
    log = server.log.read_text(errors="replace")
    assert "Error" not in log and "***" not in log and "Traceback" not in log, log[-5000:]
    with urllib.request.urlopen(f"{server.root}/config", timeout=60) as answer:
        parts = [part.get("props", {}) for part in json.load(answer)["components"]]
    assert any(part.get("label") == "LoRA Loom" for part in parts)
    assert any(str(part.get("elem_id", "")).startswith("lora_loom") for part in parts)
    with urllib.request.urlopen(server.root, timeout=60) as answer:
        page = answer.read().decode()
    assert "sd-webui-lora-loom/javascript/lora_loom.js" in page and "sd-webui-lora-loom/style.css" in page
    assert server.loom("/") == {**server.loom("/"), "name": "LoRA Loom", "host": "AUTOMATIC1111"}
    with urllib.request.urlopen(f"{server.root}/internal/profile-startup", timeout=60) as answer:
        times = json.load(answer)["records"]
    ours = {name: round(seconds, 3) for name, seconds in times.items() if "lora_loom" in name or "host.py" in name}
    print("start-up:", ours, "the whole page:", round(times["create ui"], 2), "s")


def test_settings_are_on_a_page_of_ours(server: Server):
    options = server.host.ask("options")
    assert options["lora_loom_memory_plan"] == "auto"
    server.host.ask("options", {"lora_loom_engine_minutes": 1})
    assert server.host.ask("options")["lora_loom_engine_minutes"] == 1


def test_a_trained_lora_is_listed_and_changes_a_picture_even_when_saved_again(server: Server, installed: Installed):
    without = server.picture(prompt="a photo")
    shown = server.done("/train", training(installed))
    assert len(shown["losses"]) == 20 and shown["marks"]
    names = [entry["name"] for entry in wait_for_list(server, "mine")]
    assert names.count("mine") == 1 and "state" not in names
    first = server.picture()
    assert not np.array_equal(first, without)
    server.done("/merge", {"loras": [{"path": "mine.safetensors"}], "output": "source.safetensors", "overwrite": True})
    save_again(server, 0.3)
    second = server.picture()
    assert not np.array_equal(second, first)
    assert np.array_equal(server.picture(prompt="a photo"), without), "the base is as it was"
    assert np.array_equal(server.picture(), second)


def save_again(server: Server, strength: float) -> None:
    """Another LoRA under the name "mine"."""
    use = {"path": "source.safetensors", "strength": strength}
    server.done("/merge", {"loras": [use], "output": "mine.safetensors", "overwrite": True})
    time.sleep(2.0)  # the host's lists are read again between two pictures


def wait_for_list(server: Server, name: str) -> list[dict[str, Any]]:
    """The host's list once it holds a name that begins so, without a refresh through its API."""
    for _ in range(40):
        entries = server.host.ask("loras")
        if any(entry["name"].startswith(name) for entry in entries):
            return entries
        time.sleep(0.25)
    raise AssertionError(f"{name} did not appear in /sdapi/v1/loras")


def test_a_lora_that_left_the_prompt_leaves_nothing_behind(server: Server):
    """Saved again while merged in, and the next picture is without it."""
    without = server.picture(prompt="a photo")
    server.picture()
    save_again(server, 1.5)
    assert np.array_equal(server.picture(prompt="a photo"), without)


def test_the_host_draws_while_a_training_runs_and_the_training_goes_on(server: Server, installed: Installed):
    alone = server.picture(prompt="a photo")
    id = server.loom("/train", training(installed, name="long", length={"steps": 100_000}))["id"]
    server.until(id, lambda shown: len(shown["losses"]) > 3)
    assert np.array_equal(server.picture(prompt="a photo"), alone)
    server.host.ask("options", {"lora_loom_while_drawing": "pause"})
    server.picture(prompt="a photo", steps=8)
    reached = server.loom(f"/jobs/{id}")["losses"][-1][0]
    shown = server.until(id, lambda shown: shown["state"] == "running" and shown["losses"][-1][0] > reached + 3)
    assert shown["state"] == "running"
    server.loom(f"/jobs/{id}/stop", {})
    shown = server.until(id, lambda shown: shown["over"])
    assert shown["state"] == "stopped" and shown["resumable"]
    assert wait_for_list(server, "long")


def children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX signal")
def test_a_killed_server_leaves_no_child_and_the_next_start_offers_the_training(server: Server, installed: Installed):
    id = server.loom("/train", training(installed, name="killed", length={"steps": 100_000}))["id"]
    reached = server.until(id, lambda shown: len(shown["losses"]) > 5)["losses"][-1][0]
    workers = children(server.process.pid)
    assert workers
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    end = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < end, "the child outlives its host"
        time.sleep(0.2)
    again = installed.start()
    try:
        shown = again.loom(f"/jobs/{id}")
        assert shown["state"] == "interrupted" and shown["resumable"] and shown["losses"]
        new = again.loom(f"/jobs/{id}/again", {})["id"]
        shown = again.until(new, lambda shown: len(shown["losses"]) > 1)
        assert shown["losses"][-1][0] > reached, shown["error"]
        again.loom(f"/jobs/{new}/stop", {})
        assert again.until(new, lambda shown: shown["over"])["state"] == "stopped"
    finally:
        again.process.kill()
        again.process.wait()


def test_the_hosts_packages_are_as_they_were(installed: Installed):
    """After install.py, several starts, trainings and pictures."""
    assert installed.freeze() == installed.packages[0]
    clone = installed.data / "extensions" / "sd-webui-lora-loom"
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    changed = [line for line in status.stdout.splitlines() if not line.endswith(".engine")]
    assert changed == [], "the extension writes nothing into its own folder"
