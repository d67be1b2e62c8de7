"""Load LoRA files with AUTOMATIC1111's own Lora extension on its SD1.5 or SDXL model, built without weights."""

from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from common import LoraTensors, relative_error, report, request

CONFIGS = {
    "sd1": "configs/v1-inference.yaml",
    "sdxl": "repositories/generative-models/configs/inference/sd_xl_base.yaml",
}
SDXL_KEY = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"


class Debug(logging.Handler):
    """Keeps the extension's lines about files and layers: it tells of unmatched keys at DEBUG only."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "Network " in record.getMessage():
            self.lines.append(record.getMessage())


def start(host: str, data: str) -> None:
    """Start the webui as its launcher does, up to the point where the built-in extensions are loaded."""
    flags = ["--skip-torch-cuda-test", "--use-cpu", "all", "--no-half", "--ui-debug-mode", "--data-dir", data]
    sys.argv = ["launch.py", *flags, "--loglevel", "DEBUG"]
    sys.path.insert(0, host)
    os.chdir(host)
    from modules import initialize

    initialize.imports()
    initialize.initialize()


def model(host: str, family: str) -> Any:
    """The model that the webui builds for a checkpoint of this family, with the weights left on the meta device."""
    from modules import sd_disable_initialization, sd_hijack, sd_models
    from omegaconf import OmegaConf

    config = OmegaConf.load(Path(host, CONFIGS[family]))
    sd_models.repair_config(config)
    with sd_disable_initialization.DisableInitialization(), sd_disable_initialization.InitializeOnMeta():
        built = sd_models.instantiate_from_config(config.model)
    sd_models.set_model_type(built, {SDXL_KEY: None})
    sd_models.set_model_fields(built)
    if built.is_sdxl:
        sd_models.sd_models_xl.extend_sdxl(built)
    sd_hijack.model_hijack.hijack(built)
    sd_models.model_data.set_sd_model(built)
    sd_models.model_data.was_loaded_at_least_once = True
    return built


def added(module: Any) -> torch.Tensor:
    """What the extension would add to a weight at strength 1: its own calculation."""
    updown, bias = module.calc_updown(torch.zeros(module.shape))
    if bias is not None or tuple(updown.shape) != tuple(module.shape):
        raise AssertionError(f"{module.network_key}: {tuple(updown.shape)} for a weight of {tuple(module.shape)}")
    return updown


def load(path: str, log: Debug) -> dict[str, object]:
    import network
    import networks
    from modules import hashes

    log.lines.clear()
    on_disk = network.NetworkOnDisk(Path(path).stem, path)
    loaded = networks.load_network(on_disk.name, on_disk)
    file = LoraTensors(path)
    placed = {module.network_key.partition(".")[0]: module for module in loaded.modules.values()}
    errors = [relative_error(added(placed[name]), file.delta(name)) for name in file.sample if name in placed]
    return {
        "log": list(log.lines),
        "modules": len(loaded.modules),
        "unmatched": sorted(set(file.names) - set(placed)),
        "wrong_shape": [n for n, m in placed.items() if math.prod(m.shape) != math.prod(file.shape(n))],
        "largest_error": max(errors),
        "version": on_disk.sd_version.name,
        "alias": on_disk.alias,
        "hash": on_disk.hash,
        "computed_hash": hashes.addnet_hash_safetensors(open(path, "rb")),
    }


def main() -> None:
    asked = request()
    start(asked["host"], asked["data"])
    log = Debug()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    model(asked["host"], asked["family"])
    report({name: load(path, log) for name, path in asked["files"].items()})


if __name__ == "__main__":
    main()
