"""Trainings with other networks, optimizers and starts, end to end on a tiny model."""

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_train import drained, job_for, losses, pictures  # noqa: F401

from lora_core.architecture import architecture_of
from lora_core.commands import Commands
from lora_core.engine.guard import Guard
from lora_core.engine.setup import prepare
from lora_core.engine.step import one_step
from lora_core.errors import ConfigError, KeyMismatch
from lora_core.events import Loss, Note
from lora_core.lora_file import read_lora
from lora_core.networks import NetworkFile
from lora_core.run import run
from lora_core.settings import replace_by_name
from lora_core.tensors import data_hash

KINDS = {
    "dora": {"algorithm": "dora", "conv_rank": 2},
    "lokr": {"algorithm": "lokr", "rank": 1, "lokr_factor": 4},
    "pissa": {"initialisation": "pissa"},
    "ema": {"ema": 0.9, "max_norm": 0.05},
    "rates and dropouts": {
        **{"block_lr": "IN*=0.5,M00=2", "lora_plus_ratio": 4.0, "dropout": 0.2, "rank_dropout": 0.3},
        **{"module_dropout": 0.3, "schedule_class": "StepLR", "schedule_args": ("step_size = 2", "gamma = 0.5")},
    },
    "schedule-free": {"optimizer": "adamwschedulefree"},
    "prodigy": {"optimizer": "prodigy", "learning_rate": 1.0, "optimizer_args": ("d_coef = 2",)},
}  # fmt: skip
PACKAGES = {"schedule-free": "schedulefree", "prodigy": "prodigyopt"}


def kind_of_job(folder: Path, pictures: Path, kind: str, **values):  # noqa: F811
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind])
    return job_for(folder, pictures, **({"train_text_encoder": False, "steps": 3} | KINDS[kind] | values))


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_gives_the_bytes_of_one_go(tmp_path, pictures, kind):  # noqa: F811
    whole = list(run(kind_of_job(tmp_path / "whole", pictures, kind)))
    job, parts = kind_of_job(tmp_path / "parts", pictures, kind, save_every_steps=1), []
    for end in (1, 3):
        commands = Commands()
        for event in run(job, commands):
            parts.append(event)
            commands.stop = commands.stop or (isinstance(event, Loss) and event.step == end < 3)
    assert losses(parts) == losses(whole)
    assert data_hash(parts[-1].outputs[0]) == data_hash(whole[-1].outputs[0])
    with NetworkFile(whole[-1].outputs[0], architecture_of(job.base)) as file:
        assert not file.unmatched and len(file.changes) >= 192
        said = file.metadata["ss_network_module"], file.metadata.get("ss_network_args", "")
    assert said[0] == ("lycoris.kohya" if "algorithm" in KINDS[kind] else "networks.lora")
    assert ('"dora_wd": "True"' in said[1]) == (kind == "dora")


def test_the_saved_file_is_the_average_of_the_weights(tmp_path, pictures):  # noqa: F811
    job = kind_of_job(tmp_path, pictures, "ema", ema=0.5, max_norm=0.0, steps=4)
    prepared, course = drained(prepare(job))
    guard = Guard(prepared.network)
    name = next(iter(prepared.network.tensors()))
    average = prepared.network.tensors()[name].clone()
    for step in range(4):
        loss, norm = one_step(prepared, step)
        list(guard.judge(prepared, course, loss, norm))
        course.step += 1
        decay = min(0.5, (2 + step) / (11 + step))
        average = decay * average + (1 - decay) * prepared.network.tensors()[name]
    saved = load_file(list(run(job))[-1].outputs[0])
    key = "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"
    assert name == "unet.down_blocks.0.attentions.0.proj_in.down"
    assert torch.allclose(saved[key], average, atol=1e-6)
    assert not torch.allclose(saved[key], prepared.network.tensors()[name], atol=1e-6)


def test_no_change_is_longer_than_the_largest_norm(tmp_path, pictures):  # noqa: F811
    job = job_for(tmp_path, pictures, max_norm=0.01, train_text_encoder=False, steps=3, learning_rate=0.01)
    lengths = [float(m.delta().norm()) for m in read_lora(list(run(job))[-1].outputs[0]).modules.values()]
    assert max(lengths) <= 0.01 * 1.001 and max(lengths) > 0.009


def test_rates_of_blocks_and_of_up_matrices(tmp_path, pictures):  # noqa: F811
    job = job_for(tmp_path, pictures, block_lr="IN01=0.5,OUT*=0", lora_plus_ratio=8.0, lora_plus_text_ratio=2.0)
    prepared, _ = drained(prepare(job))
    rates = {p: group["initial_lr"] for group in prepared.optimizer.param_groups for p in group["params"]}
    found = {name: rates[p] for name, p in prepared.network.parameters().items()}
    assert found["unet.down_blocks.0.attentions.0.proj_in.down"] == pytest.approx(0.5e-3)
    assert found["unet.down_blocks.0.attentions.0.proj_in.up"] == pytest.approx(4e-3)
    assert found["unet.mid_block.attentions.0.proj_in.up"] == pytest.approx(8e-3)
    text = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    assert (found[f"{text}.down"], found[f"{text}.up"]) == pytest.approx((2e-4, 4e-4))
    assert not [name for name in found if "up_blocks" in name]


def frozen(folder: Path, pictures: Path, start: str, **values):  # noqa: F811
    """Train on from a file so slowly that it stays as it is; the notes and the result."""
    slow = {"learning_rate": 1e-12, "train_text_encoder": False, "steps": 1, "start_from": start, "weight_decay": 0.0}
    events = list(run(job_for(folder, pictures, **(slow | values))))
    return " ".join(e.text for e in events if isinstance(e, Note)), events[-1].outputs[0]


def deltas(path: str) -> dict[str, torch.Tensor]:
    """The change of every layer, from the base's own weights where it depends on them."""
    arch = architecture_of(tiny.checkpoint("sd15"))
    from lora_core.tensors import open_tensors

    with NetworkFile(path, arch) as file, open_tensors(tiny.checkpoint("sd15")) as base:
        weights = {n: base.read(c.layer.key.base, torch.float32) for n, c in file.changes.items()}
        return {n: file.delta(n, weights[n], tuple(weights[n].shape)) for n in file.changes}


@pytest.fixture(scope="module")
def start(tmp_path_factory, pictures) -> str:  # noqa: F811
    """A LoRA of rank 3 that changes something."""
    folder = tmp_path_factory.mktemp("start")
    job = job_for(folder, pictures, rank=3, alpha=2.0, steps=3, learning_rate=0.01, train_text_encoder=False)
    return list(run(job))[-1].outputs[0]


@pytest.mark.parametrize(("rank", "words"), [(5, "192 modules .* another rank"), (2, "approximated by SVD"), (3, "")])
def test_another_rank_goes_on_by_padding_or_svd(tmp_path, pictures, start, rank, words):  # noqa: F811
    notes, file = frozen(tmp_path, pictures, start, rank=rank, alpha=4.0, rank_from_start=False)
    found, before = deltas(file), deltas(start)
    for name, delta in before.items():
        kept = delta
        if rank == 2:
            u, s, vh = torch.linalg.svd(delta.flatten(1), full_matrices=False)
            kept = ((u[:, :2] * s[:2]) @ vh[:2]).reshape(delta.shape)
        assert torch.allclose(found[name], kept, atol=1e-5)
    assert {m.rank for m in read_lora(file).modules.values()} == {rank}
    import re

    assert re.search(words, notes)


@pytest.mark.parametrize("algorithm", ["dora", "lora"])
def test_dora_goes_on_from_lora_and_lora_from_dora(tmp_path, pictures, start, algorithm):  # noqa: F811
    _, dora = frozen(tmp_path / "a", pictures, start, algorithm="dora")
    if algorithm == "dora":
        first, second = start, frozen(tmp_path / "b", pictures, dora, algorithm="dora")[1]
    else:
        rank = {"rank": 48, "alpha": 48.0}
        first, second = start, frozen(tmp_path / "b", pictures, dora, **rank)[1]
    before, after = deltas(first), deltas(second)
    for name in before:
        assert (after[name] - before[name]).norm() <= 2e-3 * before[name].norm() + 1e-6


def test_other_dialects_and_algorithms_are_trained_on(tmp_path, pictures, start):  # noqa: F811
    peft = {}
    for name, module in read_lora(start).modules.items():
        path = f"base_model.model.{name.split('.', 1)[1]}"
        peft[f"{path}.lora_A.weight"], peft[f"{path}.lora_B.weight"] = module.down, module.up * module.scale
    save_file(peft, tmp_path / "peft.safetensors")
    _, file = frozen(tmp_path / "a", pictures, str(tmp_path / "peft.safetensors"))
    before = deltas(start)
    assert all(torch.allclose(d, before[n], atol=1e-5) for n, d in deltas(file).items())
    job = kind_of_job(tmp_path / "k", pictures, "lokr", learning_rate=0.01, steps=3)
    lokr = list(run(job))[-1].outputs[0]
    _, again = frozen(tmp_path / "b", pictures, lokr, algorithm="lokr", lokr_factor=4)
    before = deltas(lokr)
    assert all(torch.allclose(d, before[n], atol=1e-6) for n, d in deltas(again).items())
    _, plain = frozen(tmp_path / "c", pictures, lokr, rank=64, alpha=64.0)
    errors = [(d - before[n]).norm() / before[n].norm() for n, d in deltas(plain).items()]
    assert max(errors) < 1e-2 and isinstance(read_lora(plain).modules, dict)
    with pytest.raises(KeyMismatch, match="to train loha on from it"):
        frozen(tmp_path / "d", pictures, start, algorithm="loha")


def test_loras_in_the_base_are_as_if_merged_into_its_file(tmp_path, pictures, start):  # noqa: F811
    from lora_core.jobs import LoraUse
    from lora_core.jobs.tools import MergeIntoCheckpointJob

    merged = tmp_path / "merged.safetensors"
    base = str(tiny.checkpoint("sd15"))
    list(run(MergeIntoCheckpointJob(base, (LoraUse(start, 0.7),), str(merged), "fp32")))
    values = {"train_text_encoder": False, "steps": 3}
    one = list(run(job_for(tmp_path / "a", pictures, base_loras=(f"{start} = 0.7",), **values)))
    two = list(run(replace_by_name(job_for(tmp_path / "b", pictures, **values), {"base": str(merged)})))
    three = list(run(job_for(tmp_path / "c", pictures, **values)))
    assert losses(one) == pytest.approx(losses(two), rel=1e-5) and losses(one) != pytest.approx(losses(three), rel=1e-5)
    with pytest.raises(ConfigError, match="no LoRA file"):
        list(run(job_for(tmp_path / "d", pictures, base_loras=("nowhere.safetensors = 1",), **values)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"algorithm": "loha", "dropout": 0.1}, "belong to lora and dora"),
        ({"initialisation": "pissa", "algorithm": "dora"}, "start of lora"),
        ({"initialisation": "pissa", "max_norm": 1.0}, "does not go together"),
        ({"algorithm": "ia3", "max_norm": 1.0}, "multiplies"),
        ({"optimizer": "prodigy", "learning_rate": 1.0, "lora_plus_ratio": 4.0}, "takes one learning rate"),
        ({"optimizer": "adamwschedulefree", "ema": 0.9}, "average the weights themselves"),
        ({"optimizer_args": ("d_coef 2",)}, "NAME = VALUE"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, pictures, values, words):  # noqa: F811
    assert any(words in line for line in job_for(tmp_path, pictures, **values).problems())


def test_programs_that_do_not_read_a_network_are_named_before_and_after(tmp_path, pictures):  # noqa: F811
    def warnings(algorithm):
        values = {"algorithm": algorithm, "train_text_encoder": False, "steps": 1}
        events = list(run(job_for(tmp_path / algorithm, pictures, **values)))
        return [(n, e.text) for n, e in enumerate(events) if isinstance(e, Note) and "Forge" in e.text], len(events)

    ((first, before), (last, after)), count = warnings("ia3")
    assert "ComfyUI and Forge do not read" in before and "A1111 does" in before and first < last - 2
    assert after.endswith("is not applied by Forge and ComfyUI: IA3 is not read.") and last == count - 2
    assert warnings("lokr")[0] == []
