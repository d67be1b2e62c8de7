"""The AUTOMATIC1111 and Forge adapter, loaded as `lora_loom_a1111`. Modules here import each other relatively."""

from __future__ import annotations


def register() -> None:
    """Announce our tabs to the WebUI. Called at its start and again at each "Reload UI"."""
