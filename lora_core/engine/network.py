"""The LoRA branches of a training: attached to the base by PEFT, named canonically, kept in fp32."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_core.engine.randomness import generator
from lora_core.errors import KeyMismatch, NotFinite
from lora_core.jobs.train import Network as NetworkSettings
from lora_core.keys import ModuleKey
from lora_core.lora import Lora, LoraModule

ADAPTER = "default"


@dataclass(frozen=True)
class Size:
    """Rank and alpha of one module; its delta is scaled by alpha / rank."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Branch:
    """The trained factors of one module: down [r, in(, kh, kw)], up [out, r(, 1, 1)]."""

    down: nn.Parameter
    up: nn.Parameter
    size: Size


@dataclass(frozen=True)
class Network:
    """All branches by canonical name, in the order of the targets."""

    branches: dict[str, Branch]

    def parameters(self, component: str) -> list[nn.Parameter]:
        """The factors of one component ("unet", "text_encoder", "text_encoder_2")."""
        chosen = [b for name, b in self.branches.items() if name.split(".", 1)[0] == component]
        return [p for b in chosen for p in (b.down, b.up)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live factors as `name.down` and `name.up`."""
        found: dict[str, torch.Tensor] = {}
        for name, branch in self.branches.items():
            found[f"{name}.down"], found[f"{name}.up"] = branch.down.data, branch.up.data
        return found


def sizes_of(targets: Iterable[ModuleKey], settings: NetworkSettings) -> dict[str, Size]:
    """kohya's rule: 3x3 convolutions take conv_rank, everything else rank."""
    linear, conv = Size(settings.rank, settings.alpha), Size(settings.conv_rank, settings.conv_alpha)
    return {t.canonical: conv if len(t.shape) == 4 and t.shape[-1] > 1 else linear for t in targets}


def attach(components: Mapping[str, nn.Module], sizes: Mapping[str, Size], dropout: float, seed: int) -> Network:
    """Put a LoRA branch on every module named in `sizes`; down is Kaiming-uniform, up zero (Hu et al. 2021).

    The start values are drawn on the CPU from `seed`, one module after the other in the order of `sizes`.
    Raises KeyMismatch when a named module is not in the model.
    """
    draw = generator(seed, "lora")
    return Network({name: _branch(components, name, size, dropout, draw) for name, size in sizes.items()})


def _branch(
    components: Mapping[str, nn.Module], name: str, size: Size, dropout: float, draw: torch.Generator
) -> Branch:
    component, path = name.split(".", 1)
    layer = _wrapped(components[component], path, size, dropout)
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    bound = 1 / math.sqrt(down.weight[0].numel())
    start = (torch.rand(down.weight.shape, generator=draw) * 2 - 1) * bound
    down.weight = nn.Parameter(start.to(down.weight.device))
    up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=up.weight.device))
    return Branch(down.weight, up.weight, size)


def _wrapped(model: nn.Module, path: str, size: Size, dropout: float) -> Any:
    """PEFT's LoRA layer in the place of the module at `path`.

    Layer by layer, because PEFT's own injection looks every module up in regular expressions: a minute for SDXL.
    """
    from lora_core.engine.branch import branch_layer

    parent_path, _, child = path.rpartition(".")
    try:
        base = model.get_submodule(path)
    except AttributeError as error:
        raise KeyMismatch(f"The model has no module {path} to train.") from error
    layer = branch_layer(base, size.rank, size.alpha, dropout)
    setattr(model.get_submodule(parent_path), child, layer)
    return layer


def to_lora(network: Network, family: str) -> Lora:
    """A copy of the present factors on the CPU. Raises NotFinite when one holds NaN or infinity."""
    modules: dict[str, LoraModule] = {}
    for name, b in network.branches.items():
        down, up = (p.detach().to("cpu", torch.float32, copy=True).contiguous() for p in (b.down, b.up))
        if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise NotFinite(f"The trained weights of {name} are not finite; they were not saved.")
        modules[name] = LoraModule(down, up, b.size.alpha)
    return Lora(modules, {}, family)


@contextmanager
def without_dropout(components: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the branches compute as they will in use: nothing is dropped."""
    every = (module for component in components for module in component.modules())
    dropping = [module for module in every if isinstance(module, nn.Dropout) and module.training]
    for module in dropping:
        module.eval()
    try:
        yield
    finally:
        for module in dropping:
            module.train()


def fill(network: Network, lora: Lora) -> None:
    """Take the factors of `lora`. Raises KeyMismatch unless both have the same modules."""
    differing = network.branches.keys() ^ lora.modules.keys()
    if differing:
        raise KeyMismatch(f"LoRA and training differ in {len(differing)} modules, e.g. {sorted(differing)[0]}.")
    with torch.no_grad():
        for name, branch in network.branches.items():
            branch.down.copy_(lora.modules[name].down)
            branch.up.copy_(lora.modules[name].up)


def only(lora: Lora, network: Network) -> Lora:
    """The part of `lora` whose modules are trained here."""
    return Lora({n: m for n, m in lora.modules.items() if n in network.branches}, lora.metadata, lora.family)


def train_only(components: Iterable[nn.Module], network: Network) -> None:
    """Freeze everything but the branches."""
    for module in components:
        module.requires_grad_(False)
    for branch in network.branches.values():
        branch.down.requires_grad_(True)
        branch.up.requires_grad_(True)
