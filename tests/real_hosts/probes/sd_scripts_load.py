"""Load LoRA files with sd-scripts' networks.lora on real module trees of SD1.5 or SDXL, strictly."""

from __future__ import annotations

import sys
from typing import Any

import torch
from common import LoraTensors, relative_error, report, request

ENCODERS: dict[str, dict[str, Any]] = {
    "l": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "g": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
}


def text_encoder(size: str) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **ENCODERS[size])
    return (CLIPTextModel if size == "l" else CLIPTextModelWithProjection)(config)


def trees(family: str) -> tuple[torch.nn.Module, list[torch.nn.Module]]:
    """UNet and text encoders of the true architecture, from sd-scripts' own classes, without weights."""
    with torch.device("meta"):
        if family == "sdxl":
            from library.sdxl_original_unet import SdxlUNet2DConditionModel

            return SdxlUNet2DConditionModel(), [text_encoder("l"), text_encoder("g")]
        from library import model_util
        from library.original_unet import UNet2DConditionModel

        unet = UNet2DConditionModel(**model_util.create_unet_diffusers_config(v2=False))
        return unet, [text_encoder("l")]


def strictly(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> str:
    try:
        return str(network.load_state_dict(weights, strict=True))
    except RuntimeError as error:
        return str(error)[:4000]


def hashes(path: str) -> dict[str, list[str | None]]:
    """sshs_model_hash and sshs_legacy_hash: as the file says, and as sd-scripts computes them for these tensors."""
    from library import train_util
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = file.metadata() or {}
    kept = {key: value for key, value in said.items() if key.startswith("ss_")}
    computed = train_util.precalculate_safetensors_hashes(LoraTensors(path).tensors, kept)
    return {"hashes": [said.get("sshs_model_hash"), said.get("sshs_legacy_hash")], "computed_hashes": list(computed)}


def load(path: str, family: str) -> dict[str, object]:
    from networks import lora

    file = LoraTensors(path)
    unet, encoders = trees(family)
    target = encoders if len(encoders) > 1 else encoders[0]
    network, weights = lora.create_network_from_weights(1.0, path, None, target, unet, for_inference=True)
    network.apply_to(target, unet)
    found = {module.lora_name: module for module in network.text_encoder_loras + network.unet_loras}
    info = strictly(network, weights)
    errors = [relative_error(found[name].get_weight(), file.delta(name)) for name in file.sample if name in found]
    return {
        "info": info,
        "modules": len(found),
        "unmatched": sorted(set(file.names) - set(found)),
        "largest_error": max(errors),
    }


def main() -> None:
    asked = request()
    sys.path.insert(0, asked["host"])
    report({name: load(path, asked["family"]) | hashes(path) for name, path in asked["files"].items()})


main()
