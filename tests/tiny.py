"""Tiny models of the true topologies: real diffusers and transformers modules, random weights, saved as checkpoints.

`checkpoint(kind)` and `folder(kind)` make a file or a diffusers folder once per process; treat them as read-only.
Kinds: "sd15", "sd15-inpaint", "sd2", "sdxl", "refiner".
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_core.keys import TensorKey, checkpoint_tensors
from lora_core.shapes import Architecture, TextEncoderShape, UNetShape, VaeShape

VOCAB = 49408
VAE = VaeShape((16, 16, 32, 32), 4, 2, 16, 0.18215)
CLIP_L = TextEncoderShape(32, 12, 1, 128, VOCAB, 77, "quick_gelu")
CLIP_H = TextEncoderShape(32, 23, 1, 128, VOCAB, 77, "gelu")
CLIP_G = TextEncoderShape(48, 32, 1, 192, VOCAB, 77, "gelu", 40)

SD1_UNET = UNetShape(4, 4, (32, 64, 96, 96), 2, (1, 1, 1, 0), 1, 32, (8, 8, 8, 8), False)
SD2_UNET = UNetShape(4, 4, (32, 64, 128, 128), 2, (1, 1, 1, 0), 1, 32, (1, 1, 2, 2), True)
SDXL_UNET = UNetShape(4, 4, (32, 64, 32), 2, (0, 2, 10), 10, 80, (1, 1, 1), True, 40 + 6 * 256)
REFINER_UNET = UNetShape(4, 4, (32, 64, 96, 96), 2, (0, 4, 4, 0), 4, 48, (1, 1, 1, 1), True, 40 + 5 * 256)

SD1_PREFIXES = (
    ("unet", "model.diffusion_model."),
    ("text_encoder", "cond_stage_model.transformer.text_model."),
    ("vae", "first_stage_model."),
)
SD2_PREFIXES = (SD1_PREFIXES[0], ("text_encoder", "cond_stage_model.model."), SD1_PREFIXES[2])
SDXL_PREFIXES = (
    SD1_PREFIXES[0],
    ("text_encoder", "conditioner.embedders.0.transformer.text_model."),
    ("text_encoder_2", "conditioner.embedders.1.model."),
    SD1_PREFIXES[2],
)
REFINER_PREFIXES = (SD1_PREFIXES[0], ("text_encoder", "conditioner.embedders.0.model."), SD1_PREFIXES[2])


def architecture(kind: str) -> Architecture:
    """The facts that a tiny checkpoint of this kind is made from (LDM layout)."""
    xl_vae = VaeShape(VAE.block_out_channels, 4, 2, 16, 0.13025)
    inpaint = UNetShape(**{**vars(SD1_UNET), "in_channels": 9})
    rows = {
        "sd15": ("sd1", SD1_UNET, (CLIP_L,), VAE, SD1_PREFIXES),
        "sd15-inpaint": ("sd1", inpaint, (CLIP_L,), VAE, SD1_PREFIXES),
        "sd2": ("sd2", SD2_UNET, (CLIP_H,), VAE, SD2_PREFIXES),
        "sdxl": ("sdxl", SDXL_UNET, (CLIP_L, CLIP_G), xl_vae, SDXL_PREFIXES),
        "refiner": ("sdxl_refiner", REFINER_UNET, (CLIP_G,), xl_vae, REFINER_PREFIXES),
    }
    family, unet, encoders, vae, prefixes = rows[kind]
    return Architecture(family, "ldm", "epsilon", False, unet.in_channels == 9, unet, encoders, vae, prefixes)


def make_unet(shape: UNetShape) -> UNet2DConditionModel:
    """A real diffusers UNet, written out here without lora_core's help."""
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in shape.transformer_depth]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(shape.transformer_depth)]
    depths = [depth or 1 for depth in shape.transformer_depth]
    depths[-1] = shape.mid_depth
    extra = {}
    if shape.label_channels is not None:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": shape.label_channels,
        }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        block_out_channels=shape.block_out_channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=shape.layers_per_block,
        transformer_layers_per_block=depths,
        cross_attention_dim=shape.context_dim,
        attention_head_dim=shape.heads,
        use_linear_projection=shape.linear_projection,
        norm_num_groups=shape.norm_groups,
        **extra,
    ).eval()


def make_text_encoder(shape: TextEncoderShape) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        projection_dim=shape.projection or shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        hidden_act=shape.activation,
    )
    return (CLIPTextModel if shape.projection is None else CLIPTextModelWithProjection)(config).eval()


def make_vae(shape: VaeShape) -> AutoencoderKL:
    levels = len(shape.block_out_channels)
    return AutoencoderKL(
        block_out_channels=shape.block_out_channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=shape.layers_per_block,
        latent_channels=shape.latent_channels,
        norm_num_groups=shape.norm_groups,
        scaling_factor=shape.scaling_factor,
    ).eval()


def modules(arch: Architecture, seed: int = 0) -> dict[str, torch.nn.Module]:
    """Component name -> module with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: dict[str, torch.nn.Module] = {"unet": make_unet(arch.unet)}
        for name, shape in zip(("text_encoder", "text_encoder_2"), arch.text_encoders):
            made[name] = make_text_encoder(shape)
        if arch.vae is not None:
            made["vae"] = make_vae(arch.vae)
    return made


def file_tensors(arch: Architecture, made: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """The modules' weights under the checkpoint's names: the inverse of `checkpoint_tensors`."""
    found: dict[str, torch.Tensor] = {}
    for component, module in made.items():
        state = module.state_dict()
        sources: dict[str, list[TensorKey]] = {}
        for key in checkpoint_tensors(arch, component):
            sources.setdefault(key.source, []).append(key)
        for source, keys in sources.items():
            parts = sorted(keys, key=lambda k: k.slice_rows or (0, 0))
            tensor = torch.cat([state[k.name] for k in parts]) if parts[0].slice_rows else state[parts[0].name]
            if parts[0].transform == "transpose":
                tensor = tensor.t()
            if parts[0].transform == "squeeze":
                tensor = tensor[..., None, None]
            found[source] = tensor.contiguous()
    if arch.family == "sd2":
        _unused_last_layer(arch, found)
    return found


def _unused_last_layer(arch: Architecture, found: dict[str, torch.Tensor]) -> None:
    """Real SD2 files hold one OpenCLIP block more than the model uses, and a projection."""
    prefix = arch.prefix("text_encoder")
    last = arch.text_encoders[0].layers
    first = f"{prefix}transformer.resblocks.0."
    for key in [k for k in found if k.startswith(first)]:
        found[key.replace("resblocks.0.", f"resblocks.{last}.")] = torch.zeros_like(found[key])
    width = arch.text_encoders[0].width
    found[f"{prefix}text_projection"] = torch.zeros(width, width)
    found[f"{prefix}logit_scale"] = torch.tensor(4.6)


@functools.cache
def _folder() -> Path:
    path = Path(tempfile.mkdtemp(prefix="lora_loom_tiny_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def checkpoint(kind: str = "sd15", dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """A single-file checkpoint in LDM/SGM layout."""
    arch = architecture(kind)
    tensors = {name: tensor.to(dtype) for name, tensor in file_tensors(arch, modules(arch, seed)).items()}
    path = _folder() / f"tiny_{kind}_{str(dtype).rpartition('.')[2]}_{seed}.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path


@functools.cache
def folder(kind: str = "sd15", seed: int = 0) -> Path:
    """The same weights as `checkpoint(kind, torch.float32, seed)` as a diffusers folder."""
    path = _folder() / f"tiny_{kind}_{seed}_folder"
    for name, module in modules(architecture(kind), seed).items():
        module.save_pretrained(path / name)
    return path
