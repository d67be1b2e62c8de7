"""The real Forge with the extension cloned into it: page, REST, a training, its LoRA in a picture, a killed server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tools")]

from random_checkpoint import write  # noqa: E402
from webui_cases import *  # noqa: E402, F403
from webui_server import Installed, Server, install, program, started  # noqa: E402

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Forge knows models by their widths, so this one has SD1.5's own."""
    folder, python = program("FORGE")
    base = tmp_path_factory.mktemp("forge")
    model = base / "webui" / "models" / "Stable-diffusion" / "random.safetensors"
    model.parent.mkdir(parents=True)
    write("sd15", model)
    flags = ("--always-cpu", "--gradio-allowed-path", str(folder))  # its own scripts, which --data-dir shuts out
    return install(Installed("Forge", python, folder, base / "webui", model, flags))


@pytest.fixture(scope="module")
def server(installed: Installed) -> Iterator[Server]:
    yield from started(installed)
