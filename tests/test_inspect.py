"""Inspection: what a file is, what is wrong with it, and who applies it."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_convert import broken_file, comfyui_native
from test_merge import finished, lora_file

from lora_core import cli
from lora_core.dialects import stranger
from lora_core.errors import FileError, KeyMismatch
from lora_core.heat_map import cells, heat_map
from lora_core.inspect_file import inspect_network, lines, trigger_words
from lora_core.jobs.files import InspectJob
from lora_core.lora_file import read_lora

KOHYA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
DOTTED = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def answers(path):
    return {v.program: v.answer for v in inspect_network(path).verdicts}


def test_a_kohya_file(tmp_path):
    path = tmp_path / "x.safetensors"
    lora_file(path, "sdxl", rank=4, conv=False, every=1, metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    found = inspect_network(path, numbers=True)
    assert found.family == "sdxl" and found.dialect == "kohya (sd-scripts)" and "metadata say so" in found.why
    assert found.components == {"text_encoder": 72, "text_encoder_2": 192, "unet": 722}
    assert found.blocks["text_encoder"].layers == 72 and sum(b.layers for b in found.blocks.values()) == 986
    assert set(answers(path).values()) == {"fully"} and found.unmatched == ()
    assert found.numbers is not None and found.numbers.zero == found.numbers.not_finite == ()
    wanted = {name: float(m.delta().norm()) for name, m in read_lora(path).modules.items()}
    assert found.numbers.norms == pytest.approx(wanted, rel=1e-4)
    assert all(stated == computed for stated, computed in found.numbers.hashes.values())
    assert any("sshs_model_hash: right" in line for line in lines(found))


def test_shares_of_the_base(tmp_path):
    path = tmp_path / "x.safetensors"
    lora_file(path, every=20)
    base = tiny.checkpoint("sd15")
    found = inspect_network(path, str(base), numbers=True)
    source = load_file(base)
    name = next(n for n in found.numbers.norms if n.startswith("text_encoder"))
    weight = source[f"cond_stage_model.transformer.text_model.{name.partition('text_model.')[2]}.weight"]
    assert found.numbers.base_norms[name] == pytest.approx(float(weight.norm()), rel=1e-5)
    block = found.blocks["text_encoder"]
    assert block.share_of_base is not None and block.share_of_base > 0


def test_layers_left_alone_are_told(tmp_path):
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    lora_file(whole, every=1, conv=True)
    assert inspect_network(whole).missing == ()
    tensors = {name: t for name, t in load_file(whole).items() if "_ff_net_" not in name and "_conv" not in name}
    save_file(tensors, part)
    found = inspect_network(part)
    assert found.missing and all(".ff.net." in name or ".conv" in name for name in found.missing)
    assert any(f"{len(found.missing)} layers of the model are left alone" in line for line in lines(found))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_alphas_of_every_format_are_read(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    lora_file(path, every=20)
    tensors = load_file(path)
    save_file({n: torch.tensor(3, dtype=dtype) if n.endswith(".alpha") else t for n, t in tensors.items()}, path)
    assert {alpha for block in inspect_network(path).blocks.values() for alpha in block.alphas} == {"3"}


DIALECTS = {
    "PEFT": (f"base_model.model.{DOTTED}.lora_A.weight", f"base_model.model.{DOTTED}.lora_B.weight"),
    "diffusers": (f"unet.{DOTTED}.lora_A.weight", f"unet.{DOTTED}.lora_B.weight"),
    "diffusers before": (f"unet.{DOTTED}.lora.down.weight", f"unet.{DOTTED}.lora.up.weight"),
    "ComfyUI": (
        "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.lora_down.weight",
        "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
    ),
    "LyCORIS of SimpleTuner": tuple(
        f"lycoris_{DOTTED.replace('.', '_')}.lora_{part}.weight" for part in ("down", "up")
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(tmp_path, dialect):
    down, up = DIALECTS[dialect]
    save_file({down: torch.ones(2, 96), up: torch.ones(96, 2)}, tmp_path / "x.safetensors")
    found = inspect_network(tmp_path / "x.safetensors")
    assert found.dialect.startswith(dialect) and found.components == {"unet": 1}
    assert answers(tmp_path / "x.safetensors")["A1111"] == "no"


@pytest.mark.parametrize(
    ("ending", "words", "comfyui"),
    [
        ("hada_w1_a", "LoHa", "fully"),
        ("lokr_w1", "LoKr", "fully"),
        ("diff", "full difference", "fully"),
        ("on_input", "IA3", "no"),
    ],
)
def test_lycoris(tmp_path, ending, words, comfyui):
    save_file({f"{KOHYA}.{ending}": torch.ones(2, 2), f"{KOHYA}.alpha": torch.tensor(1.0)}, tmp_path / "x.safetensors")
    found = inspect_network(tmp_path / "x.safetensors")
    assert found.dialect.startswith("LyCORIS") and words in found.dialect
    said = answers(tmp_path / "x.safetensors")
    assert said["sd-scripts"] == said["diffusers"] == "no" and said["ComfyUI"] == comfyui and said["A1111"] == "fully"


def test_files_of_comfyuis_own_trainer(tmp_path):
    comfyui_native(tmp_path / "x.safetensors")
    found = inspect_network(tmp_path / "x.safetensors")
    assert found.dialect.startswith("ComfyUI (SaveLoRA)") and found.family == "sd1"
    assert answers(tmp_path / "x.safetensors") == {
        "A1111": "no", "Forge": "fully", "ComfyUI": "fully", "diffusers": "no", "sd-scripts": "no",
    }  # fmt: skip


def test_faults_are_found(tmp_path):
    path = tmp_path / "x.safetensors"
    broken_file(path)
    tensors = load_file(path)
    ups = sorted(n for n in tensors if n.endswith("lora_up.weight"))
    tensors[ups[0]][0, 0] = float("nan")
    tensors[ups[1]].zero_()
    save_file(tensors, path, metadata={"ss_tag_frequency": "{}", "sshs_model_hash": "e3b0c442"})
    found = inspect_network(path, numbers=True)
    assert found.unmatched == ("bundle.stray",) and len(found.numbers.not_finite) == len(found.numbers.zero) == 1
    text = "\n".join(lines(found))
    assert "WRONG" in text and "bundle.stray" in text and "NaN" in text
    a1111 = next(v for v in found.verdicts if v.program == "A1111")
    assert a1111.answer == "partly" and "hide it" in a1111.reason


def test_half_an_attention_of_openclip(tmp_path):
    name = "lora_te2_text_model_encoder_layers_3_self_attn_q_proj"
    pair = {f"{name}.lora_down.weight": torch.ones(1, 48), f"{name}.lora_up.weight": torch.ones(48, 1)}
    save_file(pair, tmp_path / "x.safetensors")
    found = next(v for v in inspect_network(tmp_path / "x.safetensors").verdicts if v.program == "A1111")
    assert found.answer == "partly" and "lack one of q, k, v, out" in found.reason


def test_what_is_no_lora_of_ours_is_named(tmp_path):
    for name, words in (
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "for a Flux model"),
        ("double_blocks.0.processor.qkv_lora1.down.weight", "XLabs"),
        ("emb_params", "an embedding"),
    ):
        save_file({name: torch.ones(2, 2)}, tmp_path / "x.safetensors")
        with pytest.raises(KeyMismatch, match=words):
            inspect_network(tmp_path / "x.safetensors")
    assert stranger(["something.else"]) == ""
    (tmp_path / "x.safetensors").write_bytes((101_000_000).to_bytes(8, "little") + b"{" + b" " * 100)
    with pytest.raises(FileError):
        inspect_network(tmp_path / "x.safetensors")


def test_trigger_words():
    tags = json.dumps({"10_x": {"ohwx": 9, "hat": 2}, "5_y": {"hat": 3}})
    assert trigger_words({"ss_tag_frequency": tags}) == ("ohwx", "hat")
    assert trigger_words({"modelspec.trigger_phrase": "ohwx man", "ss_tag_frequency": tags}) == ("ohwx man",)
    assert trigger_words({"ss_tag_frequency": "{broken"}) == trigger_words({}) == ()


def test_the_heat_map(tmp_path):
    path = lora_file(tmp_path / "x.safetensors", every=3)
    report = finished(InspectJob(path, picture=str(tmp_path / "x.png"))).report
    with Image.open(tmp_path / "x.png") as image:
        assert image.width > 400 and len(image.getcolors(1 << 20) or ()) > 10
    norms = {"unet.mid_block.attentions.0.proj_in": 3.0, "unet.mid_block.resnets.0.conv1": 4.0}
    norms |= {"unet.mid_block.resnets.1.conv1": 3.0}
    assert cells(norms, "sd1") == {("proj_in", "M00"): 3.0, ("conv1", "M00"): 5.0}
    assert report["numbers"]["norms"] and heat_map({}, "sd1").width > 0


def test_the_command_line(tmp_path, capsys):
    path = lora_file(tmp_path / "x.safetensors", every=40)
    assert cli.main(["inspect", path, "--numbers"]) == 0
    text = capsys.readouterr().out
    assert "ComfyUI applies it fully" in text and "sshs_model_hash: right" in text
    assert cli.main(["inspect", path, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "LoRA" and facts["inspection"]["family"] == "sd1"
