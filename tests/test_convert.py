"""Conversion, repair and metadata: the change of every layer stays, whatever the file looks like."""

from __future__ import annotations

import json
import os

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_merge import finished, lora_file
from test_merge_checkpoint import CONV, FLAT, other_algorithms

from lora_core.dialects import a1111_family
from lora_core.errors import ConfigError, FileError, KeyMismatch
from lora_core.events import Note
from lora_core.jobs.files import ConvertJob, MetadataJob, RepairJob
from lora_core.keys import lora_targets
from lora_core.layers import layers
from lora_core.lora_file import read_lora
from lora_core.networks import NetworkFile
from lora_core.run import run
from lora_core.tensors import data_hash, legacy_hash, read_header


def module_bits(path):
    with NetworkFile(path) as file:
        return {name: file.module(name) for name in file.changes}


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("to", ["comfyui", "diffusers", "peft"])
def test_there_and_back_bit_for_bit(tmp_path, kind, to):
    """alpha / rank is a power of two here; formats without alpha carry it in the factors."""
    arch = tiny.architecture(kind)
    a = tmp_path / "a.safetensors"
    lora_file(a, kind, rank=2, every=4, dtype=torch.float16)
    tensors = load_file(a)
    for name in [n for n in tensors if n.endswith(".alpha")]:
        tensors[name] = torch.tensor(float(tensors[name.replace(".alpha", ".lora_down.weight")].shape[0]) / 4)
        if to == "peft" and "_te" in name:
            for part in (".alpha", ".lora_down.weight", ".lora_up.weight"):
                del tensors[name.replace(".alpha", part)]
    save_file(
        tensors,
        a,
        metadata=read_header(a).metadata | {"ss_base_model_version": {"sd15": "sd_v1"}.get(kind, "sdxl_base_v1-0")},
    )
    there, back = str(tmp_path / "there.safetensors"), str(tmp_path / "back.safetensors")
    report = finished(ConvertJob(str(a), there, to=to)).report
    assert report["layers"] == len(read_lora(a).modules) and report["largest_error"] < 1e-6
    assert read_lora(there, arch).family == arch.family  # the reader of training and generation takes it too
    finished(ConvertJob(there, back))
    found, wanted = read_lora(back).modules, read_lora(a).modules
    assert found.keys() == wanted.keys()
    for name, m in wanted.items():
        if to == "comfyui":
            assert found[name].alpha == m.alpha and all(
                torch.equal(x, y) for x, y in zip(found[name].tensors, m.tensors)
            )
        assert torch.equal(found[name].delta(), m.delta()), name
    metadata = read_header(back).metadata
    assert metadata["sshs_model_hash"] == data_hash(back) and a1111_family(metadata) == arch.family


def test_attention_processors_there_and_back(tmp_path):
    """The format of diffusers before 0.22 has names for attention only, and no alpha."""
    a, there, back = (str(tmp_path / f"{name}.safetensors") for name in ("a", "there", "back"))
    lora_file(a, rank=2, every=1, dtype=torch.float32)
    with pytest.raises(KeyMismatch, match="no attention projection"):
        finished(ConvertJob(a, there, to="diffusers-old"))
    assert not os.path.exists(there)
    attention = {n: t for n, t in load_file(a).items() if "_to_" in n or ("_proj" in n and "self_attn" in n)}
    save_file(attention, a, metadata=read_header(a).metadata)
    finished(ConvertJob(a, there, to="diffusers-old"))
    names = {name.rpartition(".processor.")[2] for name in load_file(there) if name.startswith("unet.")}
    assert "to_q_lora.down.weight" in names and "to_out_lora.up.weight" in names
    finished(ConvertJob(there, back))
    found, wanted = read_lora(back).modules, read_lora(a).modules
    assert found.keys() == wanted.keys()
    for name, module in wanted.items():
        change = module.delta()
        assert (found[name].delta() - change).norm() < 1e-6 * change.norm(), name


def comfyui_native(path, kind="sd15"):
    """As ComfyUI's SaveLoRA writes: every weight of the UNet, kernels flat, norms and biases as differences."""
    arch = tiny.architecture(kind)
    g = torch.Generator().manual_seed(0)
    tensors, deltas = {}, {}
    for layer in layers(arch):
        key = layer.key
        if key.component != "unet":
            continue
        name = f"diffusion_model.{layer.ldm}"
        if layer.bias:
            tensors[f"{name}.diff_b"] = torch.randn(key.shape[0], generator=g)
        if len(key.shape) == 1:
            tensors[f"{name}.diff"] = torch.randn(key.shape, generator=g)
            continue
        columns = torch.Size(key.shape[1:]).numel()
        up, down = torch.randn(key.shape[0], 2, generator=g), torch.randn(2, columns, generator=g)
        tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(1.0)}
        deltas[key.canonical] = (up @ down / 2).reshape(key.shape)
    save_file({k: v.bfloat16() for k, v in tensors.items()}, path)
    return set(deltas)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("extras", ["keep", "drop"])
def test_files_of_comfyuis_own_trainer_become_kohya_files(tmp_path, kind, extras):
    names = comfyui_native(tmp_path / "c.safetensors", kind)
    output = tmp_path / "k.safetensors"
    report = finished(ConvertJob(str(tmp_path / "c.safetensors"), str(output), extras=extras)).report
    arch = tiny.architecture(kind)
    listed = {k.canonical: k for k in lora_targets(arch, conv=True, text_encoders=False)}
    source, found = load_file(tmp_path / "c.safetensors"), load_file(output)
    assert report["identical"] == report["layers"] == (len(names) if extras == "keep" else len(listed))
    by_name = {layer.key.canonical: layer for layer in layers(arch)}
    for canonical in listed:
        layer = by_name[canonical]
        down = found[f"{layer.key.kohya}.lora_down.weight"]
        assert down.shape[1:] == layer.key.shape[1:]
        assert torch.equal(down.flatten(1), source[f"diffusion_model.{layer.ldm}.lora_down.weight"])
    if extras == "keep":
        norm = by_name["unet.mid_block.attentions.0.norm"]
        assert torch.equal(found[f"{norm.key.kohya}.w_norm"], source[f"diffusion_model.{norm.ldm}.diff"])
    else:
        assert read_lora(output, arch).modules.keys() == listed.keys()
        assert all(name.endswith((".lora_down.weight", ".lora_up.weight", ".alpha")) for name in found)


def stored(tmp_path, name):
    tensors = next(t for n, t, _ in other_algorithms() if n == name)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "x.safetensors")
    return str(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["loha", "lokr", "full", "ia3", "dora", "dora on output", "peft dora"])
def test_other_algorithms_become_lora(tmp_path, name):
    wanted = next(w for n, _, w in other_algorithms() if n == name)
    base = tiny.checkpoint("sd15")
    w = load_file(base)["model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"]
    path, output = stored(tmp_path, name), str(tmp_path / "k.safetensors")
    report = finished(ConvertJob(path, output, rule="error", value=0.05, base=str(base), dtype="fp32")).report
    (found,) = read_lora(output, tiny.architecture("sd15")).modules.values()
    error = float((found.delta() - wanted(w)).norm() / wanted(w).norm())
    assert error == pytest.approx(report["svd_error"], abs=1e-4) and error <= 0.05
    fixed = finished(ConvertJob(path, output, rank=4, base=str(base), overwrite=True)).report
    best = torch.linalg.svdvals(wanted(w))
    assert set(fixed["ranks"].values()) == {4}
    assert fixed["svd_error"] <= 1.05 * float(best[4:].norm() / best.norm()) + 1e-4


def test_dora_without_its_base_is_refused(tmp_path):
    with pytest.raises(KeyMismatch, match="name the base"):
        finished(ConvertJob(stored(tmp_path, "dora"), str(tmp_path / "k.safetensors")))
    assert os.listdir(tmp_path) == ["x.safetensors"]


def broken_file(path):
    """Wrong hashes, whole-number and missing alphas, a stray key, metadata that hide an SDXL file."""
    lora_file(path, "sdxl", every=40, dtype=torch.float16)
    tensors = load_file(path)
    names = sorted(n for n in tensors if n.endswith(".alpha"))
    del tensors[names[0]]
    for name in names[1:3]:
        tensors[name] = tensors[name].long()
    tensors["bundle.stray"] = torch.ones(3)
    save_file(tensors, path, metadata={"ss_tag_frequency": "{}", "sshs_model_hash": "e3b0c442"})
    return names


def test_repair(tmp_path):
    path, output = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    names = broken_file(path)
    assert a1111_family(read_header(path).metadata) == "sd1"
    report = finished(RepairJob(str(path), str(output))).report
    assert len(report["repairs"]) == 7
    before, after = load_file(path), load_file(output)
    assert after.keys() == (before.keys() | {names[0]}) - {"bundle.stray"}
    assert {t.dtype for n, t in after.items() if n.endswith(".alpha")} == {torch.float32}
    assert all(torch.equal(t, before[n].to(t.dtype)) for n, t in after.items() if n in before)
    assert float(after[names[0]]) == before[names[0].replace(".alpha", ".lora_down.weight")].shape[0]
    metadata = read_header(output).metadata
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0" and a1111_family(metadata) == "sdxl"
    assert metadata["sshs_model_hash"] == data_hash(output) and metadata["sshs_legacy_hash"] == legacy_hash(output)
    assert metadata["ss_tag_frequency"] == "{}"
    again = finished(RepairJob(str(output), str(tmp_path / "z.safetensors"))).report
    assert again["repairs"] == [] and data_hash(tmp_path / "z.safetensors") == data_hash(output)
    finished(RepairJob(str(path), str(path), overwrite=True))
    assert data_hash(path) == data_hash(output)


def test_stray_keys_are_not_lost_in_silence(tmp_path):
    broken_file(tmp_path / "x.safetensors")
    with pytest.raises(KeyMismatch, match=r"bundle.stray.*repair"):
        finished(ConvertJob(str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")))


def test_metadata_edit_keeps_the_weights(tmp_path):
    path = tmp_path / "x.safetensors"
    lora_file(path, metadata={"ss_tag_frequency": "{}", "ss_v2": "False", "ss_base_model_version": "sd_v1"})
    before, weights = data_hash(path), path.read_bytes()[read_header(path).data_start :]
    Image.new("RGB", (900, 600), (200, 10, 10)).save(tmp_path / "cover.png")
    job = MetadataJob(
        str(path),
        title="Tïtle",
        trigger="ohwx",
        cover=str(tmp_path / "cover.png"),
        assign=("a=b=c",),
        remove=("ss_tag*",),
    )
    job = MetadataJob(**{**vars(job), "sidecar": True, "weight": 0.8})
    report = finished(job).report
    metadata = read_header(path).metadata
    assert metadata["modelspec.title"] == "Tïtle" and metadata["a"] == "b=c" and "ss_tag_frequency" not in metadata
    assert metadata["sshs_model_hash"] == before == data_hash(path)
    assert path.read_bytes()[read_header(path).data_start :] == weights
    assert metadata["sshs_legacy_hash"] == legacy_hash(path)
    (picture,) = json.loads(metadata["ssmd_cover_images"])
    assert metadata["modelspec.thumbnail"].endswith(picture) and "modelspec.title" in report["changed"]
    sidecar = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert (
        sidecar["activation text"] == "ohwx" and sidecar["preferred weight"] == 0.8 and sidecar["sd version"] == "SD1"
    )
    finished(MetadataJob(str(path), title=""))
    assert "modelspec.title" not in read_header(path).metadata
    assert sorted(os.listdir(tmp_path)) == ["cover.png", "x.json", "x.safetensors"]


def test_metadata_without_changes_are_shown(tmp_path):
    path = tmp_path / "x.safetensors"
    lora_file(path, every=40, metadata={"ss_long": "x" * 1000})
    content = path.read_bytes()
    notes = [e.text for e in run(MetadataJob(str(path))) if isinstance(e, Note)]
    assert any(n.startswith("sshs_model_hash: ") for n in notes) and max(map(len, notes)) < 420
    assert path.read_bytes() == content


def test_wrong_metadata_jobs(tmp_path):
    path = str(tmp_path / "x.safetensors")
    lora_file(path, every=40)
    content = open(path, "rb").read()  # noqa: SIM115
    (tmp_path / "no.png").write_text("no")
    for job, error in (
        (MetadataJob(path, assign=("x",)), ConfigError),
        (MetadataJob(path, cover=str(tmp_path / "no.png")), FileError),
        (MetadataJob(path, cover=str(tmp_path / "none.png")), FileError),
        (MetadataJob(path + "x", title="x"), FileError),
        (MetadataJob("", title="x"), ConfigError),
    ):
        with pytest.raises(error):
            list(run(job))
    assert open(path, "rb").read() == content  # noqa: SIM115


def test_names_of_the_constants_are_layers():
    names = {layer.key.kohya for layer in layers(tiny.architecture("sd15"))}
    assert FLAT in names and CONV in names
