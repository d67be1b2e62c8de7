"""The LoRAs and embeddings that a job names."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from lora_core.engine.generate import generate
from lora_core.engine.lora_uses import first_ranks, job_embeddings, merge_loras, named_loras, read_uses
from lora_core.engine.models import Models, load_text_encoders, load_unet
from lora_core.errors import ConfigError
from lora_core.jobs.generate import GenerateJob, LoraUse
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.recipes import recipe_of

ARCH = tiny.architecture("sd15")


def lora_file(folder: Path, name: str = "style", rank: int = 4) -> Path:
    g = torch.Generator().manual_seed(0)
    modules = {
        t.canonical: LoraModule(
            torch.randn((rank, *t.shape[1:]), generator=g),
            torch.randn((t.shape[0], rank, *([1] * (len(t.shape) - 2))), generator=g),
            2.0,
        )
        for t in lora_targets(ARCH)
    }
    path = folder / f"{name}.safetensors"
    write_lora(path, Lora(modules, {}, "sd1"), ARCH, torch.float32, {"ss_output_name": f"{name}_alias"})
    return path


def job(folder: Path, prompt: str, **values: object) -> GenerateJob:
    return GenerateJob(
        base=str(tiny.checkpoint("sd15")), output_dir=str(folder), prompt=prompt, lora_dirs=(str(folder),), **values
    )


def test_tags_and_files(tmp_path: Path) -> None:
    path = lora_file(tmp_path)
    prompt, named = named_loras(job(tmp_path, "a <lora:style_alias:0.5:0.2:3>cat", loras=(LoraUse(str(path), 0.3),)))
    assert prompt == "a cat"
    assert [(n.name, n.strength, n.text_encoder_strength, n.rank) for n in named] == [
        ("style", 0.3, None, None),
        ("style_alias", 0.2, 0.5, 3),
    ]


def test_a_lora_named_twice_gets_the_last_strengths_in_a1111(tmp_path: Path) -> None:
    lora_file(tmp_path)
    written = job(tmp_path, "<lora:style:1><lora:style:0.5>")
    assert [n.strength for n in named_loras(written)[1]] == [0.5, 0.5]
    assert [n.strength for n in named_loras(replace(written, arithmetic="comfyui"))[1]] == [1.0, 0.5]


def test_comments_and_other_tags(tmp_path: Path) -> None:
    lora_file(tmp_path)
    prompt, named = named_loras(job(tmp_path, "a <other:x>cat # <lora:style:1>\nb"))
    assert (prompt, named) == ("a cat \nb", ())
    with pytest.raises(ConfigError, match="not there"):
        named_loras(job(tmp_path, "<lora:gone:1>"))


def test_block_weights_and_ranks(tmp_path: Path) -> None:
    lora_file(tmp_path)
    use = read_uses(named_loras(job(tmp_path, "<lora:style:0.5:lbw=OUTALL>"))[1], ARCH)[0]
    strengths = {
        name.partition(".")[0] + name.partition(".")[2][:4]: use.strength_of(name) for name in use.lora.modules
    }
    assert strengths == {"unetdown": 0.0, "unetmid_": 0.0, "unetup_b": 0.5, "text_encodertext": 0.5}
    with pytest.raises(ConfigError, match="Block weights"):
        read_uses(named_loras(job(tmp_path, "<lora:style:1:lbw=1,2,3>"))[1], ARCH)


def test_first_ranks_keep_their_scale() -> None:
    module = LoraModule(torch.randn(4, 6), torch.randn(5, 4), 2.0)
    cut = first_ranks(Lora({"x": module}, {}, "sd1"), 3).modules["x"]
    assert torch.allclose(cut.delta(), module.up[:, :3] @ module.down[:3] * 0.5)
    assert first_ranks(Lora({"x": module}, {}, "sd1"), 9).modules["x"] is module
    with pytest.raises(ConfigError, match="rank 0"):
        first_ranks(Lora({"x": module}, {}, "sd1"), 0)


def test_comfyui_keeps_text_encoders_in_half_precision(tmp_path: Path) -> None:
    lora_file(tmp_path)
    named = named_loras(job(tmp_path, "<lora:style:0.1>"))[1]
    name = "text_model.encoder.layers.0.mlp.fc1"
    delta = read_uses(named, ARCH)[0].lora.modules[f"text_encoder.{name}"].delta() * 0.1
    found = {}
    for arithmetic in ("a1111", "comfyui"):
        path = tiny.checkpoint("sd15")
        models = Models(ARCH, load_unet(path, torch.float32), load_text_encoders(path, torch.float32), None)
        weight = models.text_encoders[0].get_submodule(name).weight
        before = weight.clone()
        merge_loras(models, named, arithmetic)
        expected = before + delta if arithmetic == "a1111" else (before.half().float() + delta).half().float()
        assert torch.allclose(weight, expected, atol=1e-7), arithmetic
        found[arithmetic] = weight
    assert not torch.equal(found["a1111"], found["comfyui"])


def test_embeddings_of_folders_and_loras_change_the_picture(tmp_path: Path) -> None:
    width = ARCH.text_encoders[0].width
    path = lora_file(tmp_path)
    bundled = {"bundle_emb.inlora.string_to_param.*": torch.randn(2, width) * 3}
    save_file(load_file(path) | bundled, path, metadata={"ss_output_name": "style"})
    folder = tmp_path / "embeddings"
    folder.mkdir()
    save_file({"emb_params": torch.randn(2, width) * 3}, folder / "infolder.safetensors")
    small = {"width": 64, "height": 64, "steps": 2, "dtype": "fp32", "device": "cpu"}
    written = job(tmp_path, "inlora infolder <lora:style:0>", embedding_dirs=(str(folder),), **small)
    assert sorted(job_embeddings(written)) == ["infolder", "inlora"]

    told = []

    def drawn(prompt: str, **changes: object) -> bytes:
        path = Path(list(generate(replace(written, prompt=prompt, **changes)))[-1].outputs[0])
        told.append(dict(recipe_of(path).wanted.embeddings))
        return path.read_bytes()

    pictures = {
        drawn("inlora infolder <lora:style:0>"),
        drawn("inlora infolder <lora:style:0>", embedding_dirs=()),
        drawn("inlora infolder"),
        drawn("embedding:inlora embedding:infolder <lora:style:0>", arithmetic="comfyui"),
    }
    assert len(pictures) == 4
    digest = hashlib.sha256((folder / "infolder.safetensors").read_bytes()).hexdigest()[:12]
    both = {"inlora": path.stem, "infolder": digest}
    assert told == [both, {"inlora": path.stem}, {"infolder": digest}, both]
