"""Our conditioning against the real ComfyUI's CLIPTextEncode and the real A1111's parser and text encoders."""

from __future__ import annotations

from pathlib import Path

import prompt_cases
import pytest
import torch
from host_programs import host
from prompt_hosts import ask

from lora_core.engine.guidance import PromptOptions, guidance_of

pytestmark = [pytest.mark.real_host, pytest.mark.slow]
VARIABLES = {"a1111": "A1111", "comfyui": "COMFYUI"}
LARGEST = 1e-5


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))


@pytest.mark.parametrize("arithmetic", VARIABLES)
def test_conditioning(arithmetic: str, hub: Path, tmp_path: Path) -> None:
    program = host(VARIABLES[arithmetic], f"{arithmetic}_prompts.py", hub, tmp_path)
    tensors, notes = ask(program, arithmetic, tmp_path / "answers.safetensors", fp32=False)
    for kind in prompt_cases.KINDS:
        for name, case in prompt_cases.cases(arithmetic, kind).items():
            ours = prompt_cases.courses(arithmetic, kind, case)
            prefix = f"{kind}/{name}/"
            theirs = {key.removeprefix(prefix): key for key in tensors if key.startswith(prefix)}
            assert theirs.keys() == ours.keys(), prefix
            for place, key in theirs.items():
                tensor, end, weight = ours[place]
                assert error(tensor, tensors[key]) < LARGEST, key
                if arithmetic == "a1111":
                    assert (end, weight) == (notes[key]["end"], notes[key]["weight"]), key
    if arithmetic == "a1111":
        check_evaluations(tensors, notes)


def check_evaluations(tensors: dict[str, torch.Tensor], notes: dict[str, list[list[list[float]]]]) -> None:
    """Which rows with which weights hold at an evaluation, how they are brought to one length."""
    for padding in ("none", "empty", "last"):
        options = PromptOptions(steps=prompt_cases.STEPS, padding=padding)
        made = guidance_of(prompt_cases.models("sd15"), options, prompt_cases.BATCH, prompt_cases.NEGATIVE, 7.0)
        for call in prompt_cases.CALLS:
            conds = made.at(call)
            rows = torch.cat([row.context for picture in conds.positive for row, _ in picture])
            weights = [[weight for _, weight in picture] for picture in conds.positive]
            assert weights == [[weight for _, weight in picture] for picture in notes[f"batch/{call}"]]
            assert error(rows, tensors[f"batch/{call}/{padding}/positive"]) < LARGEST, (call, padding)
            assert conds.negative is not None
            assert error(conds.negative.context, tensors[f"batch/{call}/{padding}/negative"]) < LARGEST, (call, padding)
