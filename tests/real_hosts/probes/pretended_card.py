"""A script for a webui's extensions/: the CPU plays a full graphics card that holds the host's models.

Each time the models leave it or come back, a line ("away", "back") is added to card.txt in the data folder.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

from modules import paths_internal, script_callbacks, sd_models

there = {"models": True}


def noting(owner: Any, name: str, arrived: bool) -> None:
    """The host's function does its work, then the line is written if anything has moved."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def noted(*args: Any, **more: Any) -> Any:
        answer = real(*args, **more)
        if there["models"] != arrived:
            there["models"] = arrived
            with open(Path(paths_internal.data_path, "card.txt"), "a") as file:
                file.write("back\n" if arrived else "away\n")
        return answer

    setattr(owner, name, noted)


def pretend(_: Any, __: Any) -> None:
    ours = importlib.import_module("lora_loom_a1111.host_models")
    ours.accelerator = lambda: ("cuda:0", 0)
    ours.on_accelerator = lambda model: there["models"]
    if "modules_forge" in sys.modules:
        memory = importlib.import_module("backend.memory_management")
        noting(memory, "unload_all_models", False)
        noting(memory, "load_models_gpu", True)
    else:
        noting(sd_models, "send_model_to_cpu", False)
        noting(sd_models, "send_model_to_device", True)


script_callbacks.on_app_started(pretend)
