"""Merged LoRAs against PEFT's own branches, and taken out without a trace."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from peft import LoraConfig, inject_adapter_in_model

from lora_core.engine.apply import Use, apply_lora, apply_loras
from lora_core.engine.models import Models, load_models
from lora_core.errors import KeyMismatch
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule

RANK, ALPHA = 2, 1.0


def random_lora(kind: str, seed: int = 0, conv: bool = False) -> Lora:
    g = torch.Generator().manual_seed(seed)
    modules = {}
    for target in lora_targets(tiny.architecture(kind), conv=conv):
        down = torch.randn((RANK, *target.shape[1:]), generator=g) / 4
        up = torch.randn((target.shape[0], RANK, *(1 for _ in target.shape[2:])), generator=g) / 4
        modules[target.canonical] = LoraModule(down, up, ALPHA)
    return Lora(modules, {}, tiny.architecture(kind).family)


def load(kind: str = "sd15", dtype: torch.dtype = torch.float32) -> Models:
    return load_models(tiny.checkpoint(kind), dtype, "cpu")


def answers(models: Models) -> list[torch.Tensor]:
    """What UNet and text encoders compute for a fixed input."""
    g = torch.Generator().manual_seed(3)
    unet = models.unet
    x, ids = torch.randn((1, 4, 8, 8), generator=g), torch.arange(77)[None]
    context = torch.randn((1, 7, unet.config.cross_attention_dim), generator=g)
    added = {"text_embeds": torch.randn((1, 40), generator=g), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        found = [unet(x, 300, context, added_cond_kwargs=added).sample]
        found += [encoder(ids).last_hidden_state for encoder in models.text_encoders]
    return found


def with_peft(models: Models, lora: Lora, strengths: dict[str, float]) -> Models:
    """The same LoRA as live branches of PEFT."""
    models = copy.deepcopy(models)
    for component in ("unet", "text_encoder", "text_encoder_2"):
        inner = {n.partition(".")[2]: m for n, m in lora.modules.items() if n.partition(".")[0] == component}
        root = models.component(component)
        if root is None:
            continue
        config = LoraConfig(target_modules=list(inner), r=RANK, lora_alpha=ALPHA * strengths[component])
        inject_adapter_in_model(config, root)
        for name, module in inner.items():
            layer = root.get_submodule(name)
            layer.lora_A["default"].weight.data = module.down.clone()
            layer.lora_B["default"].weight.data = module.up.clone()
    return models


@pytest.mark.parametrize(("kind", "conv"), [("sd15", True), ("sdxl", False)])
def test_merged_equals_pefts_forward(kind: str, conv: bool) -> None:
    models, lora = load(kind), random_lora(kind, conv=conv)
    base = answers(models)
    wanted = answers(with_peft(models, lora, {"unet": 0.7, "text_encoder": 0.4, "text_encoder_2": 0.4}))
    apply_lora(models, lora, 0.7, 0.4)
    for before, got, want in zip(base, answers(models), wanted):
        assert torch.allclose(got, want, atol=2e-4 * float(want.abs().max()))
        assert not torch.allclose(got, before, atol=1e-2 * float(want.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_undo_restores_every_bit(dtype: torch.dtype) -> None:
    models = load("sd15", dtype)
    before = {n: p.clone() for n, p in models.unet.named_parameters()}
    with apply_loras(models, [Use(random_lora("sd15")), Use(random_lora("sd15", 1), -0.5)]):
        changed = [n for n, p in models.unet.named_parameters() if not torch.equal(p, before[n])]
        assert len(changed) == 192
    assert all(torch.equal(p, before[n]) for n, p in models.unet.named_parameters())


def test_two_loras_add_up_in_fp32_before_rounding() -> None:
    models, exact = load("sd15", torch.bfloat16), load("sd15")
    first, second = random_lora("sd15"), random_lora("sd15", 1)
    name = "mid_block.attentions.0.proj_in"
    wanted = exact.unet.get_submodule(name).weight.bfloat16().float()
    wanted = wanted + first.modules[f"unet.{name}"].delta() + 0.3 * second.modules[f"unet.{name}"].delta()
    apply_loras(models, [Use(first), Use(second, 0.3)])
    assert torch.equal(models.unet.get_submodule(name).weight, wanted.bfloat16())


def test_strength_0_leaves_the_weights_alone() -> None:
    models = load()
    assert apply_lora(models, random_lora("sd15"), 0.0).kept == []


def test_text_encoder_strength_defaults_to_strength() -> None:
    models = load()
    kept = apply_lora(models, random_lora("sd15"), 1.0, te_strength=0.0).kept
    assert len(kept) == 192
    assert len(apply_lora(load(), random_lora("sd15"), 1.0).kept) == 264


def test_another_family_is_refused() -> None:
    with pytest.raises(KeyMismatch, match="sdxl"):
        apply_lora(load(), random_lora("sdxl"))


def test_a_partial_fit_is_refused_and_changes_nothing() -> None:
    models, lora = load(), random_lora("sd15")
    before = answers(models)
    odd = LoraModule(torch.ones(2, 5), torch.ones(7, 2), 1.0)
    for name in ("unet.no.such.layer", "unet.mid_block.attentions.0.proj_in"):
        with pytest.raises(KeyMismatch, match=name.replace(".", r"\.")):
            apply_lora(models, Lora({**lora.modules, name: odd}, {}, "sd1"))
    with pytest.raises(KeyMismatch):
        apply_lora(models, Lora({}, {}, "sd1"))
    assert all(torch.equal(a, b) for a, b in zip(before, answers(models)))
