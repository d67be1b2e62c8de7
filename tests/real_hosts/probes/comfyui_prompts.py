"""Encode prompts with ComfyUI's own CLIPTextEncode on a small checkpoint's text encoders; tensors go into a file."""

from __future__ import annotations

import os
import sys

import torch
from common import report, request
from narrow import clip_of
from safetensors.torch import save_file


def start(host: str) -> None:
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, host)
    os.chdir(host)
    import comfy.options

    comfy.options.enable_args_parsing()


def main() -> None:
    asked = request()
    start(asked["host"])
    import nodes

    found: dict[str, torch.Tensor] = {}
    for kind, setup in asked["kinds"].items():
        more = {"dtype": torch.float32} if asked["fp32"] else {}
        clip = clip_of(setup["checkpoint"], kind, setup["encoders"], setup["embeddings"], **more)
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
