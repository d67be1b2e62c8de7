"""Encode prompts with ComfyUI's own CLIPTextEncode on a small checkpoint's text encoders; tensors go into a file."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from common import report, request
from safetensors.torch import load_file, save_file

NAMES = {"sd15": ("SD15", ("clip_l",)), "sd2": ("SD20", ("clip_h",)), "sdxl": ("SDXL", ("clip_l", "clip_g"))}


def start(host: str) -> None:
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, host)
    os.chdir(host)
    import comfy.options

    comfy.options.enable_args_parsing()


def clip_of(asked: dict[str, Any], kind: str) -> Any:
    """The CLIP object that a checkpoint loader hands out, narrowed to the checkpoint's widths."""
    import comfy.sd
    import comfy.supported_models

    name, encoders = NAMES[kind]
    config = getattr(comfy.supported_models, name)({})
    options: dict[str, Any] = {"dtype": torch.float32} if asked["fp32"] else {}
    for encoder, shape in zip(encoders, asked["kinds"][kind]["encoders"]):
        options[f"{encoder}_model_config"] = shape
    tensors = load_file(asked["kinds"][kind]["checkpoint"])
    target = config.clip_target(tensors)
    clip = comfy.sd.CLIP(target, embedding_directory=asked["kinds"][kind]["embeddings"], model_options=options)
    tensors = config.process_clip_state_dict(tensors)
    missing, _ = clip.load_sd(tensors, full_model=True)
    missing = [key for key in missing if "logit_scale" not in key and "text_projection" not in key]
    if missing:
        raise AssertionError(f"not filled: {missing[:5]}")
    return clip


def main() -> None:
    asked = request()
    start(asked["host"])
    import nodes

    found: dict[str, torch.Tensor] = {}
    for kind, setup in asked["kinds"].items():
        clip = clip_of(asked, kind)
        for name, case in setup["cases"].items():
            used = clip
            if case["clip_skip"] > 1:
                used = nodes.CLIPSetLastLayer().set_last_layer(clip, -case["clip_skip"])[0]
            [[context, more]] = nodes.CLIPTextEncode().encode(used, case["prompt"])[0]
            found[f"{kind}/{name}/0/0/context"] = context.float().contiguous()
            if kind == "sdxl":
                found[f"{kind}/{name}/0/0/pooled"] = more["pooled_output"].float().contiguous()
    save_file({key: tensor.clone() for key, tensor in found.items()}, asked["output"])
    report({key: {"end": None, "weight": 1.0} for key in found})


with torch.inference_mode():
    main()
