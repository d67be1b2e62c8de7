"""Pictures whose sides are no multiples of 64: the hosts fit the UNet's halves together differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F
from torch import nn


@contextmanager
def a1111_upsampling(unet: nn.Module, sides: Sequence[int]) -> Iterator[None]:
    """While inside, upsampled features are doubled, convolved and only then cut to an odd size, as by A1111.

    diffusers and ComfyUI bring them to the odd size before the convolution. `sides`: those of the latents.
    """
    levels = len(unet.config.block_out_channels) - 1  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    with ExitStack() as hooks:
        if any(side % 2**levels for side in sides):
            for name, module in unet.named_modules():
                if name.rpartition(".")[0].endswith("upsamplers"):
                    _cut_afterwards(module, hooks)
        yield


def _cut_afterwards(module: nn.Module, hooks: ExitStack) -> None:
    wanted: list[Any] = [None]

    def before(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        wanted[0] = named.get("output_size", arguments[1] if len(arguments) > 1 else None)
        return arguments[:1], {}

    def after(_: nn.Module, arguments: tuple[Any, ...], result: Any) -> Any:
        return result if wanted[0] is None else F.interpolate(result, tuple(wanted[0]), mode="nearest")

    hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    hooks.callback(module.register_forward_hook(after).remove)
