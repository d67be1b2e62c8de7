"""One job through every door - a ComfyUI graph, A1111's queue, the command line - gives one and the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hosts.fake_a1111 import FakeHost, extension
from PIL import Image
from test_comfy_nodes import DEMO_BASE, desk, loom, training  # noqa: F401  (two fixtures)

from lora_core.jobs import InpaintJob, TrainJob
from lora_core.run import kind_of
from lora_core.settings import replace_by_name, to_json
from lora_core.tensors import data_hash, read_header

ROOT = Path(__file__).resolve().parents[1]
extension()


def test_a_training_gives_the_same_file(loom, tmp_path: Path) -> None:  # noqa: F811
    name = loom.run("Train", **training(loom)).values[1]
    files = {"comfyui": loom.comfy.base / "models" / "loras" / name}
    plain = replace_by_name(last_job(loom), {"output_dir": "", "work_dir": ""})
    files["a1111"] = through_a1111(plain, tmp_path / "a1111")
    files["command line"] = through_command_line(plain, tmp_path / "cli")
    assert len({data_hash(path) for path in files.values()}) == 1
    told = [told_by(path) for path in files.values()]
    assert told[0] == told[1] == told[2]


def test_an_inpainting_gives_the_same_picture(loom, tmp_path: Path) -> None:  # noqa: F811
    picture, mask = torch.rand(1, 64, 96, 3), torch.zeros(1, 64, 96)
    mask[:, 20:40, 30:60] = 1
    values = {"base": DEMO_BASE, "prompt": "(1boy:1.2), blue shirt", "steps": 3, "seed": 9, "width": 64, "height": 64}
    drawn = loom.run("Inpaint", image=picture, mask=mask, **values).values[0]
    job = last_job(loom)
    assert isinstance(job, InpaintJob)
    plain = replace_by_name(job, {"output_dir": ""})
    pictures = [through_a1111(plain, tmp_path / "a1111"), through_command_line(plain, tmp_path / "cli")]
    for path in pictures:
        assert (np.asarray(Image.open(path)) == (drawn[0].numpy() * 255).round().astype(np.uint8)).all()
    assert Image.open(pictures[0]).info["parameters"] == Image.open(pictures[1]).info["parameters"]


def last_job(loom) -> Any:  # noqa: F811
    desk = loom.part("work").desk()  # noqa: F811
    return desk.job(desk.tickets()[-1].id)


def told_by(path: Path) -> dict[str, str]:
    """The metadata, less when it was made, and less the hash of a fixed place in the file, which longer times move."""
    times = {"ss_training_started_at", "ss_training_finished_at", "ss_session_id", "modelspec.date", "sshs_legacy_hash"}
    return {key: value for key, value in read_header(path).metadata.items() if key not in times}


def through_a1111(job: TrainJob | InpaintJob, folder: Path) -> Path:
    host = FakeHost(folder)
    try:
        id = host.desk.submit(host.filled(kind_of(job), job))
        list(host.desk.wait(id, 10**9, 120))
        assert host.desk.ticket(id).state == "done", host.desk.ticket(id).error
        return Path(host.desk.ticket(id).outputs[0])
    finally:
        host.desk.close(5)


def through_command_line(job: TrainJob | InpaintJob, folder: Path) -> Path:
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(to_json(job)))
    command = [sys.executable, "-m", "lora_core", kind_of(job), "--config", str(folder / "job.json")]
    done = subprocess.run(
        [*command, "--output-dir", str(folder / "out")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return next(path for path in (folder / "out").iterdir() if path.suffix in (".safetensors", ".png"))
