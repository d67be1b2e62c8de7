"""Training in several processes: the steps of one process, one writer, and an end with a sentence when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from test_dataset import draw
from test_train import drained, job_for

from lora_core.engine.crew import ALONE, joined
from lora_core.engine.setup import prepare
from lora_core.engine.step import one_step
from lora_core.events import Note
from lora_core.settings import to_json

ROOT = Path(__file__).parents[1]
GRADIENTS = """
import json, sys
from pathlib import Path
from safetensors.torch import save_file
from lora_core import reproducible
reproducible.ask()
from lora_core.engine.crew import joined
from lora_core.engine.setup import prepare
from lora_core.engine.step import one_step
from lora_core.engine.train import end_of
from lora_core.jobs import TrainJob
from lora_core.settings import from_json
job = from_json(TrainJob, json.loads(Path(sys.argv[1]).read_text()))
with joined() as crew:
    run, _ = end_of(crew.in_turn(prepare(job)))
    loss, norm = one_step(run, 0, crew)
    if crew.leads:
        found = {n: p.grad for n, p in run.network.parameters().items()}
        save_file(found, sys.argv[2], {"loss": repr(loss), "norm": repr(norm)})
"""

DISMISSED = """
from lora_core.commands import Commands
from lora_core.engine.crew import joined
commands = Commands()
with joined() as crew:
    crew.dismiss() if crew.leads else crew.heed(commands)
print(commands.stop)
"""


def environments(count: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"} for rank in range(count)]


def started(command: list[str], count: int = 2) -> list[subprocess.Popen]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    return [subprocess.Popen([sys.executable, *command], env=e, **pipes) for e in environments(count)]


@pytest.fixture
def pictures(tmp_path) -> Path:
    for i in range(4):
        draw(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text(f"picture {i}")
    return tmp_path / "pictures"


@pytest.mark.parametrize("batch", [2, 3])
def test_two_processes_give_the_gradients_of_one(tmp_path, pictures, batch):
    """The batch of one process is divided; with three pictures the first process computes two of them."""
    job = job_for(tmp_path / "out", pictures, batch_size=batch, accumulation=2, min_snr_gamma=5.0, text_encoder_lr=1e-4)
    job = replace(job, work_dir=str(tmp_path / "work"))
    run, _ = drained(prepare(job))
    loss, _ = one_step(run, 0)
    (tmp_path / "job.json").write_text(json.dumps(to_json(job)))
    processes = started(["-c", GRADIENTS, str(tmp_path / "job.json"), str(tmp_path / "g.safetensors")])
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = load_file(tmp_path / "g.safetensors")
    wanted = {name: p.grad for name, p in run.network.parameters().items()}
    assert found.keys() == wanted.keys()
    error = sum(float((found[n] - wanted[n]).square().sum()) for n in wanted) ** 0.5
    assert error < 3e-5 * sum(float(g.square().sum()) for g in wanted.values()) ** 0.5
    assert max(float((found[n] - wanted[n]).abs().max()) for n in wanted) < 1e-6
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        assert float(file.metadata()["loss"]) == pytest.approx(loss, rel=1e-6)
    assert any(float(g.abs().max()) > 0 for n, g in found.items() if n.startswith("text_encoder"))


def test_a_training_of_two_processes_writes_one_lora_like_that_of_one(tmp_path, pictures):
    values = {"batch_size": 2, "steps": 3, "train_text_encoder": False, "learning_rate": 1e-3}
    job = job_for(tmp_path / "two", pictures, **values)
    (tmp_path / "job.json").write_text(json.dumps(to_json(job)))
    processes = started(["-m", "lora_core", "train", "--config", str(tmp_path / "job.json")])
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "tiny.safetensors" in outputs[0] and outputs[1].strip() == ""
    assert [path.name for path in (tmp_path / "two").glob("*.safetensors")] == ["tiny.safetensors"]
    from lora_core.run import run

    list(run(job_for(tmp_path / "one", pictures, **values)))
    one, two = (load_file(tmp_path / name / "tiny.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    squares = [
        sum(float(t.square().sum()) for t in tensors) for tensors in ([two[n] - one[n] for n in one], one.values())
    ]
    assert squares[0] < 1e-6 * squares[1]


def test_a_dead_process_ends_the_job_with_a_sentence_and_the_work_is_kept(tmp_path, pictures):
    values = {"batch_size": 2, "steps": 100000, "train_text_encoder": False, "validate_every_steps": 0}
    job = job_for(tmp_path / "out", pictures, save_every_steps=2, **values)
    (tmp_path / "job.json").write_text(json.dumps(to_json(job)))
    first, second = started(["-m", "lora_core", "train", "--config", str(tmp_path / "job.json")])
    end = time.monotonic() + 200
    while not (tmp_path / "out" / "tiny-000002.safetensors").exists() and time.monotonic() < end:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    os.kill(second.pid, signal.SIGKILL)
    said, _ = first.communicate(timeout=120)
    second.communicate()
    assert first.returncode == 1 and "Another process of this training ended" in said, said
    assert "is kept in tiny-" in said and "Traceback" not in said
    assert (tmp_path / "out" / "tiny.loom" / "state.safetensors").exists()
    from lora_core.run import run

    going_on = (event.text for event in run(job) if isinstance(event, Note))
    assert any(text.startswith("Resuming from step") for text in going_on)


def test_the_others_end_when_the_first_says_so():
    ended = started(["-c", DISMISSED])
    outputs = [process.communicate(timeout=240)[0].strip() for process in ended]
    assert [process.returncode for process in ended] == [0, 0] and outputs == ["False", "True"], outputs


def test_alone_without_a_launcher():
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "2"}):
        with joined(environment) as crew:
            assert crew is ALONE
    assert [list(range(5))[replace(ALONE, rank=r, size=2).share(5)] for r in range(2)] == [[0, 2, 4], [1, 3]]
