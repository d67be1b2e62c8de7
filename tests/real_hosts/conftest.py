"""Fixtures: our LoRA files and the real programs; see host_programs.py for the variables that name them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from host_programs import Host, LoraFile, further_files, host, our_files, write_control, write_hub


@pytest.fixture(scope="session")
def lora_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, LoraFile]]:
    """family -> name -> file: ours, what REAL_HOST_LORAS holds, and "control" with a module that no model has."""
    folder = tmp_path_factory.mktemp("loras")

    def files(family: str) -> dict[str, LoraFile]:
        ours = our_files(folder, family)
        control = folder / f"{family}-control.safetensors"
        write_control(control, ours["unet"].path)
        return ours | further_files(family) | {"control": LoraFile(control, ours["unet"].modules + 1)}

    return files


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hub")
    write_hub(home)
    return home


@pytest.fixture(scope="session")
def sd_scripts(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host("SD_SCRIPTS", "sd_scripts_load.py", hub, tmp_path_factory.mktemp("sd_scripts"))


@pytest.fixture(scope="session")
def comfyui(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host("COMFYUI", "comfyui_load.py", hub, tmp_path_factory.mktemp("comfyui"))


@pytest.fixture(scope="session")
def a1111(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    data = os.environ.get("A1111_DATA") or tmp_path_factory.mktemp("a1111")
    return host("A1111", "a1111_load.py", hub, Path(data))


@pytest.fixture(scope="session")
def comfyui_networks(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host("COMFYUI", "comfyui_networks.py", hub, tmp_path_factory.mktemp("comfyui"))


@pytest.fixture(scope="session")
def a1111_networks(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    data = os.environ.get("A1111_DATA") or tmp_path_factory.mktemp("a1111")
    return host("A1111", "a1111_networks.py", hub, Path(data))
