"""The ComfyUI adapter. Modules here import each other relatively and `lora_core` by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def nodes() -> tuple[Any, ...]:
    """All our nodes, ready to be listed; makes `lora_core` importable first."""
    from ..lora_core.doors import load_package

    load_package("lora_core", Path(__file__).resolve().parents[1] / "lora_core")
    from . import menu

    return menu.nodes()


def extension() -> Any:
    """The `ComfyExtension` that lists our nodes. Needs ComfyUI's API v3."""
    found = nodes()
    from . import host, routes, schema

    routes.register()
    return host.extension(lambda io: schema.v3(found, io, host.sampler_lists))


def mappings() -> dict[str, dict[str, Any]]:
    """NODE_CLASS_MAPPINGS and NODE_DISPLAY_NAME_MAPPINGS for hosts without the API v3; empty for the others."""
    found = nodes()
    from . import host, routes, schema

    if host.has_v3():
        return {}
    routes.register()
    return {
        "NODE_CLASS_MAPPINGS": {node.id: schema.v1(node, host.sampler_lists) for node in found},
        "NODE_DISPLAY_NAME_MAPPINGS": {node.id: node.title for node in found},
    }
