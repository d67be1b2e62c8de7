"""Loaded modules hold the file's weights and compute what the original modules compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from lora_core.engine.models import load_models, load_text_encoders, load_unet, load_vae
from lora_core.errors import FileError, KeyMismatch

KINDS = ("sd15", "sd15-inpaint", "sd2", "sdxl")


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_every_component_arrives(kind: str) -> None:
    made = tiny.modules(tiny.architecture(kind))
    models = load_models(tiny.checkpoint(kind), torch.float32, "cpu")
    for name, module in made.items():
        loaded = models.component(name)
        assert loaded is not None
        ours, theirs = loaded.state_dict(), module.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert not loaded.training
        assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())
        assert not any(b.is_meta for b in loaded.buffers())


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_unet_forward_equals_the_original(kind: str) -> None:
    arch = tiny.architecture(kind)
    torch.manual_seed(1)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, arch.unet.context_dim)
    added = {"text_embeds": torch.randn(2, 40), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
    with torch.no_grad():
        wanted = tiny.modules(arch)["unet"](x, 500, context, added_cond_kwargs=added).sample
        got = load_unet(tiny.checkpoint(kind), torch.float32)(x, 500, context, added_cond_kwargs=added).sample
    assert torch.allclose(got, wanted, atol=1e-5)


def test_vae_round_trip_equals_the_original() -> None:
    vae = tiny.modules(tiny.architecture("sd15"))["vae"]
    ours = load_vae(tiny.checkpoint("sd15"), torch.float32)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
        assert torch.equal(ours.encode(pixels).latent_dist.mean, latents)
        assert torch.equal(ours.decode(latents).sample, vae.decode(latents).sample)
    assert ours.config.scaling_factor == 0.18215
    assert load_vae(tiny.checkpoint("sdxl"), torch.float32).config.scaling_factor == 0.13025


def test_folder_and_file_are_the_same_model() -> None:
    file = load_unet(tiny.checkpoint("sd15"), torch.float32).state_dict()
    folder = load_unet(tiny.folder("sd15"), torch.float32).state_dict()
    assert all(torch.equal(file[key], folder[key]) for key in file)


def test_number_formats() -> None:
    unet = load_unet(tiny.checkpoint("sd15", torch.float16), torch.bfloat16)
    assert {p.dtype for p in unet.parameters()} == {torch.bfloat16}
    assert load_models(tiny.checkpoint("sd15"), torch.float16, "cpu").vae.dtype == torch.float32


def test_a_vae_of_its_own(tmp_path: Path) -> None:
    other = tiny.modules(tiny.architecture("sd15"), seed=7)["vae"]
    tensors = tiny.file_tensors(tiny.architecture("sd15"), {"vae": other})
    path = tmp_path / "vae.safetensors"
    save_file({name.removeprefix("first_stage_model."): t for name, t in tensors.items()}, path)
    loaded = load_vae(tiny.checkpoint("sd15"), torch.float32, "cpu", str(path)).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in other.state_dict().items())


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    tensors = load_file(tiny.checkpoint("sd15"))
    del tensors["model.diffusion_model.middle_block.0.in_layers.2.bias"]
    save_file(tensors, tmp_path / "damaged.safetensors")
    with pytest.raises(KeyMismatch, match=r"middle_block\.0\.in_layers\.2\.bias"):
        load_unet(tmp_path / "damaged.safetensors", torch.float32)


def test_the_refiner_is_refused() -> None:
    with pytest.raises(FileError, match="refiner"):
        load_text_encoders(tiny.checkpoint("refiner"), torch.float32)
