"""`python -m lora_core inspect FILE`: what a checkpoint or LoRA is, told from its header."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from lora_core.errors import FileError, KeyMismatch


def main(arguments: list[str]) -> int:
    """Print a summary of each file; --json prints all metadata too. Raises FileError."""
    parser = argparse.ArgumentParser("python -m lora_core inspect")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="all facts and metadata as JSON, one file a line")
    parser.add_argument("--numbers", action="store_true", help="read the weights: norms, NaN, zero layers, hashes")
    parser.add_argument("--base", default="", metavar="FILE", help="compare with this base model")
    parser.add_argument("--picture", default="", metavar="FILE.png", help="draw the norm by block and layer")
    options = parser.parse_args(arguments)
    for file in options.files:
        facts = summary(Path(file))
        told = lines(facts)
        if facts["kind"] != "checkpoint":
            told += inspected(file, options, facts)
        print(json.dumps(facts) if options.json else "\n".join(told))
    return 0


def inspected(file: str, options: argparse.Namespace, facts: dict[str, Any]) -> list[str]:
    """What the inspect job says about a LoRA: lines for a person; the report goes into `facts`."""
    from lora_core.events import Finished, Note
    from lora_core.jobs.files import InspectJob
    from lora_core.run import run

    told: list[str] = []
    try:
        for event in run(InspectJob(file, options.base, options.numbers, options.picture)):
            if isinstance(event, Note):
                told.append(event.text)
            elif isinstance(event, Finished):
                facts["inspection"] = {k: v for k, v in event.report.items() if k != "metadata"}
    except KeyMismatch as error:
        facts["fault"] = str(error)
        told.append(f"  {error}")
    return told


def summary(path: Path) -> dict[str, Any]:
    """Facts about one file by its header; a pickle has none."""
    from lora_core.old_networks import PICKLES, no_lora
    from lora_core.tensors import read_header

    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    if path.suffix.lower() in PICKLES:
        return {"file": str(path), "kind": "pickled file", "metadata": {}}
    header = read_header(path)
    if len(header.tensors) <= FEW and no_lora(path):
        return {
            "file": str(path),
            "kind": "embedding",
            "tensors": len(header.tensors),
            "metadata": dict(header.metadata),
        }
    downs = {name: info for name, info in header.tensors.items() if name.endswith(".lora_down.weight")}
    ranks = Counter(info.shape[0] for info in downs.values())
    return {
        "file": str(path),
        "kind": "LoRA" if downs or any(part in name for name in header.tensors for part in MARKS) else "checkpoint",
        "tensors": len(header.tensors),
        "dtypes": dict(Counter(info.dtype for info in header.tensors.values())),
        "modules": dict(Counter(name.split("_text_model")[0].split("_")[1] for name in downs)),
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "metadata": dict(header.metadata),
    }


FEW = 8
MARKS = ("lora", "hada_w1", "lokr_w", "on_input", "w_norm", ".diff")
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
    if "dtypes" not in facts:
        return [f"{facts['file']}: {facts['kind']}"]
    found = [f"{facts['file']}: {facts['kind']}, {facts['tensors']} tensors ({counted(facts['dtypes'])})"]
    if facts["ranks"]:
        found.append(f"  modules: {counted(facts['modules'])}; ranks: {counted(facts['ranks'])}")
    found += [f"  {title}: {facts['metadata'][key]}" for key, title in TOLD.items() if key in facts["metadata"]]
    return found


def counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in counts.items())
