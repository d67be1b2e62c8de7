"""Asking the real ComfyUI for the pictures of comfy_inpaint_cases.py."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from comfy_inpaint_cases import GRAPHS, NEGATIVE, PROMPT, Graph
from safetensors.torch import save_file

from lora_core.architecture import architecture_of

MODELS = ("small", "small_inpainting")
PROBE = Path(__file__).parent / "probes" / "comfyui_inpaint.py"


def pictures(
    folder: Path, graphs: Sequence[Graph] = GRAPHS, base: Path | None = None, narrow: dict[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """name -> uint8 [n, h, w, 3]. `base`: the checkpoint for all graphs, SD1.5 unless `narrow` tells its widths.

    Skips unless COMFYUI_DIR names the program (COMFYUI_PYTHON: its interpreter).
    """
    host = os.environ.get("COMFYUI_DIR")
    if not host or not Path(host).is_dir():
        pytest.skip("COMFYUI_DIR does not name a folder with the real program")
    asked = {
        "host": host,
        "widths": {
            "context": small_models.CONTEXT,
            "unet": small_models.WIDTH,
            "vae": small_models.VAE_WIDTH,
        },
        "models": _whole(base, narrow)
        if base
        else {name: _model(folder, name) for name in ("small", "small_inpainting")},
        "cases": [graph.asked(folder) for graph in graphs],
        "out": str(folder / "comfyui.npz"),
    }
    command = [os.environ.get("COMFYUI_PYTHON", "python3"), str(PROBE), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert "RESULT" in done.stdout, done.stderr[-5000:]
    return dict(np.load(folder / "comfyui.npz"))


def _whole(path: Path, narrow: dict[str, Any] | None) -> dict[str, Any]:
    channels = architecture_of(path).unet.block_out_channels[0]
    texts = [PROMPT, NEGATIVE]
    return {"small": {"checkpoint": str(path), "channels": channels, "texts": texts, "narrow": narrow}}


def _model(folder: Path, name: str) -> dict[str, str]:
    """The checkpoint and our conditioning of the prompts, which tests of prompts hold against ComfyUI's."""
    from lora_core.engine.guidance import PromptOptions, guidance_of
    from lora_core.engine.models import load_models

    path = small_models.write_small_model(folder, inpainting=name != "small")
    models = load_models(str(path), torch.float32, torch.device("cpu"))
    conds = guidance_of(models, PromptOptions(arithmetic="comfyui"), [PROMPT], NEGATIVE, 7.0).at(0)
    assert conds.negative is not None
    contexts = {"positive": conds.positive[0][0][0].context, "negative": conds.negative.context}
    save_file({key: value.contiguous() for key, value in contexts.items()}, folder / f"{name}-conds.safetensors")
    return {"checkpoint": str(path), "conds": str(folder / f"{name}-conds.safetensors")}
