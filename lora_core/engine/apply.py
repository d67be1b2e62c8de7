"""Merging LoRAs into loaded modules, and taking them out again bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lora_core.block_weights import BlockWeights
from lora_core.engine.models import Models
from lora_core.engine.other_networks import OtherModule, OtherNetwork
from lora_core.errors import KeyMismatch
from lora_core.lora import Lora, LoraModule
from lora_core.shapes import UNET

Module = LoraModule | OtherModule


@dataclass(frozen=True)
class Use:
    """A LoRA with its strengths; `text_encoder_strength` None means as `strength`. `name` is for messages.

    `blocks` weighs the strengths block by block.
    """

    lora: Lora | OtherNetwork
    strength: float = 1.0
    text_encoder_strength: float | None = None
    name: str = "The LoRA"
    blocks: BlockWeights | None = None

    def strength_of(self, canonical: str) -> float:
        of_unet = canonical.startswith(f"{UNET}.") or self.text_encoder_strength is None
        strength = self.strength if of_unet else self.text_encoder_strength
        assert strength is not None
        return strength if self.blocks is None else strength * self.blocks.of(canonical)


@dataclass
class Applied:
    """Weights as they were before, for `undo`."""

    kept: list[tuple[torch.nn.Parameter, torch.Tensor]]

    def undo(self) -> None:
        """Put the very same bits back. Harmless twice."""
        with torch.no_grad():
            for weight, original in self.kept:
                weight.copy_(original)
        self.kept = []

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def apply_lora(
    models: Models,
    lora: Lora | OtherNetwork,
    strength: float = 1.0,
    te_strength: float | None = None,
    keep: bool = True,
) -> Applied:
    """Merge one LoRA: W + strength * (alpha / rank) * up @ down. See `apply_loras`."""
    return apply_loras(models, [Use(lora, strength, te_strength)], keep)


def apply_loras(models: Models, uses: Sequence[Use], keep: bool = True) -> Applied:
    """Merge LoRAs into the loaded components; sums in fp32, rounded once to the weights' own format.

    `keep` false saves the memory of a copy; such a merge cannot be undone. Components that are not loaded are left
    out. Raises KeyMismatch, with nothing changed, when a LoRA is of another family or holds a module that is not there.
    """
    for use in uses:
        _check(models, use)
    applied = Applied([])
    with torch.no_grad():
        for canonical in dict.fromkeys(name for use in uses for name in use.lora.modules):
            weight = _weight(models, canonical)
            shares = [(u.strength_of(canonical), u.lora.modules.get(canonical)) for u in uses]
            wanted = [(strength, module) for strength, module in shares if module is not None and strength != 0]
            if weight is None or not wanted:
                continue
            if keep:
                applied.kept.append((weight, weight.detach().clone()))
            bias = _bias(models, canonical, wanted)
            if bias is not None:
                if keep:
                    applied.kept.append((bias, bias.detach().clone()))
                bias.copy_(_merged_bias(bias, wanted))
            weight.copy_(_merged(weight, wanted))
    return applied


def _bias(models: Models, canonical: str, shares: Sequence[tuple[float, Module]]) -> Any:
    """The bias of a layer where a share changes it. Raises KeyMismatch for a layer without one."""
    if not any(isinstance(module, OtherModule) and module.bias is not None for _, module in shares):
        return None
    bias = getattr(_layer(models, canonical), "bias", None)
    if bias is None:
        raise KeyMismatch(f"A LoRA changes the bias of {canonical}, which has none in this base.")
    return bias


def _merged_bias(bias: torch.Tensor, shares: Sequence[tuple[float, Module]]) -> torch.Tensor:
    total = bias.float()
    for strength, module in shares:
        if isinstance(module, OtherModule) and module.bias is not None:
            total = total + strength * module.bias.to(total.device)
    return total.to(bias.dtype)


def _merged(weight: torch.Tensor, shares: Sequence[tuple[float, Module]]) -> torch.Tensor:
    """Every change is that of the base's own weight, whatever the others do (as the hosts add them)."""
    total = weight.float()
    for strength, module in shares:
        delta = module.delta(weight) if isinstance(module, OtherModule) else _delta(module, weight)
        total = total if delta is None else total + strength * delta.reshape(weight.shape)
    return total.to(weight.dtype)


def _delta(module: LoraModule, weight: torch.Tensor) -> torch.Tensor:
    device = weight.device
    mid = None if module.mid is None else module.mid.to(device)
    return replace(module, down=module.down.to(device), up=module.up.to(device), mid=mid).delta().reshape(weight.shape)


def _check(models: Models, use: Use) -> None:
    family = models.architecture.family
    if use.lora.family != family:
        raise KeyMismatch(
            f"{use.name} was made for {use.lora.family} models; this base is {family}. Choose one for it."
        )
    wrong = [name for name, module in use.lora.modules.items() if not _fits(models, name, module)]
    if wrong or not use.lora.modules:
        count, names = len(wrong), ", ".join(wrong[:3])
        raise KeyMismatch(f"{use.name} does not fit this base: {count} of its modules have no place, e.g. {names}.")


def _fits(models: Models, canonical: str, module: Module) -> bool:
    if models.component(canonical.partition(".")[0]) is None:
        return canonical.startswith("text_encoder") and not models.text_encoders
    weight = _weight(models, canonical)
    if weight is None:
        return False
    if isinstance(module, OtherModule):
        return tuple(weight.shape) == module.shape
    rows, columns = module.up.shape[0], module.down.shape[1]
    return (rows, columns) == tuple(weight.shape[:2])


def _weight(models: Models, canonical: str) -> Any:
    return getattr(_layer(models, canonical), "weight", None)


def _layer(models: Models, canonical: str) -> Any:
    component, _, path = canonical.partition(".")
    root = models.component(component)
    try:
        return None if root is None else root.get_submodule(path)
    except AttributeError:
        return None
