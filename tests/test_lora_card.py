"""The card of a trained LoRA, as A1111 reads it."""

import base64
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_core.families import reference
from lora_core.jobs import TrainJob
from lora_core.jobs.train import Captions
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_card import write_card
from lora_core.lora_file import write_lora
from lora_core.tensors import read_header


@pytest.fixture
def lora(tmp_path):
    arch = reference("sd1")
    modules = {
        key.canonical: LoraModule(torch.ones(4, key.shape[1]), torch.ones(key.shape[0], 4), 4.0)
        for key in lora_targets(arch)[:2]
    }
    path = tmp_path / "mine.safetensors"
    write_lora(path, Lora(modules, {}, "sd1"), arch, torch.float16, {"ss_output_name": "mine"})
    return path


@pytest.fixture
def job(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "pictures" / "a.png")
    plain = TrainJob(captions=Captions(trigger=" armin "))
    return replace(plain, dataset=replace(plain.dataset, folder=str(tmp_path / "pictures")))


def cover_of(path):
    [text] = json.loads(read_header(path).metadata["ssmd_cover_images"])
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def sidecar_of(path):
    return json.loads(path.with_suffix(".json").read_text("utf-8"))


def test_a_card_has_a_picture_the_trigger_and_a_weight_and_the_weights_keep_their_bits(lora, job, tmp_path):
    before = {name: tensor.clone() for name, tensor in load_file(lora).items()}
    for name, color in (("old", "green"), ("new", "blue")):
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{name}.png")
    write_card(lora, job, [str(tmp_path / f"{name}.png") for name in ("old", "new", "gone")])
    assert cover_of(lora).getpixel((9, 9))[2] > 200
    assert sidecar_of(lora)["activation text"] == "armin" and sidecar_of(lora)["preferred weight"] == 1
    after = load_file(lora)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_without_a_preview_a_picture_of_the_training_is_shown_and_minimal_metadata_show_none(lora, job):
    write_card(lora, replace(job, saves=replace(job.saves, metadata="minimal")))
    assert "ssmd_cover_images" not in read_header(lora).metadata and sidecar_of(lora)["activation text"] == "armin"
    write_card(lora, job)
    assert cover_of(lora).getpixel((9, 9))[0] > 200


def test_a_weight_that_somebody_chose_and_other_keys_stay_and_a_recommended_one_is_taken(lora, job):
    lora.with_suffix(".json").write_text(json.dumps({"preferred weight": 0.7, "notes": "mine"}), "utf-8")
    write_card(lora, job)
    assert sidecar_of(lora)["preferred weight"] == 0.7 and sidecar_of(lora)["notes"] == "mine"
    lora.with_suffix(".json").write_text("{}", "utf-8")
    from lora_core.jobs import KeepJob
    from lora_core.keep_save import keep

    list(keep(KeepJob(lora=str(lora), strength=0.8)))
    lora.with_suffix(".json").unlink()
    write_card(lora, job)
    assert sidecar_of(lora)["preferred weight"] == 0.8
