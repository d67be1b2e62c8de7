"""Asking the real hosts for the conditioning of the prompts in prompt_cases.py."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import prompt_cases
import torch
from safetensors.torch import load_file

PROBES = Path(__file__).parent / "probes"


def ask(host: Any, arithmetic: str, output: Path, fp32: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by "kind/case/part/entry/context" and "…/pooled", and for each its last step and weight."""
    asked = {
        "host": str(host.folder),
        "data": str(host.data),
        "output": str(output),
        "steps": prompt_cases.STEPS,
        "fp32": fp32,
        "batch": {"prompts": prompt_cases.BATCH, "negative": prompt_cases.NEGATIVE, "calls": prompt_cases.CALLS},
        "kinds": {kind: setup(arithmetic, kind) for kind in prompt_cases.KINDS},
    }
    done = subprocess.run(
        [host.python, str(PROBES / f"{arithmetic}_prompts.py"), json.dumps(asked)],
        env={**os.environ, **host.environment},
        capture_output=True,
        text=True,
    )
    answers = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not answers:
        raise AssertionError(f"no answer (exit {done.returncode}):\n{done.stderr[-6000:]}")
    return load_file(output), json.loads(answers[-1])


def setup(arithmetic: str, kind: str) -> dict[str, Any]:
    encoders = [
        {
            "hidden_size": shape.width,
            "intermediate_size": shape.intermediate,
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers + (kind == "sd2"),  # the last one is in the file, and is not used
        }
        for shape in prompt_cases.architecture(kind).text_encoders
    ]
    return {
        "checkpoint": str(prompt_cases.checkpoint(kind)),
        "embeddings": str(prompt_cases.embeddings(kind)),
        "encoders": encoders,
        "cases": {name: asdict(case) for name, case in prompt_cases.cases(arithmetic, kind).items()},
    }
