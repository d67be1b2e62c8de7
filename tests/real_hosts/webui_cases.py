"""What A1111 and Forge are asked alike; test_a1111.py and test_forge.py run these with their fixtures.

Page, REST, a training, its LoRA in a picture, a killed server.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webui_server import Installed, Server

PICTURES = Path("lora_core") / "assets" / "demo" / "armin_vicerre"


def training(installed: Installed, **more: Any) -> dict[str, Any]:
    return {
        "base": installed.model.name,
        "name": "mine",
        "dataset": {"folder": str(installed.clone / PICTURES), "width": 64, "height": 64},
        "captions": {"trigger": "armin"},
        "network": {"rank": 4},
        "optimization": {"learning_rate": 0.003, "schedule": "constant"},
        "length": {"steps": 20},
        "saves": {"state_every_steps": 1},
        "memory": {"dtype": "fp32"},
        **more,
    }


def test_it_starts_without_errors_and_shows_its_tab(server: Server, installed: Installed):
    log = server.log.read_text(errors="replace")
    assert "Error" not in log and "***" not in log and "Traceback" not in log, log[-5000:]
    with urllib.request.urlopen(f"{server.root}/config", timeout=60) as answer:
        parts = [part.get("props", {}) for part in json.load(answer)["components"]]
    assert any(part.get("label") == "LoRA Loom" for part in parts)
    assert any(str(part.get("elem_id", "")).startswith("lora_loom") for part in parts)
    with urllib.request.urlopen(server.root, timeout=60) as answer:
        page = answer.read().decode()
    assert "sd-webui-lora-loom/javascript/lora_loom.js" in page and "sd-webui-lora-loom/style.css" in page
    assert server.loom("/") == {**server.loom("/"), "name": "LoRA Loom", "host": installed.name}
    with urllib.request.urlopen(f"{server.root}/internal/profile-startup", timeout=60) as answer:
        times = json.load(answer)["records"]
    ours = {
        name: round(seconds, 3) for name, seconds in times.items() if "lora_loom" in name or "host_pages.py" in name
    }
    print("start-up:", ours, "the whole page:", round(times["create ui"], 2), "s")


def test_settings_are_on_a_page_of_ours(server: Server, installed: Installed):
    with urllib.request.urlopen(f"{server.root}/config", timeout=60) as answer:
        ids = {part.get("props", {}).get("elem_id") for part in json.load(answer)["components"]}
    assert {"setting_lora_loom_memory_plan", "setting_lora_loom_engine_minutes"} <= ids
    server.host.ask("options", {"lora_loom_engine_minutes": 1})
    assert json.loads((installed.data / "config.json").read_text("utf-8"))["lora_loom_engine_minutes"] == 1


def test_a_trained_lora_is_listed_and_changes_a_picture_even_when_saved_again(server: Server, installed: Installed):
    without = server.picture(prompt="a photo")
    shown = server.done("/train", training(installed))
    assert len(shown["losses"]) == 20 and shown["marks"]
    names = [entry["name"] for entry in wait_for_list(server, "mine")]
    assert names.count("mine") == 1 and "state" not in names
    first = server.picture()
    assert not np.array_equal(first, without) and first.std() > 1, "another picture, and not a black one"
    [entry] = [entry for entry in wait_for_list(server, "mine") if entry["name"] == "mine"]
    card = json.loads(Path(entry["path"]).with_suffix(".json").read_text("utf-8"))
    assert card["activation text"] == "armin" and card["preferred weight"] == 1
    assert "ssmd_cover_images" in entry["metadata"]
    server.done("/merge", {"loras": [{"path": "mine.safetensors"}], "output": "source.safetensors", "overwrite": True})
    save_again(server, 0.3)
    second = changed(server, first)
    assert np.array_equal(server.picture(prompt="a photo"), without), "the base is as it was"
    assert np.array_equal(server.picture(), second)


def save_again(server: Server, strength: float) -> None:
    """Another LoRA under the name "mine"."""
    use = {"path": "source.safetensors", "strength": strength}
    server.done("/merge", {"loras": [use], "output": "mine.safetensors", "overwrite": True})
    time.sleep(2.0)  # the host's lists are read again between two pictures


def changed(server: Server, before: np.ndarray) -> np.ndarray:
    """The picture as soon as it is another one."""
    for _ in range(20):
        picture = server.picture()
        if not np.array_equal(picture, before):
            return picture
        time.sleep(1)
    raise AssertionError("the LoRA that was saved again is not used")


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


@pytest.fixture
def card(installed: Installed) -> Iterator[Path]:
    """What a pretended graphics card has seen so far, a line each; the next server that starts has one."""
    extension = installed.data / "extensions" / "pretended-card"
    (extension / "scripts").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "probes" / "pretended_card.py", extension / "scripts")
    yield installed.data / "card.txt"
    shutil.rmtree(extension)


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX signal")
def test_the_hosts_model_makes_room_and_comes_back_however_a_job_ends(installed: Installed, card: Path):
    """After success, stop and crash, and for a picture in the middle. Forge itself loads it for the next picture."""
    server = installed.start()
    try:
        server.host.ask("options", {"lora_loom_memory_plan": "always", "lora_loom_while_drawing": "auto"})
        before = server.picture(prompt="a photo")
        card.unlink(missing_ok=True)  # loading a model for the first time
        server.done("/train", training(installed, name="room"))
        came_back(server, installed, card, before, 1)

        id = server.loom("/train", training(installed, name="room2", length={"steps": 100_000}))["id"]
        server.until(id, lambda shown: len(shown["losses"]) > 3)
        assert card.read_text().split()[-1] == "away"
        assert np.array_equal(server.picture(prompt="a photo"), before), "drawn while the training pauses"
        assert card.read_text().split().count("back") == 2
        reached = server.loom(f"/jobs/{id}")["losses"][-1][0]
        assert server.until(id, lambda shown: shown["losses"][-1][0] > reached + 3)["state"] == "running"
        assert card.read_text().split().count("away") == 3, "it left again for the training that goes on"
        server.loom(f"/jobs/{id}/stop", {})
        assert server.until(id, lambda shown: shown["over"])["state"] == "stopped"
        came_back(server, installed, card, before, 3)

        id = server.loom("/train", training(installed, name="room3", length={"steps": 100_000}))["id"]
        server.until(id, lambda shown: len(shown["losses"]) > 3)
        for worker in children(server.process.pid):
            os.kill(worker, signal.SIGKILL)
        shown = server.until(id, lambda shown: shown["over"])
        assert shown["state"] not in ("done", "stopped") and shown["error"]
        came_back(server, installed, card, before, 4)
    finally:
        server.process.kill()
        server.process.wait()


def came_back(server: Server, installed: Installed, card: Path, before: np.ndarray, times: int) -> None:
    """The model has left and come back so often, and draws what it drew."""
    end = time.monotonic() + 60
    while installed.name != "Forge" and card.read_text().split()[-1] != "back":
        assert time.monotonic() < end, "the host's model did not come back"
        time.sleep(0.2)
    assert np.array_equal(server.picture(prompt="a photo"), before)
    assert card.read_text().split() == ["away", "back"] * times


def test_the_hosts_packages_are_as_they_were(installed: Installed):
    """After install.py, several starts, trainings and pictures."""
    assert installed.freeze() == installed.packages[0]
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=installed.clone, capture_output=True, text=True, check=True
    )
    changed = [line for line in status.stdout.splitlines() if not line.endswith(".engine")]
    assert changed == [], "the extension writes nothing into its own folder"
