"""Names: equal to kohya's lists, and to what diffusers' own converter makes of the same file."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import tiny
import torch
from diffusers.loaders import single_file_utils

from lora_core.architecture import architecture_of
from lora_core.errors import KeyMismatch
from lora_core.families import reference
from lora_core.keys import checkpoint_tensors, dotted_names, kohya_names, lora_targets
from lora_core.tensors import open_tensors, read_key

DATA = Path(__file__).parent / "data"
COUNTS = {"sd1": (192, 264, 350), "sdxl": (722, 986, 1052)}
LISTS = {"sd1": "kohya_sd15_locon.txt", "sdxl": "kohya_sdxl_locon.txt"}
KINDS = ("sd15", "sd15-inpaint", "sd2", "sdxl", "refiner")


@functools.cache
def made_for(kind: str) -> tuple[dict[str, torch.nn.Module], dict[str, torch.Tensor]]:
    """The tiny modules and their tensors under the checkpoint's names; read only."""
    arch = tiny.architecture(kind)
    made = tiny.modules(arch)
    return made, tiny.file_tensors(arch, made)


def golden(family: str) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]]:
    """Module -> (down shape, up shape, only with conv), from files of sd-scripts at rank 16, conv rank 8."""
    rows = (line.split() for line in (DATA / LISTS[family]).read_text().splitlines())
    return {r[0]: (sizes(r[1]), sizes(r[2]), r[-1] == "conv") for r in rows}


def sizes(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("x"))


def factor_shapes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = 8 if shape[2:] == (3, 3) else 16
    return (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))


@pytest.mark.parametrize("family", COUNTS)
def test_targets_equal_kohyas_lists(family):
    wanted = golden(family)
    arch = reference(family)
    unet_only, plain, conv = COUNTS[family]
    assert {k.kohya: factor_shapes(k.shape) for k in lora_targets(arch, conv=True)} == {
        name: shapes[:2] for name, shapes in wanted.items()
    }
    without = [k.kohya for k in lora_targets(arch)]
    assert set(without) == {name for name, row in wanted.items() if not row[2]} and len(without) == plain
    unet = [k.kohya for k in lora_targets(arch, text_encoders=False)]
    assert set(unet) == {name for name in without if name.startswith("lora_unet_")} and len(unet) == unet_only
    assert len(lora_targets(arch, conv=True)) == conv
    text = lora_targets(arch, unet=False)
    assert {k.kohya for k in text} == set(without) - set(unet)


def test_tiny_models_have_the_same_modules_as_the_released():
    for kind, family in (("sd15", "sd1"), ("sd2", "sd2"), ("sdxl", "sdxl")):
        for conv in (False, True):
            small = [(k.canonical, k.kohya, k.base) for k in lora_targets(tiny.architecture(kind), conv)]
            assert small == [(k.canonical, k.kohya, k.base) for k in lora_targets(reference(family), conv)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_of_the_modules_exactly_once(kind):
    arch = tiny.architecture(kind)
    for component, module in made_for(kind)[0].items():
        keys = checkpoint_tensors(arch, component)
        state = module.state_dict()
        assert len(keys) == len({k.name for k in keys}) == len(state)
        assert {k.name: k.shape for k in keys} == {name: tuple(t.shape) for name, t in state.items()}
        assert len({(k.source, k.slice_rows) for k in keys}) == len(keys)


@pytest.mark.parametrize("kind", ("sd15", "sd2", "sdxl"))
def test_diffusers_converter_agrees_on_unet_and_vae(kind):
    made, tensors = made_for(kind)
    converters = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint,
        "vae": single_file_utils.convert_ldm_vae_checkpoint,
    }
    for component, convert in converters.items():
        found = convert(dict(tensors), dict(made[component].config))
        same(found, made[component].state_dict())


@pytest.mark.parametrize(("kind", "component"), [("sd15", "text_encoder"), ("sdxl", "text_encoder")])
def test_diffusers_converter_agrees_on_clip(kind, component):
    made, tensors = made_for(kind)
    same(single_file_utils.convert_ldm_clip_checkpoint(dict(tensors)), made[component].state_dict())


@pytest.mark.parametrize(("kind", "component"), [("sd2", "text_encoder"), ("sdxl", "text_encoder_2")])
def test_diffusers_converter_agrees_on_openclip(kind, component):
    """Fused q/k/v rows and the transposed projection; SD2's last block is not used."""
    arch = tiny.architecture(kind)
    made, tensors = made_for(kind)
    prefix = arch.prefix(component)
    found = single_file_utils.convert_open_clip_checkpoint(made[component], dict(tensors), prefix=prefix)
    wanted = made[component].state_dict()
    same({name: tensor for name, tensor in found.items() if name in wanted}, wanted)


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", ("sd15", "sd2", "sdxl"))
def test_file_and_folder_give_back_the_modules_weights(kind):
    for path in (tiny.checkpoint(kind), tiny.folder(kind)):
        arch = architecture_of(path)
        with open_tensors(path) as source:
            for component, module in made_for(kind)[0].items():
                keys = checkpoint_tensors(arch, component)
                same({k.name: read_key(source, k) for k in keys}, module.state_dict())


@pytest.mark.parametrize("family", ("sd1", "sd2", "sdxl"))
def test_every_spelling_leads_to_one_module(family):
    arch = reference(family)
    keys = lora_targets(arch, conv=True)
    names, dotted = kohya_names(arch), dotted_names(arch)
    assert {k.canonical for k in names.values()} == {k.canonical for k in keys}
    for key in keys:
        assert names[key.kohya] == dotted[key.canonical] == key


def test_sdxl_in_diffusers_names_is_read_too():
    names = kohya_names(reference("sdxl"))
    pairs = {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q": (
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"
        ),
        "lora_unet_up_blocks_0_upsamplers_0_conv": "lora_unet_output_blocks_2_2_conv",
        "lora_unet_down_blocks_0_downsamplers_0_conv": "lora_unet_input_blocks_3_0_op",
        "lora_unet_mid_block_attentions_0_proj_in": "lora_unet_middle_block_1_proj_in",
    }
    for ours, sgm in pairs.items():
        assert names[ours] == names[sgm] and names[sgm].kohya == sgm


def test_fused_rows_lie_in_the_base_tensor():
    keys = {k.path: k for k in lora_targets(reference("sdxl")) if k.component == "text_encoder_2"}
    layer = "text_model.encoder.layers.31.self_attn"
    base = "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight"
    for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
        assert keys[f"{layer}.{part}"].base == base
        assert keys[f"{layer}.{part}"].slice_rows == (1280 * i, 1280 * (i + 1))
    assert keys[f"{layer}.out_proj"].slice_rows is None


def test_unknown_component_is_named():
    with pytest.raises(KeyMismatch, match="text encoder 2"):
        checkpoint_tensors(reference("sd1"), "text_encoder_2")
