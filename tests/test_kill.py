"""kill -9 at a random moment, twice, and resume: the same weights, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from PIL import Image

from lora_core.tensors import data_hash, read_header

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 40, 200)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a, b, c{i}")
    return folder


def command(pictures: Path, folder: Path, **more: object) -> list[str]:
    values = {
        "base": tiny.checkpoint("sd15"), "folder": pictures, "output-dir": folder, "name": "killed", "steps": 40,
        "width": 64, "height": 64, "rank": 2, "learning-rate": 0.001, "state-every-steps": 1, "dtype": "fp32",
        "save-precision": "fp32", "trigger": "armin", **more,
    }  # fmt: skip
    flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "lora_core", "train", *flags, "--no-train-text-encoder"]


def state_step(folder: Path) -> int:
    path = folder / "killed.loom" / "state.safetensors"
    return int(read_header(path).metadata["step"]) if path.exists() else 0


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX signal")
@pytest.mark.parametrize(
    "values",
    [
        {"algorithm": "dora", "ema": 0.9},
        pytest.param({"algorithm": "lokr", "optimizer": "prodigy", "learning-rate": 1}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "adamwschedulefree"}, marks=pytest.mark.slow),
    ],
    ids=["dora, ema", "lokr, prodigy", "schedule-free"],
)
def test_killed_twice_and_resumed_gives_equal_bytes(tmp_path, pictures, values):
    packages = {"prodigy": "prodigyopt", "adamwschedulefree": "schedulefree"}
    if values.get("optimizer") in packages:
        pytest.importorskip(packages[values["optimizer"]])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run(command(pictures, whole, **values), cwd=ROOT, check=True, capture_output=True)
    chance = random.Random()
    for least in (1, 12):
        process = subprocess.Popen(
            command(pictures, parts, **values), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        target = least + chance.randrange(8)
        while state_step(parts) < target and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 0 < state_step(parts) < 40, "the training ended before it could be killed"
        assert not list(parts.glob("*.safetensors")), "a killed training must not leave a half-written LoRA"
    subprocess.run(command(pictures, parts, **values), cwd=ROOT, check=True, capture_output=True)
    assert data_hash(parts / "killed.safetensors") == data_hash(whole / "killed.safetensors")
