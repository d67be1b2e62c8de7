"""Merging into a checkpoint: the merged file computes what PEFT computes with the LoRA, tensor by tensor."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import peft
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_merge import finished, lora_file, module

from lora_core.algorithms import change
from lora_core.errors import ConfigError, DiskFull, FileError, Interrupted, KeyMismatch, NotFinite
from lora_core.jobs import LoraUse
from lora_core.jobs.tools import MergeIntoCheckpointJob
from lora_core.keys import checkpoint_tensors, lora_targets
from lora_core.lora import Lora
from lora_core.lora_file import read_lora, write_lora
from lora_core.run import run
from lora_core.tensors import TensorWriter, open_tensors, read_header, read_key


def with_peft(model, lora, component, strength):
    """The model with PEFT's LoRA layers that hold the same factors."""
    modules = {n.partition(".")[2]: m for n, m in lora.modules.items() if n.partition(".")[0] == component}
    ranks = {name: m.rank for name, m in modules.items()}
    alphas = {name: m.alpha * strength for name, m in modules.items()}
    config = peft.LoraConfig(r=1, target_modules=list(modules), rank_pattern=ranks, alpha_pattern=alphas)
    model = peft.inject_adapter_in_model(config, model)
    for name, m in modules.items():
        layer = model.get_submodule(name)
        layer.lora_A["default"].weight.data = m.down.float()
        layer.lora_B["default"].weight.data = m.up.float()
    return model


def loaded(path, arch, component):
    """A module with a checkpoint's weights."""
    model = tiny.modules(arch, seed=9)[component]
    with open_tensors(path) as source:
        state = {key.name: read_key(source, key) for key in checkpoint_tensors(arch, component)}
    model.load_state_dict(state, strict=False)
    return model


@pytest.mark.parametrize(("kind", "component"), [("sd15", "unet"), ("sd2", "text_encoder"), ("sdxl", "text_encoder_2")])
def test_the_merged_checkpoint_computes_what_peft_computes(tmp_path, kind, component):
    arch = tiny.architecture(kind)
    base = tiny.checkpoint(kind)
    path = lora_file(tmp_path / "a.safetensors", kind, every=3)
    output = tmp_path / "merged.safetensors"
    finished(MergeIntoCheckpointJob(str(base), (LoraUse(path, 0.1),), str(output)))
    merged, wanted = loaded(output, arch, component), loaded(base, arch, component)
    wanted = with_peft(wanted, read_lora(path, arch), component, 0.1)
    torch.manual_seed(0)
    with torch.no_grad():
        if component == "unet":
            arguments = (torch.randn(1, 4, 8, 8), torch.tensor([7]), torch.randn(1, 5, 32))
            found, expected = merged(*arguments).sample, wanted(*arguments).sample
            plain = loaded(base, arch, component)(*arguments).sample
        else:
            tokens = torch.randint(0, 1000, (1, 77))
            found, expected = merged(tokens).last_hidden_state, wanted(tokens).last_hidden_state
            plain = loaded(base, arch, component)(tokens).last_hidden_state
    assert (found - expected).norm() <= 1e-4 * expected.norm()
    assert (plain - expected).norm() > 1e-2 * expected.norm()


def test_only_the_named_tensors_change_and_keep_format_and_bytes(tmp_path):
    base = tiny.checkpoint("sdxl", torch.float16)
    arch = tiny.architecture("sdxl")
    a = lora_file(tmp_path / "a.safetensors", "sdxl", every=40)
    b = lora_file(tmp_path / "b.safetensors", "sdxl", rank=3, seed=1, every=60)
    output = str(tmp_path / "m.safetensors")
    shutil.copyfile(base, tmp_path / "base.safetensors")
    (tmp_path / "base.yaml").write_text("x: 1")
    uses = (LoraUse(a, 0.5, 0.25), LoraUse(b, -1.0))
    last = finished(MergeIntoCheckpointJob(str(tmp_path / "base.safetensors"), uses, output, blocks=("OUT*=0",)))
    before, after = load_file(base), load_file(output)
    assert before.keys() == after.keys()
    wanted = {name: tensor.float() for name, tensor in before.items()}
    keys = {key.canonical: key for key in lora_targets(arch, conv=True)}
    ups = {k for k in keys if k.startswith("unet.up_blocks")}
    changed = set()
    for path, unet, text, left_out in ((a, 0.5, 0.25, ups), (b, -1.0, -1.0, set())):
        for name, m in read_lora(path, arch).modules.items():
            if name in left_out:
                continue
            key = keys[name]
            rows = slice(*key.slice_rows) if key.slice_rows else slice(None)
            wanted[key.base][rows] += (unet if name.startswith("unet") else text) * m.delta()
            changed.add(key.base)
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        if name in changed:
            assert torch.allclose(tensor.float(), wanted[name], rtol=2e-3, atol=1e-4), name
        else:
            assert torch.equal(tensor, before[name]), name
    assert last.report["tensors_changed"] == len(changed)
    metadata = read_header(output).metadata
    assert metadata["modelspec.merged_from"] == "base, a (0.5), b (-1)" and metadata["modelspec.title"] == "m"
    assert (tmp_path / "m.yaml").read_text() == "x: 1"


@pytest.mark.parametrize(
    ("dtype", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_number_formats(tmp_path, dtype, wanted):
    base = str(tiny.checkpoint("sd15"))
    a = lora_file(tmp_path / "a.safetensors", every=50)
    finished(MergeIntoCheckpointJob(base, (LoraUse(a),), str(tmp_path / "m.safetensors"), dtype))
    assert {t.dtype for t in load_file(tmp_path / "m.safetensors").values()} == {wanted}


FLAT = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"


def other_algorithms():
    """Files of each algorithm for two layers of the tiny SD1 model, and the change of each, written out by hand."""
    g = torch.Generator().manual_seed(4)

    def r(*shape):
        return torch.randn(*shape, generator=g) * 0.3

    alpha = torch.tensor(2.0)
    loha = {n: r(*s) for n, s in (("w1_a", (96, 3)), ("w1_b", (3, 96)), ("w2_a", (96, 3)), ("w2_b", (3, 96)))}
    yield (
        "loha",
        {f"{FLAT}.hada_{n}": t for n, t in loha.items()} | {f"{FLAT}.alpha": alpha},
        lambda w: (loha["w1_a"] @ loha["w1_b"]) * (loha["w2_a"] @ loha["w2_b"]) * 2 / 3,
    )
    w1, a, b = r(4, 4), r(24, 2), r(2, 24)
    yield (
        "lokr",
        {f"{FLAT}.lokr_w1": w1, f"{FLAT}.lokr_w2_a": a, f"{FLAT}.lokr_w2_b": b, f"{FLAT}.alpha": alpha},
        lambda w: torch.kron(w1, a @ b),
    )
    diff, bias = r(96, 96), r(96)
    yield "full", {f"{FLAT}.diff": diff}, lambda w: diff
    vector = r(96)
    ia3 = {f"{FLAT}.weight": vector[None], f"{FLAT}.on_input": torch.tensor(True)}
    yield "ia3", ia3, lambda w: w * vector[None]
    ia3 = {f"{FLAT}.weight": vector[:, None], f"{FLAT}.on_input": torch.tensor(False)}
    yield "ia3 on output", ia3, lambda w: w * vector[:, None]
    down, up, m = r(2, 96), r(96, 2), r(1, 96).abs()
    pair = {f"{FLAT}.lora_down.weight": down, f"{FLAT}.lora_up.weight": up, f"{FLAT}.alpha": alpha}
    tuned = lambda w: w + up @ down  # noqa: E731
    dora = lambda w: tuned(w) / tuned(w).norm(dim=0, keepdim=True) * m - w  # noqa: E731
    yield "dora", pair | {f"{FLAT}.dora_scale": m}, dora
    out = lambda w: tuned(w) / tuned(w).norm(dim=1, keepdim=True) * m.T - w  # noqa: E731
    yield "dora on output", pair | {f"{FLAT}.dora_scale": m.T.contiguous()}, out
    name = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    theirs = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.lora_magnitude_vector": m[0]}
    yield "peft dora", theirs, lambda w: out(w)
    yield "norm", {"lora_unet_mid_block_attentions_0_norm.w_norm": bias}, lambda w: None


@pytest.mark.parametrize("case", list(other_algorithms()), ids=lambda case: case[0])
def test_other_algorithms(tmp_path, case):
    name, tensors, wanted = case
    base = tiny.checkpoint("sd15")
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "x.safetensors")
    output = tmp_path / "m.safetensors"
    finished(MergeIntoCheckpointJob(str(base), (LoraUse(str(tmp_path / "x.safetensors"), 0.5),), str(output)))
    before, after = load_file(base), load_file(output)
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    if name == "norm":
        assert changed == ["model.diffusion_model.middle_block.1.norm.weight"]
        return
    assert changed == ["model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"]
    w = before[changed[0]]
    assert torch.allclose(after[changed[0]], w + 0.5 * wanted(w), atol=1e-5)


def test_tucker_forms():
    """Against the sums written out."""
    g = torch.Generator().manual_seed(0)
    t, a, b = (torch.randn(*s, generator=g) for s in ((2, 2, 3, 3), (2, 5), (2, 4)))
    one = torch.zeros(5, 4, 3, 3)
    for i in range(2):
        for j in range(2):
            one += a[i][:, None, None, None] * b[j][None, :, None, None] * t[i, j]
    parts = {"hada_t1": t, "hada_w1_a": a, "hada_w1_b": b, "hada_t2": t, "hada_w2_a": a, "hada_w2_b": b}
    assert torch.allclose(change("loha", parts, (5, 4, 3, 3)), one * one, atol=1e-5)
    kron = change("lokr", {"lokr_w1": torch.eye(2), "lokr_t2": t, "lokr_w2_a": a, "lokr_w2_b": b}, (10, 8, 3, 3))
    assert torch.allclose(kron[5:, 4:], one, atol=1e-5) and float(kron[:5, 4:].abs().max()) == 0


def test_the_inpainting_model_takes_a_lora_but_not_a_change_of_its_first_layer(tmp_path):
    base = str(tiny.checkpoint("sd15-inpaint"))
    a = lora_file(tmp_path / "a.safetensors", every=40)
    finished(MergeIntoCheckpointJob(base, (LoraUse(a),), str(tmp_path / "m.safetensors")))
    pair = {"lora_unet_conv_in.lora_down.weight": torch.ones(1, 4, 3, 3)}
    save_file(pair | {"lora_unet_conv_in.lora_up.weight": torch.ones(32, 1, 1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(KeyMismatch, match="made for another kind of model"):
        finished(
            MergeIntoCheckpointJob(base, (LoraUse(str(tmp_path / "x.safetensors")),), str(tmp_path / "n.safetensors"))
        )


def test_wrong_inputs_are_sentences_and_leave_nothing(tmp_path, monkeypatch):
    base = str(tiny.checkpoint("sd15"))
    a, x = lora_file(tmp_path / "a.safetensors", every=40), lora_file(tmp_path / "x.safetensors", "sdxl", every=90)
    output = str(tmp_path / "out.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(base).read_bytes()[:200_000])
    stranger = tmp_path / "stranger.safetensors"
    save_file(load_file(a) | {"lora_unet_made_up.lora_up.weight": torch.ones(2, 2)}, stranger)
    big = tmp_path / "big.safetensors"
    key = next(k for k in lora_targets(tiny.architecture("sd15")) if k.component == "unet")
    write_lora(big, Lora({key.canonical: module(key.shape, 2, 1e6, 0)}, {}, "sd1"), [key], torch.float32, {})
    (tmp_path / "base.ckpt").write_bytes(b"\x80")
    before = sorted(os.listdir(tmp_path))
    for loras, options, error, words in (
        ((), {}, ConfigError, "No LoRA"),
        ((LoraUse(a),), {"base": ""}, ConfigError, "No base"),
        ((LoraUse(a),), {"base": str(cut)}, FileError, "cut off"),
        ((LoraUse(a),), {"base": str(tmp_path / "base.ckpt")}, FileError, "base.ckpt"),
        ((LoraUse(a),), {"base": a}, FileError, "LoRA, not a base"),
        ((LoraUse(a),), {"base": str(tiny.checkpoint("refiner"))}, FileError, "refiner"),
        ((LoraUse(x),), {}, KeyMismatch, "made for SDXL"),
        ((LoraUse(str(stranger)),), {}, KeyMismatch, "lora_unet_made_up"),
        ((LoraUse(a, 0.0),), {}, KeyMismatch, "every strength is 0"),
        ((LoraUse(str(big)),), {"dtype": "fp16"}, NotFinite, "save as bf16"),
    ):
        with pytest.raises(error, match=words):
            list(run(MergeIntoCheckpointJob(**{"base": base, "loras": loras, "output": output, **options})))
    events = run(MergeIntoCheckpointJob(base, (LoraUse(a),), output))
    for _ in range(3):
        next(events)
    events.close()
    writes = iter(range(9))

    def full(self, data, place):
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(TensorWriter, "_write", full)
        with pytest.raises(DiskFull, match="No room left"):
            list(run(MergeIntoCheckpointJob(base, (LoraUse(a),), output)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DiskFull, match="GB left"):
        list(run(MergeIntoCheckpointJob(base, (LoraUse(a),), output)))
    assert sorted(os.listdir(tmp_path)) == before


def test_stop_leaves_nothing(tmp_path):
    from lora_core.commands import Commands

    commands = Commands()
    a = lora_file(tmp_path / "a.safetensors", every=40)
    events = run(
        MergeIntoCheckpointJob(str(tiny.checkpoint("sd15")), (LoraUse(a),), str(tmp_path / "m.safetensors")), commands
    )
    with pytest.raises(Interrupted):
        for i, _ in enumerate(events):
            commands.stop = i == 2
    assert os.listdir(tmp_path) == ["a.safetensors"]
