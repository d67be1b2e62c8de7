"""Which files are the saves of a training, and keeping one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core.errors import ConfigError, FileError
from lora_core.jobs.choose import KeepJob
from lora_core.keep_save import STRENGTH
from lora_core.run import run
from lora_core.saves import find_saves
from lora_core.tensors import data_hash, read_header


def lora(path: Path, **metadata: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.lora_down.weight": torch.full((2, 2), 1.5)}, path, metadata or None)
    return str(path)


def test_saves_of_a_folder(tmp_path: Path) -> None:
    lora(tmp_path / "me.safetensors", ss_steps="30")
    lora(tmp_path / "me-000020.safetensors", ss_steps="20", **{"modelspec.trigger_phrase": "t"})
    lora(tmp_path / "me-000010.safetensors")
    lora(tmp_path / "me-too.safetensors")
    found = find_saves((), str(tmp_path), "me")
    assert [(s.path.stem, s.step) for s in found] == [("me-000010", 10), ("me-000020", 20), ("me", 30)]
    assert found[1].trigger == "t" and len(find_saves((), str(tmp_path))) == 4
    twice = (str(tmp_path / "me.safetensors"), str(tmp_path / "." / "me.safetensors"))
    assert len(find_saves(twice)) == 1


def test_what_is_no_save(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.x": torch.ones(1)}, tmp_path / "base.safetensors")
    with pytest.raises(FileError, match="no LoRA"):
        find_saves((str(tmp_path / "base.safetensors"),))
    with pytest.raises(ConfigError, match="no folder"):
        find_saves((), str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="named x"):
        find_saves((), str(tmp_path), "x")


@pytest.fixture
def job(tmp_path: Path) -> KeepJob:
    kept = lora(tmp_path / "me-000020.safetensors", ss_session_id="7", ss_steps="20")
    other = lora(tmp_path / "me.safetensors", ss_session_id="7")
    (tmp_path / "me.preview.png").write_bytes(b"x")
    (tmp_path / "me2.json").write_text("{}")
    return KeepJob(kept, 0.75, "armin", (other,))


def test_keeping_one(job: KeepJob, tmp_path: Path) -> None:
    before, digest = load_file(job.lora), data_hash(job.lora)
    end = list(run(job))[-1]
    metadata = read_header(job.lora).metadata
    assert (metadata[STRENGTH], metadata["modelspec.trigger_phrase"], metadata["ss_steps"]) == ("0.75", "armin", "20")
    assert "0.75" in metadata["modelspec.usage_hint"] and metadata["sshs_model_hash"] == digest == data_hash(job.lora)
    assert torch.equal(load_file(job.lora)["lora_unet_x.lora_down.weight"], before["lora_unet_x.lora_down.weight"])
    sidecar = json.loads((tmp_path / "me-000020.json").read_text())
    assert (sidecar["preferred weight"], sidecar["activation text"]) == (0.75, "armin")
    assert not (tmp_path / "me.safetensors").exists() and not (tmp_path / "me.preview.png").exists()
    assert (tmp_path / "me2.json").exists() and len(end.report["removed"]) == 2


def test_the_others_stay_unless_asked_and_can_be_put_away(job: KeepJob, tmp_path: Path) -> None:
    list(run(replace(job, remove=())))
    assert (tmp_path / "me.safetensors").exists()
    list(run(replace(job, away=str(tmp_path / "away"))))
    assert (tmp_path / "away" / "me.safetensors").exists() and not (tmp_path / "me.safetensors").exists()


def test_files_of_another_training_are_not_removed(job: KeepJob, tmp_path: Path) -> None:
    stranger = lora(tmp_path / "stranger.safetensors", ss_session_id="8")
    before = Path(job.lora).read_bytes()
    for wrong in (stranger, str(tmp_path / "missing.safetensors"), job.lora):
        with pytest.raises(ConfigError):
            list(run(replace(job, remove=(*job.remove, wrong))))
    assert Path(job.lora).read_bytes() == before and (tmp_path / "me.safetensors").exists()
