"""Files that lie beside LoRAs and are none: A1111's hypernetworks and textual inversions, told by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lora_core.embeddings import read_embedding
from lora_core.errors import FileError, NotFinite
from lora_core.pickled_tensors import read_pickled

PICKLES = (".pt", ".bin", ".ckpt", ".pth")
LARGEST = 512 * 2**20
WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL", 1280: "SDXL"}


def no_lora(path: str | Path) -> str:
    """What a file is, in a sentence, when it is a hypernetwork or a textual inversion; "" for anything else."""
    path = Path(path)
    return hypernetwork(path) or embedding(path)


def hypernetwork(path: Path) -> str:
    """A1111's hypernetworks are pickles: width -> the networks for keys and values, beside what they were made with."""
    if path.suffix.lower() not in PICKLES or not path.is_file() or path.stat().st_size > LARGEST:
        return ""
    try:
        data = read_pickled(path)
    except FileError:
        return ""
    widths = sorted(k for k, v in data.items() if _is_pair(k, v)) if isinstance(data, Mapping) else []
    if not widths:
        return ""
    family = next((WIDTHS[w] for w in (2048, 1024, 768) if w in widths), "a model")
    facts = [f"for {family}", f"widths {', '.join(map(str, widths))}"]
    facts += [f"{data['step']} steps"] if isinstance(data.get("step"), int) else []
    facts += [f"layers {data['layer_structure']}"] if data.get("layer_structure") else []
    facts += [f"trained on {data['sd_checkpoint_name']}"] if data.get("sd_checkpoint_name") else []
    return (
        f"{path.name} is a hypernetwork of A1111 ({'; '.join(facts)}), not a LoRA, and cannot be turned into one: its "
        "layers are not linear. A1111 uses it from models/hypernetworks, ComfyUI with its HypernetworkLoader node."
    )


def _is_pair(key: Any, value: Any) -> bool:
    """A width with two networks, each a table of tensors."""
    if not isinstance(key, int) or not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    return all(isinstance(n, Mapping) and any(isinstance(t, torch.Tensor) for t in n.values()) for n in value)


def embedding(path: Path) -> str:
    try:
        found = read_embedding(path)
    except (FileError, NotFinite):
        return ""
    widths = {rows.shape[1] for rows in found.vectors.values()}
    if set(found.vectors) - {"emb_params", "*", "clip_l", "clip_g"} or widths - WIDTHS.keys():
        return ""
    sizes = ", ".join(f"{len(rows)} x {rows.shape[1]}" for _, rows in sorted(found.vectors.items()))
    return f"{path.name} is a textual inversion ({sizes}), not a LoRA. Its place is the folder embeddings of the host."
