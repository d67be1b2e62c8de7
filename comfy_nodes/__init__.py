"""The ComfyUI adapter. Modules here import each other relatively and `lora_core` by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NODES: tuple[type, ...] = ()


def extension() -> Any:
    """The `ComfyExtension` that lists our nodes. Needs ComfyUI's API v3; makes `lora_core` importable first."""
    from ..lora_core.doors import load_package

    load_package("lora_core", Path(__file__).resolve().parents[1] / "lora_core")
    from comfy_api.latest import ComfyExtension  # type: ignore[import-not-found]

    class LoraLoom(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return list(NODES)

    return LoraLoom()
