"""Training settings back from a LoRA's metadata, ours and kohya's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from lora_core.architecture import architecture_of
from lora_core.cli import build, main, parser
from lora_core.errors import FileError
from lora_core.jobs.train import TrainJob
from lora_core.lora_metadata import TrainingFacts, training_metadata
from lora_core.settings import replace_by_name
from lora_core.train_like import common_tag, differences, job_like, optimizer, read_value

DATA = Path(__file__).parent / "data" / "kohya_metadata.json"


def lora(path: Path, metadata: dict[str, str], text: bool = True, dtype: torch.dtype = torch.float16) -> Path:
    names = ["lora_unet_a", *(["lora_te_b"] if text else [])]
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 2, dtype=dtype) for name in names}
    save_file(tensors | {"lora_unet_a.alpha": torch.tensor(1.0)}, path, metadata)
    return path


def facts(job: TrainJob) -> TrainingFacts:
    return TrainingFacts(
        arch=architecture_of(tiny.checkpoint("sd15")),
        session_id=1, started_at=1.0, finished_at=2.0, step=50, epoch=1, num_epochs=4, max_train_steps=job.length.steps,
        warmup_steps=int(job.optimization.warmup), num_train_images=8, num_batches_per_epoch=4,
        unet_lr=job.optimization.learning_rate, text_encoder_lr=(job.optimization.text_encoder_lr or 0.0,),
        dataset_dirs={"3_me": (3, 8)},
    )  # fmt: skip


OURS = {
    "base": "model.safetensors",
    "name": "me",
    "seed": 7,
    "width": 640,
    "height": 384,
    "batch_size": 3,
    "min_bucket": 128,
    "no_upscale": True,
    "flip": True,
    "trigger": "armin",
    "shuffle": False,
    "keep_tokens": 2,
    "caption_dropout": 0.1,
    "tag_dropout": 0.2,
    "clip_skip": 2,
    "max_tokens": 150,
    "rank": 24,
    "alpha": 12.0,
    "conv_rank": 8,
    "conv_alpha": 4.0,
    "learning_rate": 3e-4,
    "text_encoder_lr": 5e-5,
    "schedule": "cosine_with_restarts",
    "warmup": 10.0,
    "max_grad_norm": 0.5,
    "accumulation": 2,
    "steps": 200,
    "min_snr_gamma": 0.0,
    "noise_offset": 0.05,
    "min_timestep": 100,
    "max_timestep": 900,
    "loss": "huber",
    "comment": "a comment",
    "repeats": 3,
    "gradient_checkpointing": True,
}


def test_our_own_settings_come_back(tmp_path: Path) -> None:
    job = replace_by_name(TrainJob(), OURS)
    path = lora(tmp_path / "me-000050.safetensors", training_metadata(job, facts(job), "me"))
    found, sentences = job_like(path)
    differing = {d.name: (d.first, d.second) for d in differences(job, found)}
    assert differing.keys() <= {"dtype", "state_every_steps", "validate_every_steps"}, differing
    assert (found.base, found.name, found.saves.comment) == ("model.safetensors", "me", "a comment")
    told = " ".join(sentences)
    assert "step 50 of 200" in told and "3_me: 8 x 3" in told and "pictures are not in the file" in told


def test_kohyas_own_metadata(tmp_path: Path) -> None:
    metadata = json.loads(DATA.read_text())
    found, sentences = job_like(lora(tmp_path / "k.safetensors", metadata, dtype=torch.float32))
    assert (found.network.rank, found.network.alpha, found.seed, found.length.steps) == (16, 8.0, 42, 8)
    assert (found.dataset.width, found.dataset.min_bucket, found.dataset.repeats) == (256, 128, 5)
    assert (found.optimization.optimizer, found.optimization.schedule) == ("adamw", "constant")
    assert (found.noise.min_snr_gamma, found.captions.shuffle, found.network.train_text_encoder) == (0.0, False, True)
    assert found.saves.save_precision == "fp32" and found.captions.trigger == "armin_vicerre person"
    assert any("taken for the trigger" in sentence for sentence in sentences)
    assert not job_like(lora(tmp_path / "u.safetensors", metadata, text=False))[0].network.train_text_encoder


def test_a_dataset_config_and_odd_values(tmp_path: Path) -> None:
    dataset = {"resolution": [768, 512], "enable_bucket": True, "batch_size_per_device": 4, "min_bucket_reso": 320}
    dataset["subsets"] = [{"shuffle_caption": True, "keep_tokens": 3}]
    metadata = {"ss_datasets": json.dumps([dataset]), "ss_max_train_steps": "9", "ss_learning_rate": "0.001"}
    metadata |= {"ss_optimizer": "prodigyopt.prodigy.Prodigy(weight_decay=0.3,betas=(0.8, 0.95))"}
    metadata |= {"ss_color_aug": "True", "ss_unheard_of": "1", "ss_base_model_version": "sdxl_base_v1-0"}
    metadata |= {"modelspec.prediction_type": "v", "ss_tag_frequency": "{broken"}
    found, _ = job_like(lora(tmp_path / "d.safetensors", metadata))
    assert (found.dataset.width, found.dataset.height, found.dataset.batch_size) == (768, 512, 4)
    assert (found.captions.shuffle, found.captions.keep_tokens, found.dataset.min_bucket) == (True, 3, 320)
    assert (found.optimization.optimizer, found.optimization.weight_decay) == ("prodigy", 0.3)
    assert (found.optimization.beta1, found.optimization.beta2, found.noise.prediction) == (0.8, 0.95, "v")


@pytest.mark.parametrize("metadata", [{}, {"ss_output_name": "x"}, {"modelspec.title": "x"}])
def test_files_that_do_not_tell(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(FileError, match="does not say how it was trained"):
        job_like(lora(tmp_path / "a.safetensors", metadata))


def test_parts() -> None:
    assert optimizer("torch.optim.adamw.AdamW") == {"optimizer_type": "torch.optim.adamw.AdamW", "optimizer_args": []}
    assert optimizer("a.B(x=1,betas=(0.9, 0.99))")["optimizer_args"] == ["x=1", "betas=(0.9, 0.99)"]
    assert [read_value(t) for t in ("None", "True", "(256, 256)", '{"a": 1}', "(odd", "1e-4")] == [
        None,
        True,
        (256, 256),
        {"a": 1},
        "(odd",
        "1e-4",
    ]
    frequency = {"f": {"a": 3, "b": 2}}
    assert common_tag({"tag_frequency": frequency, "dataset_dirs": {"f": {"img_count": 3}}}) == "a"
    assert common_tag({"tag_frequency": frequency, "dataset_dirs": {"f": {"img_count": 4}}}) == ""


def test_differences_leave_places_out() -> None:
    one = TrainJob(base="a", name="b")
    other = replace(one, base="c", seed=3)
    assert [(d.name, d.first, d.second) for d in differences(one, other)] == [("seed", 0, 3)]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = replace_by_name(TrainJob(), OURS)
    path = lora(tmp_path / "me.safetensors", training_metadata(job, facts(job), "me"))
    assert main(["like", str(path)]) == 0
    assert "--rank 24" in capsys.readouterr().out
    assert main(["like", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    (tmp_path / "job.json").write_text(json.dumps({**told, "settings": {**told["settings"], "seed": 8}}))
    assert main(["like", str(path), "--against", str(tmp_path / "job.json")]) == 0
    assert "1 settings differ" in capsys.readouterr().out
    built = build(parser().parse_args(["train", "--like", str(path), "--seed", "5", "--folder", "x"]))
    assert (built.seed, built.network.rank, built.dataset.folder) == (5, 24, "x")


def test_a_training_like_a_lora_tells_what_is_not_as_yours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"learning_rate": "0.0002", "max_train_steps": "300", "network_dim": "16", "network_alpha": "8.0"}
    path = lora(tmp_path / "x.safetensors", {f"ss_{name}": value for name, value in told.items()})
    assert main(["train", "--like", str(path), "--seed", "3", "--print-config"]) == 0
    captured = capsys.readouterr()
    assert "settings are as in x.safetensors:" in captured.err
    assert "Learning rate (learning_rate): 0.0002, else 0.0001" in captured.err
    assert "Steps (steps): 300, else 0" in captured.err and "(seed)" not in captured.err
    assert main(["train", "--like", str(path), "--rank", "4", "--print-config"]) == 0
    captured = capsys.readouterr()
    job = json.loads(captured.out)
    assert job["network"]["rank"] == 4 and job["optimization"]["learning_rate"] == 5e-5
    assert "5e-05 instead of 0.0002" in captured.err
