"""The trained branches: attached to the base, named canonically, kept in fp32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lora_core.engine.branch import Size
from lora_core.engine.randomness import generator
from lora_core.errors import KeyMismatch, NotFinite
from lora_core.jobs.train import Network as NetworkSettings
from lora_core.keys import ModuleKey

__all__ = ["Branch", "Network", "Size", "attach", "file_tensors", "train_only", "without_dropout"]

ENDINGS = {"down": "lora_down.weight", "up": "lora_up.weight"}


class Branch(Protocol):
    """A layer of the base with what is trained on it."""

    size: Size
    base_layer: Any

    def trained(self) -> dict[str, nn.Parameter]:
        """Part -> parameter."""
        ...

    def constants(self) -> dict[str, torch.Tensor]:
        """Part -> tensor that stays as it is but cannot be made again bit by bit."""
        ...

    def saved(self) -> dict[str, torch.Tensor]:
        """Part -> tensor as in the file."""
        ...

    def fast(self) -> tuple[str, ...]:
        """The parts that learn faster with LoRA+."""
        ...

    def changes(self) -> bool:
        """Whether the branch does anything."""
        ...

    def limit(self, longest: float) -> None:
        """Scale the parts so that the change is at most `longest` long."""
        ...


@dataclass(frozen=True)
class Network:
    """All branches by canonical name, in the order of the targets."""

    branches: Mapping[str, Branch]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live tensors as `name.part`."""
        return {f"{n}.{part}": p.data for n, b in self.branches.items() for part, p in b.trained().items()}

    def constants(self) -> dict[str, torch.Tensor]:
        """What belongs to the branches and does not change, as `name.part`."""
        return {f"{n}.{part}": t for n, b in self.branches.items() for part, t in b.constants().items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters as `name.part`, in the order of `tensors`."""
        return {f"{n}.{part}": p for n, b in self.branches.items() for part, p in b.trained().items()}


def attach(
    components: Mapping[str, nn.Module], sizes: Mapping[str, Size], settings: NetworkSettings, seed: int
) -> Network:
    """Put a branch on every module named in `sizes`; at the start none changes what the model computes.

    The start values are drawn on the CPU from `seed`, one module after the other in the order of `sizes`.
    Raises KeyMismatch when a named module is not in the model.
    """
    draw = generator(seed, "lora")
    found: dict[str, Branch] = {}
    for name, size in sizes.items():
        component, path = name.split(".", 1)
        found[name] = _wrapped(components[component], path, size, settings)
        if settings.initialisation == "pissa":
            found[name].begin_pissa(draw)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            found[name].begin(draw)  # pyright: ignore[reportAttributeAccessIssue]
    return Network(found)


def _wrapped(model: nn.Module, path: str, size: Size, settings: NetworkSettings) -> Any:
    """A branch layer in the place of the module at `path`.

    Layer by layer, because PEFT's own injection looks every module up in regular expressions: a minute for SDXL.
    """
    parent_path, _, child = path.rpartition(".")
    try:
        base = model.get_submodule(path)
    except AttributeError as error:
        raise KeyMismatch(f"The model has no module {path} to train.") from error
    layer = branch_layer(base, path, size, settings)
    setattr(model.get_submodule(parent_path), child, layer)
    return layer


def branch_layer(base: nn.Module, path: str, size: Size, settings: NetworkSettings) -> Any:
    """The layer of the chosen algorithm around `base`."""
    from lora_core.engine import branch_products as products
    from lora_core.engine.branch import lora_layer
    from lora_core.engine.targets import IA3_ON_INPUT

    if settings.algorithm in ("lora", "dora"):
        return lora_layer(base, size, settings)
    kinds = {"loha": products.LohaBranch, "lokr": products.LokrBranch, "oft": products.OftBranch}
    if settings.algorithm in kinds:
        return kinds[settings.algorithm](base, size, settings)
    layer = products.Ia3Branch(base, size, settings)
    layer.on_input = f".{path}".endswith(IA3_ON_INPUT)
    return layer


def file_tensors(network: Network, keys: Iterable[ModuleKey]) -> dict[str, torch.Tensor]:
    """Copies of the present parts under their names in a kohya or LyCORIS file, on the CPU in fp32.

    Raises NotFinite when one holds NaN or infinity.
    """
    names = {key.canonical: key.kohya for key in keys}
    found: dict[str, torch.Tensor] = {}
    for canonical, branch in network.branches.items():
        for part, tensor in branch.saved().items():
            copy = tensor.detach().to("cpu", copy=True).contiguous()
            if not bool(torch.isfinite(copy).all()):
                raise NotFinite(f"The trained weights of {canonical} are not finite; they were not saved.")
            found[f"{names[canonical]}.{ENDINGS.get(part, part)}"] = copy
    return found


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


def train_only(components: Iterable[nn.Module], network: Network) -> None:
    """Freeze everything but the branches."""
    for module in components:
        module.requires_grad_(False)
    for parameter in network.parameters().values():
        parameter.requires_grad_(True)
