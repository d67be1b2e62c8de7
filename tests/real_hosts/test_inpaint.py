"""img2img and inpainting beside the running A1111 and ComfyUI: the recipes of inpaint_cases and comfy_inpaint_cases.

A1111_DIR and A1111_PYTHON, COMFYUI_DIR and COMFYUI_PYTHON name the programs. With SD15_CHECKPOINT (an SD1.5 checkpoint
of the true size, for example from tools/random_checkpoint.py) the plain models' recipes are also drawn with it.
PARITY_TABLE names a file that the figures are appended to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import comfy_inpaint_host
import numpy as np
import pytest
from a1111_live import A1111, running_a1111
from comfy_inpaint_cases import GRAPHS
from inpaint_cases import CASES, drawn_by_us, likeness, payload, picture
from parity import apart, compare, graphs_apart
from picture_recipes import Recipe, a1111_fields, ours
from small_models import write_small_hub, write_small_model

from lora_core.jobs.generate import Hires

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

PLAIN = [case for case in CASES if case.model == "small"]
PARTS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inpaint")


@pytest.fixture(scope="module", params=["small", "small_inpainting"])
def webui(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, Path, A1111]]:
    """The model's name, its checkpoint, and the A1111 that holds it."""
    checkpoint = write_small_model(folder / request.param, inpainting=request.param != "small")
    write_small_hub(folder / "home")
    with running_a1111(checkpoint, folder / "home", folder / f"data-{request.param}") as host:
        yield request.param, checkpoint, host


def test_every_recipe_is_a1111s(webui: tuple[str, Path, A1111], tmp_path: Path) -> None:
    model, checkpoint, host = webui
    cases = [case for case in CASES if case.model == model]
    wrong = [apart(host, checkpoint, case, tmp_path / str(i)) for i, case in enumerate(cases)]
    assert cases
    assert not [text for text in wrong if text]


@pytest.mark.parametrize("hires", [Hires(), Hires(2.0, hires_upscaler="lanczos")], ids=["one pass", "hires"])
def test_pictures_from_nothing(webui: tuple[str, Path, A1111], tmp_path: Path, hires: Hires) -> None:
    """9-channel models see a grey picture then, which A1111 draws from the VAE's posterior."""
    model, checkpoint, host = webui
    values = {"prompt": "a cat", "negative_prompt": "", "sampler": "euler", "batch_size": 2, "width": 64, "height": 64}
    job = Recipe("from nothing", values, hires=hires).job(checkpoint, tmp_path, "a1111")
    psnr, most = compare(
        "a1111", f"{model}: from nothing, {hires.hires_scale}", ours(job), host.txt2img(**a1111_fields(job))
    )
    assert psnr >= 45 and most <= 2


def test_graphs_are_comfyuis(folder: Path, tmp_path: Path) -> None:
    theirs = comfy_inpaint_host.pictures(folder)
    assert not graphs_apart(GRAPHS, theirs, tmp_path, lambda graph: folder / f"{graph.model}.safetensors")


@pytest.fixture(scope="module")
def full() -> Path:
    path = os.environ.get("SD15_CHECKPOINT", "")
    if not path or not Path(path).is_file():
        pytest.skip("SD15_CHECKPOINT does not name an SD1.5 checkpoint of the true size")
    return Path(path)


@pytest.fixture(scope="module")
def full_webui(full: Path, hub: Path, folder: Path) -> Iterator[A1111]:
    with running_a1111(full, hub, folder / "data-full") as host:
        yield host


@pytest.mark.parametrize("part", range(PARTS))
def test_the_true_size(full: Path, full_webui: A1111, tmp_path: Path, part: int) -> None:
    cases = PLAIN[part::PARTS]
    wrong = [apart(full_webui, full, case, tmp_path / str(i)) for i, case in enumerate(cases)]
    assert len(cases) >= 6
    assert not [text for text in wrong if text]


def test_graphs_of_the_true_size(full: Path, folder: Path, tmp_path: Path) -> None:
    graphs = [graph for graph in GRAPHS if graph.model == "small"]
    wrong = graphs_apart(graphs, comfy_inpaint_host.pictures(folder, graphs, full), tmp_path, lambda _: full)
    assert not wrong


def test_a_wrong_recipe_is_noticed(webui: tuple[str, Path, A1111], tmp_path: Path) -> None:
    model, checkpoint, host = webui
    case = next(case for case in CASES if case.model == model)
    theirs = host.img2img(picture(case.image), picture(case.mask or "hole"), **payload(case) | {"seed": 1})
    ours = drawn_by_us(case, checkpoint, tmp_path)
    assert likeness(ours[0], theirs[0])[0] < 40
    assert np.asarray(theirs[0]).shape == ours[0].shape
