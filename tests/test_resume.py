"""The resumable state goes through its file unchanged, and only into the same job."""

import pytest
import torch

from lora_core.engine import resume
from lora_core.engine.averages import averaged, has_modes
from lora_core.engine.optimizers import build_optimizer
from lora_core.errors import ConfigError, FileError
from lora_core.jobs import TrainJob
from lora_core.jobs.optimization import OPTIMIZERS, SELF_TUNING, Optimization
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


def pulled(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps on the fourth power of the parameters, with a little noise that depends on the step alone."""
    for step in steps:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            p.grad = p.detach() ** 3 + 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_from_its_file_bit_for_bit(tmp_path, name):
    settings = Optimization(optimizer=name, warmup=2)

    def fresh():
        draw = torch.Generator().manual_seed(1)
        groups = [torch.nn.Parameter(torch.randn(64, 80, generator=draw)), torch.nn.Parameter(torch.ones(3))]
        rate = 1.0 if name in SELF_TUNING else 1e-2
        try:
            return build_optimizer(settings, [{"params": [p], "lr": rate} for p in groups], 20)
        except ConfigError as error:
            pytest.skip(str(error))

    whole, sentence = fresh()
    if sentence:
        pytest.skip(sentence)
    pulled(whole, range(4))
    tensors, rest = resume.split_optimizer(whole.state_dict())
    weights = {f"w{i}": g["params"][0].detach().clone() for i, g in enumerate(whole.param_groups)}
    resume.write_state(tmp_path / "s.safetensors", resume.State(4, tensors | weights, rest, {}, {}), "mark")
    pulled(whole, range(4, 8))
    back = resume.read_state(tmp_path / "s.safetensors", "mark")
    parts, _ = fresh()
    assert back is not None
    with torch.no_grad():
        for i, held in enumerate(parts.param_groups):
            held["params"][0].copy_(back.tensors[f"w{i}"])
    resume.restore_optimizer(parts, back.tensors, back.optimizer)
    pulled(parts, range(4, 8))
    for a, b in zip(whole.param_groups, parts.param_groups, strict=True):
        assert torch.equal(a["params"][0], b["params"][0])


@pytest.mark.parametrize("name", ["adamwschedulefree", "radamschedulefree", "sgdschedulefree"])
def test_looking_at_a_schedule_free_average_changes_no_bit(name):
    results = []
    for look in (True, False):
        p = torch.nn.Parameter(torch.linspace(-1, 2, 64))
        optimizer, sentence = build_optimizer(Optimization(optimizer=name), [{"params": [p], "lr": 0.05}], 20)
        if sentence:
            pytest.skip(sentence)
        pulled(optimizer, range(12))
        if look:
            before = p.detach().clone()
            assert has_modes(optimizer)
            with averaged(optimizer):
                assert not torch.equal(p, before)
            assert torch.equal(p, before)
        pulled(optimizer, range(12, 16))
        results.append(p.detach().clone())
    assert torch.equal(*results)
