"""`python -m lora_core inspect FILE`: what a checkpoint or LoRA is, told from its header."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from lora_core.errors import FileError


def main(arguments: list[str]) -> int:
    """Print a summary of each file; --json prints all metadata too. Raises FileError."""
    parser = argparse.ArgumentParser("python -m lora_core inspect")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="all facts and metadata as JSON, one file a line")
    options = parser.parse_args(arguments)
    for file in options.files:
        facts = summary(Path(file))
        print(json.dumps(facts) if options.json else "\n".join(lines(facts)))
    return 0


def summary(path: Path) -> dict[str, Any]:
    """Facts about one safetensors file by name."""
    from lora_core.tensors import read_header

    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    header = read_header(path)
    downs = {name: info for name, info in header.tensors.items() if name.endswith(".lora_down.weight")}
    ranks = Counter(info.shape[0] for info in downs.values())
    return {
        "file": str(path),
        "kind": "LoRA" if downs else "checkpoint",
        "tensors": len(header.tensors),
        "dtypes": dict(Counter(info.dtype for info in header.tensors.values())),
        "modules": dict(Counter(name.split("_text_model")[0].split("_")[1] for name in downs)),
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "metadata": dict(header.metadata),
    }


TOLD = {
    "ss_output_name": "name",
    "ss_base_model_version": "base family",
    "ss_sd_model_name": "base",
    "ss_network_alpha": "alpha",
    "ss_steps": "steps",
    "ss_training_comment": "comment",
    "modelspec.architecture": "architecture",
    "sshs_model_hash": "hash",
}


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for a person."""
    found = [f"{facts['file']}: {facts['kind']}, {facts['tensors']} tensors ({counted(facts['dtypes'])})"]
    if facts["ranks"]:
        found.append(f"  modules: {counted(facts['modules'])}; ranks: {counted(facts['ranks'])}")
    found += [f"  {title}: {facts['metadata'][key]}" for key, title in TOLD.items() if key in facts["metadata"]]
    return found


def counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in counts.items())
