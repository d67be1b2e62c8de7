"""Load networks of every kind with ComfyUI's LoraLoader and patch weights of known numbers with its own code."""

from __future__ import annotations

import logging
import os

import comfyui_load as plain
from common import LoraTensors, report, request
from known_weights import base_weight, error, expected


def load(path: str, model: object, clip: object, warnings: plain.Warnings) -> dict[str, object]:
    import comfy.lora
    import folder_paths
    import nodes

    folder_paths.add_model_folder_path("loras", os.path.dirname(path))
    warnings.lines.clear()
    model, clip = nodes.LoraLoader().load_lora(model, clip, os.path.basename(path), 1.0, 1.0)
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, comfy.lora.model_lora_keys_unet(model.model, {}))
    owners = {key: patcher for patcher in (model, clip.patcher) for key in patcher.patches}
    errors = {}
    for name, wanted in expected(path).items():
        key = keys.get(name)
        if key in owners:
            weight = base_weight(name, tuple(wanted.shape))
            tuned = comfy.lora.calculate_weight(owners[key].patches[key], weight.clone(), key)
            errors[name] = error(tuned - weight, wanted)
    names = LoraTensors(path).names
    return {
        "log": list(warnings.lines),
        "modules": len(owners),
        "unmatched": [name for name in names if keys.get(name) not in owners],
        "compared": len(errors),
        "largest_error": max(errors.values()),
    }


def main() -> None:
    asked = request()
    plain.start(asked["host"])
    model, clip = plain.patchers(asked["family"])
    warnings = plain.Warnings()
    logging.getLogger().addHandler(warnings)
    report({name: load(path, model, clip, warnings) for name, path in asked["files"].items()})


main()
