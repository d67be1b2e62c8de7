"""Our conditioning against what the real hosts answered (tools/record_prompts.py), on the same small models."""

from __future__ import annotations

import functools
import json
from typing import Any

import prompt_cases
import pytest
import torch
from recorded import DATA
from safetensors import safe_open
from safetensors.torch import load_file

LARGEST = 2e-5


@functools.cache
def recorded(arithmetic: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = DATA / f"prompts_{arithmetic}.safetensors"
    with safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["notes"])
    return load_file(path), notes


@pytest.mark.parametrize(
    ("arithmetic", "kind", "name"),
    [
        (arithmetic, kind, name)
        for arithmetic in ("a1111", "comfyui")
        for kind in prompt_cases.KINDS
        for name in prompt_cases.cases(arithmetic, kind)
    ],
)
def test_conditioning_is_the_hosts(arithmetic: str, kind: str, name: str) -> None:
    tensors, notes = recorded(arithmetic)
    prefix = f"{kind}/{name}/"
    theirs = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    ours = prompt_cases.courses(arithmetic, kind, prompt_cases.cases(arithmetic, kind)[name])
    assert theirs.keys() == ours.keys()
    for place, expected in theirs.items():
        tensor, end, weight = ours[place]
        found = prompt_cases.reduced(tensor)
        assert found.shape == expected.shape
        assert float((found - expected).norm()) <= LARGEST * max(float(expected.norm()), 1e-6), place
        if arithmetic == "a1111":
            assert (end, weight) == (notes[prefix + place]["end"], notes[prefix + place]["weight"])
