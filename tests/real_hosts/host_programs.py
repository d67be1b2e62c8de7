"""LoRA files written by us, and the real programs that must read them.

Each program runs in its own interpreter, offline, on model trees of the true architecture without weights. Set, for the
ones that are on the machine: COMFYUI_DIR + COMFYUI_PYTHON, A1111_DIR + A1111_PYTHON, SD_SCRIPTS_DIR +
SD_SCRIPTS_PYTHON; A1111_DATA is a folder that the webui may write to (default: a temporary one). REAL_HOST_LORAS names
a folder with further LoRA files (from a training, say) that must load as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PROBES = Path(__file__).parent / "probes"
COUNTS = {
    "sd1": {"unet": 192, "unet-te": 264, "unet-te-conv": 350},
    "sdxl": {"unet": 722, "unet-te": 986, "unet-te-conv": 1052},
}
FAMILIES = tuple(COUNTS)
TOKENIZERS = ("openai--clip-vit-large-patch14", "laion--CLIP-ViT-bigG-14-laion2B-39B-b160k")
MADE_UP = "lora_unet_made_up_block"
CLIP_CONFIG = {
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
}


@dataclass(frozen=True)
class LoraFile:
    """A file that a host must load: where it is and how many modules it holds."""

    path: Path
    modules: int


@dataclass(frozen=True)
class Host:
    """A real program: its folder, its interpreter, the probe that runs inside it."""

    folder: Path
    python: str
    probe: Path
    environment: dict[str, str]
    data: Path

    def load(self, family: str, files: dict[str, LoraFile]) -> dict[str, dict[str, Any]]:
        """What the program says to each file. Fails with its output when it gives no answer."""
        paths = {name: str(file.path) for name, file in files.items()}
        asked = {"host": str(self.folder), "data": str(self.data), "family": family, "files": paths}
        done = subprocess.run(
            [self.python, str(self.probe), json.dumps(asked)],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
        )
        answers = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not answers:
            pytest.fail(f"{self.probe.name} gave no answer (exit {done.returncode}):\n{done.stderr[-4000:]}")
        return json.loads(answers[-1])


def write_case(path: Path, family: str, case: str) -> None:
    """A LoRA with random tensors: rank 4 with alpha 3, 3x3 convolutions of rank 2 with alpha 1."""
    from lora_core.families import reference
    from lora_core.keys import lora_targets
    from lora_core.lora import Lora, LoraModule
    from lora_core.lora_file import write_lora
    from lora_core.lora_metadata import Summary, minimal_metadata

    targets = lora_targets(reference(family), conv="conv" in case, text_encoders="te" in case)
    generator = torch.Generator().manual_seed(7)
    modules = {}
    for key in targets:
        rank, alpha = (2, 1.0) if key.is_conv3x3 else (4, 3.0)
        down = torch.randn((rank, *key.shape[1:]), generator=generator) * 0.05
        up = torch.randn((key.shape[0], rank, *(1,) * (len(key.shape) - 2)), generator=generator) * 0.05
        modules[key.canonical] = LoraModule(down, up, alpha)
    metadata = minimal_metadata(Summary(family, 4, 3.0, case)) | {"ss_output_name": case}
    write_lora(path, Lora(modules, {}, family), targets, torch.float16, metadata)


def write_control(path: Path, source: Path) -> None:
    """A copy of a LoRA with one module that no model has: a host must complain about it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(source)
    tensors |= {f"{MADE_UP}.lora_down.weight": torch.ones(4, 320), f"{MADE_UP}.lora_up.weight": torch.ones(320, 4)}
    tensors[f"{MADE_UP}.alpha"] = torch.tensor(4.0)
    save_file(tensors, path)


def our_files(folder: Path, family: str) -> dict[str, LoraFile]:
    """case -> file, written into `folder` unless they are there."""
    found = {}
    for case, modules in COUNTS[family].items():
        path = folder / f"{family}-{case}.safetensors"
        if not path.exists():
            write_case(path, family, case)
        found[case] = LoraFile(path, modules)
    return found


def further_files(family: str) -> dict[str, LoraFile]:
    from lora_core.lora_file import read_lora

    folder = os.environ.get("REAL_HOST_LORAS")
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")) if folder else ():
        lora = read_lora(path)
        if lora.family == family:
            found[path.stem] = LoraFile(path, len(lora.modules))
    return found


def write_hub(home: Path) -> None:
    """A model hub cache in `home` that holds CLIP's vocabulary, from the files that we ship."""
    for name in TOKENIZERS:
        snapshot = home / "hub" / f"models--{name}" / "snapshots" / "local"
        snapshot.mkdir(parents=True)
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(ROOT / "lora_core" / "assets" / "clip" / file, snapshot)
        (snapshot / "config.json").write_text(json.dumps(CLIP_CONFIG))
        (snapshot / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
        refs = snapshot.parents[1] / "refs"
        refs.mkdir()
        (refs / "main").write_text("local")


def host(variable: str, probe: str, hub: Path, data: Path) -> Host:
    folder = os.environ.get(f"{variable}_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable}_DIR does not name a folder with the real program")
    environment = {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return Host(Path(folder), os.environ.get(f"{variable}_PYTHON", "python3"), PROBES / probe, environment, data)
