"""Detection recovers every number of a model from the keys and shapes of its file."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from lora_core.architecture import architecture_of, detect, detect_vae, refuse_untrainable
from lora_core.errors import FileError, KeyMismatch
from lora_core.families import reference
from lora_core.shapes import Architecture, TextEncoderShape, UNetShape, VaeShape

KINDS = ("sd15", "sd15-inpaint", "sd2", "sdxl", "refiner")

ODD = {
    "sd1": (
        UNetShape(4, 4, (24, 40, 72), 1, (1, 0, 1), 1, 56, (8, 8, 8), False, None, 8),
        (TextEncoderShape(56, 3, 1, 100, 300, 20, "quick_gelu"),),
        VaeShape((12, 20, 36), 4, 1, 4, 0.18215),
    ),
    "sd2": (
        UNetShape(4, 4, (64, 192, 320, 64, 64), 3, (0, 2, 1, 1, 3), 3, 136, (1, 3, 5, 1, 1), True, None, 32),
        (TextEncoderShape(136, 5, 2, 77, 500, 33, "gelu"),),
        VaeShape((32, 64), 4, 3, 32, 0.18215),
    ),
    "sdxl": (
        UNetShape(4, 4, (32, 96), 2, (1, 3), 3, 128, (1, 1), True, 72 + 1536, 32),
        (TextEncoderShape(64, 2, 1, 64, 200, 77, "quick_gelu"), TextEncoderShape(64, 4, 1, 90, 200, 77, "gelu", 72)),
        VaeShape((16, 24, 40, 8), 4, 2, 8, 0.13025),
    ),
}


def odd(family: str) -> Architecture:
    unet, encoders, vae = ODD[family]
    return dataclasses.replace(reference(family), unet=unet, text_encoders=encoders, vae=vae)


def meta_modules(arch: Architecture) -> dict[str, torch.nn.Module]:
    with torch.device("meta"):
        return tiny.modules(arch)


@functools.cache
def ldm_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tiny.file_tensors(arch, meta_modules(arch)).items()}


def folder_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    return {f"{c}.{k}": tuple(v.shape) for c, m in meta_modules(arch).items() for k, v in m.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_checkpoints_are_recovered(kind):
    assert architecture_of(tiny.checkpoint(kind)) == tiny.architecture(kind)


@pytest.mark.parametrize("family", ODD)
def test_odd_numbers_are_recovered_from_the_ldm_layout(family):
    assert detect(ldm_shapes(odd(family))) == odd(family)


@pytest.mark.parametrize("family", ODD)
def test_odd_numbers_are_recovered_from_diffusers_own_names(family):
    wanted = odd(family)
    found = detect(folder_shapes(wanted))
    assert (found.family, found.layout) == (family, "diffusers")
    assert (found.unet, found.text_encoders, found.vae) == (wanted.unet, wanted.text_encoders, wanted.vae)


@pytest.mark.parametrize("family", ("sd1", "sd2", "sdxl"))
def test_released_sizes(family):
    assert detect(ldm_shapes(reference(family))) == reference(family)


def test_refiner_is_recognised_and_refused():
    arch = architecture_of(tiny.checkpoint("refiner"))
    assert arch.family == "sdxl_refiner"
    with pytest.raises(FileError, match=r"x\.safetensors is the SDXL refiner.*base model"):
        refuse_untrainable(arch, "/somewhere/x.safetensors")
    refuse_untrainable(tiny.architecture("sdxl"), "x.safetensors")


def test_inpainting_has_nine_channels():
    arch = architecture_of(tiny.checkpoint("sd15-inpaint"))
    assert arch.inpainting and arch.unet.in_channels == 9 and arch.unet.out_channels == 4
    refuse_untrainable(arch, "x")
    instruct = dataclasses.replace(arch, unet=dataclasses.replace(arch.unet, in_channels=8))
    with pytest.raises(FileError, match="8 input channels"):
        refuse_untrainable(instruct, "x")


@pytest.mark.parametrize(
    ("keys", "metadata", "prediction", "ztsnr"),
    [
        ((), {}, "epsilon", False),
        (("v_pred",), {}, "v", False),
        (("v_pred", "ztsnr"), {}, "v", True),
        ((), {"modelspec.prediction_type": "v"}, "v", False),
        ((), {"modelspec.prediction_type": "v_prediction"}, "v", False),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ((), {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v", False),
    ],
)
def test_marks_of_prediction(keys, metadata, prediction, ztsnr):
    shapes = ldm_shapes(tiny.architecture("sdxl")) | {key: () for key in keys}
    arch = detect(shapes, metadata)
    assert (arch.prediction, arch.zero_terminal_snr) == (prediction, ztsnr)


def test_sd2_prediction_by_the_spread_of_one_bias(tmp_path):
    """ComfyUI's rule: the standard deviation of this bias is above 0.09 in the 768-v models."""
    bias = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    tensors = load_file(tiny.checkpoint("sd2"))
    for spread, prediction in ((0.05, "epsilon"), (0.2, "v")):
        tensors[bias] = torch.tensor([-spread, spread]).repeat(16)
        save_file(tensors, tmp_path / "sd2.safetensors")
        assert architecture_of(tmp_path / "sd2.safetensors").prediction == prediction


def test_a1111s_yaml_beside_the_file(tmp_path):
    os.symlink(tiny.checkpoint("sd2"), tmp_path / "x.safetensors")
    assert architecture_of(tmp_path / "x.safetensors").prediction == "epsilon"
    (tmp_path / "x.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert architecture_of(tmp_path / "x.safetensors").prediction == "v"


def test_folder_with_scheduler_config(tmp_path):
    base = tiny.folder("sd15")
    for name in ("unet", "text_encoder", "vae"):
        os.symlink(base / name, tmp_path / name)
    arch = architecture_of(tmp_path)
    wanted = tiny.architecture("sd15")
    assert (arch.unet, arch.text_encoders, arch.vae, arch.layout) == (
        wanted.unet,
        wanted.text_encoders,
        wanted.vae,
        "diffusers",
    )
    (tmp_path / "scheduler").mkdir()
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    arch = architecture_of(tmp_path)
    assert (arch.prediction, arch.zero_terminal_snr) == ("v", True)


def test_old_text_encoder_names():
    """Checkpoints of early 2023 lack `text_model.` in the names of the text encoder."""
    shapes = ldm_shapes(tiny.architecture("sd15"))
    shapes = {name.replace("transformer.text_model.", "transformer."): shape for name, shape in shapes.items()}
    arch = detect(shapes)
    assert arch.text_encoders == tiny.architecture("sd15").text_encoders
    assert arch.prefix("text_encoder") == "cond_stage_model.transformer."


def test_a_model_without_text_encoder_or_vae_says_so():
    shapes = {k: v for k, v in ldm_shapes(tiny.architecture("sd15")).items() if k.startswith("model.")}
    arch = detect(shapes)
    assert arch.components == ("unet",) and arch.vae is None
    with pytest.raises(KeyMismatch, match="no vae"):
        arch.prefix("vae")


def test_missing_and_unknown_tensors_are_named():
    shapes = ldm_shapes(tiny.architecture("sd15"))
    lost = "model.diffusion_model.output_blocks.7.1.norm.weight"
    with pytest.raises(KeyMismatch, match=lost.replace(".", r"\.")):
        detect({name: shape for name, shape in shapes.items() if name != lost})
    with pytest.raises(KeyMismatch, match=r"unknown_adapter\.weight"):
        detect(shapes | {"model.diffusion_model.unknown_adapter.weight": (3,)})
    with pytest.raises(KeyMismatch, match=r"middle_block\.0\.in_layers\.2\.weight has shape"):
        detect(shapes | {"model.diffusion_model.middle_block.0.in_layers.2.weight": (96, 95, 3, 3)})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "LoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "LoRA"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("first_stage_model.encoder.conv_in.weight", "only a VAE"),
        ("whatever", "no UNet"),
    ],
)
def test_other_files_are_told_apart(key, words):
    with pytest.raises(FileError, match=words):
        detect({key: (4, 4)})


def test_a_vae_in_its_own_file():
    arch = tiny.architecture("sd15")
    ldm = {k.removeprefix("first_stage_model."): v for k, v in ldm_shapes(arch).items() if k.startswith("first")}
    assert detect_vae(ldm, "sd1") == (arch.vae, "", "ldm")
    own = {k.removeprefix("vae."): v for k, v in folder_shapes(arch).items() if k.startswith("vae.")}
    assert detect_vae(own, "sd1") == (arch.vae, "", "diffusers")
    with pytest.raises(FileError, match="no VAE"):
        detect_vae({"x": (1,)}, "sd1")


def test_pickled_checkpoint_gives_the_same(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": load_file(tiny.checkpoint("sd15")), "global_step": 7}, path)
    assert architecture_of(path) == tiny.architecture("sd15")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "boom"))


def test_pickled_code_is_refused_and_not_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "bad.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "bomb": Bomb(mark)}, path)
    with pytest.raises(FileError, match=r"bad\.ckpt.*could run code"):
        architecture_of(path)
    assert not mark.exists()


def test_faults_name_the_file(tmp_path):
    with pytest.raises(FileError, match=r"nothing\.safetensors does not exist"):
        architecture_of(tmp_path / "nothing.safetensors")
    with pytest.raises(FileError, match="folder without a model"):
        architecture_of(tmp_path)
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(FileError, match=r"x\.safetensors.*no UNet"):
        architecture_of(tmp_path / "x.safetensors")
