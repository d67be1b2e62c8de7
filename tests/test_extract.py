"""Extraction: what was merged comes out again, with the least error that its rank allows."""

from __future__ import annotations

import os

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_merge import finished, lora_file

from lora_core.errors import ConfigError, KeyMismatch, NotFinite
from lora_core.events import Note
from lora_core.factors import difference
from lora_core.jobs import LoraUse
from lora_core.jobs.tools import ExtractJob, MergeIntoCheckpointJob, MergeJob
from lora_core.keys import lora_targets
from lora_core.lora_file import read_lora
from lora_core.run import run


@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
def test_what_was_merged_comes_out_again(tmp_path, kind):
    arch = tiny.architecture(kind)
    base = str(tiny.checkpoint(kind))
    a = lora_file(tmp_path / "a.safetensors", kind, every=1, rank=3)
    tuned, output = str(tmp_path / "tuned.safetensors"), str(tmp_path / "b.safetensors")
    finished(MergeIntoCheckpointJob(base, (LoraUse(a),), tuned))
    report = finished(ExtractJob(tuned, base, output, rank=4, conv=True, dtype="fp32")).report
    one, found = read_lora(a), read_lora(output, arch)
    assert found.modules.keys() == {k.canonical for k in lora_targets(arch, conv=True)} == one.modules.keys()
    for name, m in one.modules.items():
        assert difference(found.modules[name], m) < 1e-4, name
    assert report["error"] < 1e-4 and report["modules"] == len(one.modules)
    assert found.metadata["ss_base_model_version"] == {"sd15": "sd_v1", "sd2": "sd_v2"}.get(kind, "sdxl_base_v1-0")
    assert str(tmp_path) not in "".join(found.metadata.values())


def tuned_everywhere(path, seed=1, keep=()):
    """A copy of the tiny checkpoint with every number moved, as a full fine-tune does; `keep` prefixes stay."""
    g = torch.Generator().manual_seed(seed)
    tensors = load_file(tiny.checkpoint("sd15"))
    for name, tensor in tensors.items():
        if tensor.dim() > 1 and not name.startswith(tuple(keep)):
            tensor += 0.01 * torch.randn(tensor.shape, generator=g)
    save_file(tensors, path)
    return str(path)


def test_full_rank_changes_are_met_as_well_as_the_rank_allows(tmp_path):
    base = str(tiny.checkpoint("sd15"))
    tuned, output = (
        tuned_everywhere(tmp_path / "t.safetensors", keep=("cond_stage_model.",)),
        tmp_path / "l.safetensors",
    )
    job = ExtractJob(tuned, base, str(output), rank=8, conv=True, dtype="fp32")
    events = list(run(job))
    assert any(isinstance(e, Note) and "text encoder is the same" in e.text for e in events)
    report, before, after = events[-1].report, load_file(base), load_file(tuned)
    found = read_lora(output).modules
    keys = {k.canonical: k for k in lora_targets(tiny.architecture("sd15"), conv=True, text_encoders=False)}
    assert found.keys() == keys.keys()
    for name, key in list(keys.items())[::9]:
        matrix = (after[key.base] - before[key.base]).flatten(1)
        s = torch.linalg.svdvals(matrix)
        best = float(s[8:].norm() / s.norm())
        error = float((found[name].delta().flatten(1) - matrix).norm() / matrix.norm())
        assert report["errors"][name] == pytest.approx(error, rel=1e-3)
        assert error <= 1.1 * best
    report = finished(ExtractJob(tuned, base, str(tmp_path / "e.safetensors"), rule="error", value=0.5)).report
    assert report["worst_error"] <= 0.5 and report["largest_rank"] > report["smallest_rank"]


def test_single_equal_layers_become_zeros(tmp_path):
    kept = "model.diffusion_model.middle_block."
    tuned = tuned_everywhere(tmp_path / "t.safetensors", keep=(kept,))
    finished(ExtractJob(tuned, str(tiny.checkpoint("sd15")), str(tmp_path / "l.safetensors"), rank=2))
    found = read_lora(tmp_path / "l.safetensors").modules
    assert len(found) == 264
    zeros = [name for name, m in found.items() if not m.delta().any()]
    assert zeros and all(name.startswith("unet.mid_block") for name in zeros)


def test_difference_of_two_loras(tmp_path):
    a, b = lora_file(tmp_path / "a.safetensors", rank=2), lora_file(tmp_path / "b.safetensors", rank=3, seed=1)
    both, output = str(tmp_path / "ab.safetensors"), str(tmp_path / "back.safetensors")
    finished(MergeJob((LoraUse(a), LoraUse(b)), both, dtype="fp32"))
    finished(ExtractJob(both, b, output, rank=4, dtype="fp32"))
    wanted = read_lora(a).modules
    for name, m in read_lora(output).modules.items():
        assert difference(m, wanted[name]) < 1e-4, name


def test_wrong_inputs_are_sentences_and_leave_nothing(tmp_path):
    base, sdxl = str(tiny.checkpoint("sd15")), str(tiny.checkpoint("sdxl"))
    a = lora_file(tmp_path / "a.safetensors", every=40)
    tensors = load_file(base)
    tensors["model.diffusion_model.middle_block.1.proj_in.weight"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    before = sorted(os.listdir(tmp_path))
    output = str(tmp_path / "out.safetensors")
    for tuned, other, error, words in (
        (base, base, KeyMismatch, "nothing to extract"),
        (sdxl, base, KeyMismatch, "SDXL"),
        (a, base, ConfigError, "same kind"),
        (str(tmp_path / "nan.safetensors"), base, NotFinite, "middle_block"),
        ("", base, ConfigError, "No tuned"),
    ):
        with pytest.raises(error, match=words):
            list(run(ExtractJob(tuned, other, output, rank=2)))
    assert sorted(os.listdir(tmp_path)) == before
