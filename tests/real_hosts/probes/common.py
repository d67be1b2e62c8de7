"""Shared by the probes: run by a host's own interpreter, they load LoRA files with the host's own code and report."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from safetensors.torch import load_file

RESULT = "RESULT "


def request() -> dict[str, Any]:
    """What the test asked for: a JSON object as the last argument."""
    return json.loads(sys.argv[-1])


def report(answer: dict[str, Any]) -> None:
    print(f"\n{RESULT}{json.dumps(answer)}", file=sys.__stdout__, flush=True)


class LoraTensors:
    """The tensors of a kohya LoRA file, read without our code and without the host's."""

    def __init__(self, path: str) -> None:
        self.tensors = load_file(path)
        self.names = sorted({key.partition(".")[0] for key in self.tensors})

    @property
    def sample(self) -> list[str]:
        """Every n-th module, some forty of them: enough to compare values of each kind of layer."""
        return self.names[:: max(1, len(self.names) // 40)]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the weight that the module changes."""
        down, up = (self.tensors[f"{name}.lora_{part}.weight"] for part in ("down", "up"))
        return (up.shape[0], *down.shape[1:])

    def delta(self, name: str) -> torch.Tensor:
        """alpha / rank * up @ down of one module in float32, [out, in] or [out, in, kh, kw]."""
        down, up = (self.tensors[f"{name}.lora_{part}.weight"].float() for part in ("down", "up"))
        scale = float(self.tensors[f"{name}.alpha"]) / down.shape[0]
        return (up.flatten(1) @ down.flatten(1) * scale).reshape(up.shape[0], *down.shape[1:])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """|found - expected| / |expected| after bringing found to expected's shape (1x1 convolutions as matrices)."""
    found = found.detach().float().reshape(expected.shape)
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))
