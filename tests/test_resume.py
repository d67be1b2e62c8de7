"""The resumable state goes through its file unchanged, and only into the same job."""

import pytest
import torch

from lora_core.engine import resume
from lora_core.errors import FileError
from lora_core.jobs import TrainJob
from lora_core.settings import replace_by_name


def stepped_adamw() -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
    p = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    optimizer = torch.optim.AdamW([{"params": [p], "lr": 0.1}])
    (p**2).sum().backward()
    optimizer.step()
    return optimizer, p


def test_optimizer_state_survives_the_file_bit_for_bit(tmp_path):
    optimizer, p = stepped_adamw()
    tensors, rest = resume.split_optimizer(optimizer.state_dict())
    state = resume.State(1, tensors, rest, {"last_epoch": 1}, {"course": {}})
    resume.write_state(tmp_path / "state.safetensors", state, "mark")
    back = resume.read_state(tmp_path / "state.safetensors", "mark")
    assert back is not None and back.step == 1 and back.schedule == {"last_epoch": 1}
    twin = torch.nn.Parameter(p.detach().clone())
    other = torch.optim.AdamW([{"params": [twin], "lr": 0.5}])
    other.load_state_dict(resume.join_optimizer(back.tensors, back.optimizer))
    for o, q in ((optimizer, p), (other, twin)):
        q.grad = torch.ones_like(q)
        o.step()
    assert torch.equal(p, twin)


def test_a_state_of_another_job_is_not_taken(tmp_path):
    path = tmp_path / "state.safetensors"
    resume.write_state(path, resume.State(3, {"a": torch.ones(1)}, {}, {}, {}), "one")
    assert resume.read_state(path, "two") is None
    assert resume.read_state(tmp_path / "none.safetensors", "one") is None


def test_a_damaged_state_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "state.safetensors"
    resume.write_state(path, resume.State(3, {"a": torch.ones(1000)}, {}, {}, {}), "one")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match=r"state\.safetensors"):
        resume.read_state(path, "one")


def test_fingerprint_ignores_where_things_go_and_sees_what_changes_the_result():
    job = TrainJob(base="b", output_dir="a")
    mark = resume.fingerprint(job, {"pictures": [["x", "y"]]})
    for same in (
        {"output_dir": "other"},
        {"save_every_steps": 7},
        {"cache_dir": "c"},
        {"gradient_checkpointing": True},
        {"base": "moved"},
        {"work_dir": "w"},
    ):
        assert resume.fingerprint(replace_by_name(job, same), {"pictures": [["x", "y"]]}) == mark
    for other in ({"learning_rate": 2e-4}, {"seed": 1}, {"rank": 4}, {"epochs": 11}):
        assert resume.fingerprint(replace_by_name(job, other), {"pictures": [["x", "y"]]}) != mark
    assert resume.fingerprint(job, {"pictures": [["x", "z"]]}) != mark
