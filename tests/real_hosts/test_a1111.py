"""The real A1111 with the extension cloned into it: page, REST, a training, its LoRA in a picture, a killed server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests")]

from small_models import write_small_hub, write_small_model  # noqa: E402
from webui_cases import *  # noqa: E402, F403
from webui_server import Installed, Server, install, program, started  # noqa: E402

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder, python = program("A1111")
    base = tmp_path_factory.mktemp("a1111")
    model = write_small_model(base / "webui" / "models" / "Stable-diffusion")
    write_small_hub(base / "hub")
    flags = ("--use-cpu", "all", "--no-half")
    hub = {"HF_HOME": str(base / "hub")}
    return install(Installed("AUTOMATIC1111", python, folder, base / "webui", model, flags, hub))


@pytest.fixture(scope="module")
def server(installed: Installed) -> Iterator[Server]:
    yield from started(installed)
