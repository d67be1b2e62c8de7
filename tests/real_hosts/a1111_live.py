"""The real A1111 as a server on this machine: started once, asked through its API."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FLAGS = "--skip-prepare-environment --skip-torch-cuda-test --use-cpu all --no-half --api --nowebui"
FLAGS += " --disable-nan-check --server-name 127.0.0.1 --no-download-sd-model"


class A1111:
    """A running webui. `txt2img` and `img2img` take the API's own fields and give RGB arrays [h, w, 3]."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}/sdapi/v1/"

    def ask(self, route: str, fields: dict[str, Any] | None = None) -> Any:
        data = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(self.root + route, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=1500) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{route}: {error.read().decode()[-2000:]}") from error

    def txt2img(self, **fields: Any) -> list[np.ndarray]:
        return pictures_of(self.ask("txt2img", fields))

    def img2img(self, image: Image.Image, mask: Image.Image | None = None, **fields: Any) -> list[np.ndarray]:
        sent = {"init_images": [encoded(image)], "include_init_images": False, **fields}
        if mask is not None:
            sent["mask"] = encoded(mask)
        return pictures_of(self.ask("img2img", sent))


def pictures_of(answer: dict[str, Any]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in answer["images"]]


def encoded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def running_a1111(checkpoint: Path, hub: Path, data: Path, hashing: bool = False) -> Iterator[A1111]:
    """Start the webui on a checkpoint with its own data folder; it is stopped at the end. LoRAs: `Lora` beside it.

    Skips unless A1111_DIR names the program (A1111_PYTHON: its interpreter).
    """
    folder = os.environ.get("A1111_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("A1111_DIR does not name a folder with the real program")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [os.environ.get("A1111_PYTHON", "python3"), "launch.py", *FLAGS.split(), "--port", str(port)]
    command += ["--data-dir", str(data), "--ckpt", str(checkpoint), "--ckpt-dir", str(checkpoint.parent)]
    if not hashing:
        command.append("--no-hashing")
    if (checkpoint.parent / "Lora").is_dir():
        command += ["--lora-dir", str(checkpoint.parent / "Lora")]
    environment = {**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    log = data / "log.txt"
    data.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        host = A1111(port)
        _wait(host, process, log)
        yield host
    finally:
        process.terminate()
        process.wait(60)


def _wait(host: A1111, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            host.ask("options")
            return
        except (urllib.error.URLError, AssertionError, OSError):
            if process.poll() is not None:
                break
            time.sleep(1)
    pytest.fail(f"A1111 did not start:\n{log.read_text(errors='replace')[-4000:]}")
