"""A started WebUI, A1111 or Forge, with a clone of this repository in extensions/."""

from __future__ import annotations

import json
import os
import socket
import subprocess
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
FLAGS = "--skip-prepare-environment --skip-torch-cuda-test --api --no-hashing --disable-nan-check"
FLAGS += " --server-name 127.0.0.1 --no-download-sd-model"
PICTURE = {"prompt": "a photo <lora:mine:1>", "steps": 4, "width": 64, "height": 64, "seed": 1, "sampler_name": "DDIM"}
CLONE = Path("extensions") / "sd-webui-lora-loom"


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
    """A data folder with a model and a clone of this repository in extensions/. `name`: as the host calls itself."""

    name: str
    python: str
    folder: Path
    data: Path
    model: Path
    flags: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)

    @property
    def clone(self) -> Path:
        return self.data / CLONE

    def freeze(self) -> str:
        command = [self.python, "-m", "pip", "freeze", "--all"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def start(self) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [self.python, "launch.py", *FLAGS.split(), "--port", str(port), "--data-dir", str(self.data)]
        command += ["--ckpt", str(self.model), *self.flags]
        quiet = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        environment = {**os.environ, **quiet, **self.environment}
        log = self.data / f"log-{port}.txt"
        with open(log, "wb") as file:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        server = Server(process, A1111(port), f"http://127.0.0.1:{port}", log)
        end = time.monotonic() + 900
        while "Startup time:" not in log.read_text(errors="replace"):  # a request before that can end its start
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{self.name} did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(1)
        return server


def program(variable: str) -> tuple[Path, str]:
    """The folder that VARIABLE_DIR names and the interpreter of VARIABLE_PYTHON. Skips the test without them."""
    folder = os.environ.get(f"{variable}_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable}_DIR does not name a folder with the real program")
    return Path(folder), os.environ.get(f"{variable}_PYTHON", "python3")


def install(found: Installed) -> Installed:
    """Clone into extensions/, with an engine that other runs share, and do what install.py does."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(found.clone)], check=True)
    engines = ROOT / "out" / "test-packages" / "engine"
    engines.mkdir(parents=True, exist_ok=True)
    (found.clone / ".engine").symlink_to(engines)
    found.packages.append(found.freeze())
    done = subprocess.run([found.python, "install.py", "--strict"], cwd=found.clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def started(installed: Installed) -> Iterator[Server]:
    """For a fixture: the server, killed afterwards."""
    server = installed.start()
    yield server
    server.process.kill()
    server.process.wait()
