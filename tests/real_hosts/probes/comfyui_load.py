"""Load LoRA files with ComfyUI's own LoraLoader node on its SD1.5 or SDXL model, built without weights."""

from __future__ import annotations

import logging
import math
import os
import sys
from typing import Any

import torch
from common import LoraTensors, relative_error, report, request

UNETS: dict[str, dict[str, Any]] = {
    "sd1": {
        "channel_mult": [1, 2, 4, 4],
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": 768,
        "use_linear_in_transformer": False,
        "num_heads": 8,
        "adm_in_channels": None,
    },
    "sdxl": {
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
        "use_linear_in_transformer": True,
        "num_head_channels": 64,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
}
COMMON = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
}


class Warnings(logging.Handler):
    """Keeps the loader's lines about keys that it could not place."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def start(host: str) -> None:
    """Import ComfyUI for the CPU, as its main.py does."""
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, host)
    os.chdir(host)
    import comfy.options

    comfy.options.enable_args_parsing()


def patchers(family: str) -> tuple[Any, Any]:
    """MODEL and CLIP as CheckpointLoaderSimple hands them over, on the meta device."""
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models

    known = {"sd1": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}[family]
    config = known({**COMMON, **UNETS[family]})
    config.set_inference_dtype(torch.float32, None)
    meta = torch.device("meta")
    model = config.get_model({}, "", device=meta)
    options = {"initial_device": meta, "load_device": torch.device("cpu"), "offload_device": torch.device("cpu")}
    clip = comfy.sd.CLIP(config.clip_target({}), model_options={**options, "dtype": torch.float32})
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu")), clip


def patched(patcher: Any, key: str, shape: torch.Size) -> torch.Tensor:
    """What the host would add to a weight: its own calculation on zeros."""
    import comfy.lora

    return comfy.lora.calculate_weight(patcher.patches[key], torch.zeros(shape), key)


def shapes_of(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


def load(path: str, model: Any, clip: Any, warnings: Warnings) -> dict[str, object]:
    import comfy.lora
    import folder_paths
    import nodes

    folder_paths.add_model_folder_path("loras", os.path.dirname(path))
    warnings.lines.clear()
    model, clip = nodes.LoraLoader().load_lora(model, clip, os.path.basename(path), 1.0, 1.0)
    file = LoraTensors(path)
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, comfy.lora.model_lora_keys_unet(model.model, {}))
    owners = {key: patcher for patcher in (model, clip.patcher) for key in patcher.patches}
    shapes = shapes_of(model.model) | shapes_of(clip.cond_stage_model)
    placed = {name: keys[name] for name in file.names if keys.get(name) in owners}
    errors = [
        relative_error(patched(owners[placed[name]], placed[name], shapes[placed[name]]), file.delta(name))
        for name in file.sample
        if name in placed
    ]
    return {
        "log": list(warnings.lines),
        "modules": len(owners),
        "unmatched": sorted(set(file.names) - set(placed)),
        "wrong_shape": [n for n, key in placed.items() if shapes[key].numel() != math.prod(file.shape(n))],
        "largest_error": max(errors),
    }


def main() -> None:
    asked = request()
    start(asked["host"])
    model, clip = patchers(asked["family"])
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    report({name: load(path, model, clip, warnings) for name, path in asked["files"].items()})


if __name__ == "__main__":
    main()
