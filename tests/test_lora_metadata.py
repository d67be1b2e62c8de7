"""Metadata: kohya's keys and types, the hosts' own rules of classification, and nothing private."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest
import tiny

from lora_core.jobs.train import Captions, Dataset, Network, Saves, TrainJob
from lora_core.lora_metadata import (
    Summary,
    TrainingFacts,
    last_part,
    minimal_metadata,
    private_parts,
    training_metadata,
)

KOHYA = json.loads((Path(__file__).parent / "data" / "kohya_metadata.json").read_text(encoding="utf-8"))
FAMILIES = {"sd15": "sd1", "sd2": "sd2", "sdxl": "sdxl"}


def a1111(metadata: dict[str, str]) -> str:
    """extensions-builtin/Lora/network.py, NetworkOnDisk.detect_version, its rules one by one."""
    if str(metadata.get("ss_base_model_version", "")).startswith("sdxl_"):
        return "sdxl"
    if str(metadata.get("ss_v2", "")) == "True":
        return "sd2"
    if len(metadata):
        return "sd1"
    return "unknown"


def forge(metadata: dict[str, str]) -> str:
    """Forge takes modelspec.architecture first where it knows the value."""
    known = {"stable-diffusion-v1/lora": "sd1", "stable-diffusion-xl-v1-base/lora": "sdxl"}
    return known.get(metadata.get("modelspec.architecture", "")) or a1111(metadata)


def job(**values: object) -> TrainJob:
    base = {
        "base": "/home/jane.doe/models/My Base (v1).safetensors",
        "name": "armin_vicerre",
        "output_dir": "/home/jane.doe/loras",
        "work_dir": "C:\\Users\\jane.doe\\work",
        "dataset": Dataset(folder="/home/jane.doe/pictures/armin", width=512, height=768),
        "captions": Captions(trigger="armin_vicerre"),
    }
    return TrainJob(**{**base, **values})


def facts(kind: str = "sd15", **values: object) -> TrainingFacts:
    found = TrainingFacts(
        arch=tiny.architecture(kind),
        session_id=123,
        started_at=1795336984.8,
        finished_at=1795337104.0,
        step=8,
        epoch=1,
        num_epochs=1,
        max_train_steps=8,
        warmup_steps=0,
        num_train_images=40,
        num_batches_per_epoch=40,
        unet_lr=1e-4,
        text_encoder_lr=(2e-5, 1e-5) if kind == "sdxl" else (2e-5,),
        base_hash="721421cc",
        base_sha256="8f" * 32,
        buckets=(((192, 320), 10), ((256, 256), 30)),
        mean_ar_error=0.115,
        dataset_dirs={"/home/jane.doe/pictures/5_armin person": (5, 8)},
        tag_frequency={"/home/jane.doe/pictures/5_armin person": {"smile": 3, "ü": 1}},
    )
    return dataclasses.replace(found, **values)


def test_kohyas_keys_are_all_there():
    """All that sd-scripts writes for a folder of pictures, but the commit of a program that this is not."""
    found = training_metadata(job(), facts())
    missing = {k for k in KOHYA if not k.startswith("sshs_")} - found.keys()
    assert missing == {"ss_sd_scripts_commit_hash"}
    assert all(isinstance(value, str) for value in found.values())


def shape_of(text: str) -> str:
    """What kind of value a reader gets: none, a truth value, a number, JSON, a tuple or a word."""
    if text in ("None", "True", "False"):
        return "None" if text == "None" else "bool"
    try:
        return type(json.loads(text)).__name__.replace("int", "number").replace("float", "number")
    except ValueError:
        return "tuple" if text.startswith("(") and isinstance(ast.literal_eval(text), tuple) else "text"


def test_values_are_spelled_as_kohya_spells_them():
    found = training_metadata(job(), facts())
    for key, value in KOHYA.items():
        if key in found and "None" not in (value, found[key]):
            assert shape_of(found[key]) == shape_of(value), key
    assert found["ss_resolution"] == "(512, 768)" and found["modelspec.resolution"] == "512x768"
    assert found["ss_network_alpha"] == "8.0" and found["ss_network_dim"] == "16"
    assert found["ss_sd_model_name"] == "My Base (v1).safetensors" and found["ss_clip_skip"] == "1"
    assert found["ss_output_name"] == found["modelspec.title"] == "armin_vicerre"
    assert found["modelspec.trigger_phrase"] == "armin_vicerre"
    assert training_metadata(job(), facts(), "armin_vicerre-000100")["ss_output_name"] == "armin_vicerre-000100"


def test_what_a1111_shows_decodes():
    found = training_metadata(job(), facts())
    assert json.loads(found["ss_bucket_info"]) == {
        "buckets": {"0": {"resolution": [192, 320], "count": 10}, "1": {"resolution": [256, 256], "count": 30}},
        "mean_img_ar_error": 0.115,
    }
    assert json.loads(found["ss_dataset_dirs"]) == {"5_armin person": {"n_repeats": 5, "img_count": 8}}
    assert json.loads(found["ss_tag_frequency"]) == {"5_armin person": {"smile": 3, "ü": 1}}
    assert float(found["ss_training_started_at"]) == 1795336984.8


def test_conv_and_two_encoder_rates():
    network = Network(rank=4, alpha=2, conv_rank=8, conv_alpha=1)
    found = training_metadata(job(network=network), facts("sdxl"))
    assert json.loads(found["ss_network_args"]) == {"conv_dim": "8", "conv_alpha": "1"}
    assert json.loads(found["ss_text_encoder_lr"]) == [2e-5, 1e-5]
    assert found["ss_clip_skip"] == "None", "SDXL has none"
    assert "ss_network_args" not in training_metadata(job(), facts())


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("amount", ("full", "minimal"))
@pytest.mark.parametrize("prediction", ("epsilon", "v"))
def test_hosts_classify_the_family_right(kind, amount, prediction):
    found = training_metadata(job(saves=Saves(metadata=amount)), facts(kind, prediction=prediction))
    assert a1111(found) == FAMILIES[kind] and forge(found) == FAMILIES[kind]
    assert found["modelspec.prediction_type"] == found["lora_loom.prediction_type"] == prediction
    version = {"sd15": "sd_v1", "sd2": "sd_v2_v" if prediction == "v" else "sd_v2", "sdxl": "sdxl_base_v1-0"}[kind]
    assert found["ss_base_model_version"] == version


@pytest.mark.parametrize("family", FAMILIES.values())
def test_merged_files_are_classified_too(family):
    found = minimal_metadata(Summary(family, "Dynamic", "Dynamic", "both", merged_from="a, b"))
    assert a1111(found) == family and forge(found) == family
    assert found["ss_network_dim"] == "Dynamic" and found["modelspec.merged_from"] == "a, b"


def test_minimal_keeps_what_hosts_need_and_no_more():
    found = training_metadata(job(saves=Saves(metadata="minimal"), network=Network(conv_rank=4)), facts())
    ours = {k for k in found if k.startswith("ss_")}
    assert ours == {
        "ss_v2",
        "ss_base_model_version",
        "ss_network_module",
        "ss_network_dim",
        "ss_network_alpha",
        "ss_network_args",
    }


def test_zero_terminal_snr_is_marked():
    found = training_metadata(job(), facts(zero_terminal_snr=True))
    assert found["ss_zero_terminal_snr"] == "True" and found["lora_loom.zero_terminal_snr"] == "True"


@pytest.mark.parametrize("kind", FAMILIES)
def test_nothing_private(kind):
    private = job(vae="D:\\vae\\jane.doe\\kl.safetensors")
    found = training_metadata(private, facts(kind))
    assert private_parts(found, ("jane.doe",)) == []
    assert found["ss_vae_name"] == "kl.safetensors"


def test_the_privacy_check_finds_paths():
    leaks = {
        "a": "/home/me/x",
        "b": '{"/data/pics": 1}',
        "c": "C:\\pics",
        "d": "(see D:/pics/x)",
        "e": "\\\\server\\share",
        "f": "trained by jane",
        "g": "/mnt/a b/c.png",
    }
    fine = {"h": "1/2", "i": "stable-diffusion-v1/lora", "j": "https://example.org/a/b", "k": "a / b", "l": "16:9"}
    assert private_parts(leaks | fine, ("jane",)) == list(leaks)


@pytest.mark.parametrize(
    ("path", "last"),
    [("/a/b c.x", "b c.x"), ("C:\\a\\b.x", "b.x"), ("b.x", "b.x"), ("", ""), ("/a/folder/", "folder")],
)
def test_last_part(path, last):
    assert last_part(path) == last
