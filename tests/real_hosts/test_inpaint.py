"""img2img and inpainting beside the running A1111 and ComfyUI: the recipes of inpaint_cases and comfy_inpaint_cases.

A1111_DIR and A1111_PYTHON, COMFYUI_DIR and COMFYUI_PYTHON name the programs. With SD15_CHECKPOINT (an SD1.5 checkpoint
of the true size, for example from tools/random_checkpoint.py) a few recipes are also drawn at 128 px with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import comfy_inpaint_host
import numpy as np
import pytest
from a1111_live import A1111, running_a1111
from comfy_inpaint_cases import GRAPHS
from inpaint_cases import CASES, Case, drawn_by_us, likeness, payload, picture
from small_models import write_small_hub, write_small_model

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

LARGE = ("original, whole picture", "latent noise, only masked", "euler_ancestral, fill, only masked", "soft, sliders")


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


def apart(host: A1111, checkpoint: Path, case: Case, folder: Path) -> str:
    """What is wrong with our picture of a case; "" where nothing is. A1111 is asked twice: see record_inpainting."""
    mask = picture(case.mask) if case.mask else None
    for _ in range(2):
        theirs = host.img2img(picture(case.image), mask, **payload(case))
    folder.mkdir(exist_ok=True)
    ours = drawn_by_us(case, checkpoint, folder)
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return f"{case.name}: {[one.shape for one in ours]}, A1111 {[one.shape for one in theirs]}"
    found = [likeness(one, other) for one, other in zip(ours, theirs)]
    good = all(ratio >= 45 and furthest <= 2 for ratio, furthest in found)
    return "" if good else f"{case.name}: (dB, levels) {found}"


def test_every_recipe_is_a1111s(webui: tuple[str, Path, A1111], tmp_path: Path) -> None:
    model, checkpoint, host = webui
    cases = [case for case in CASES if case.model == model]
    wrong = [apart(host, checkpoint, case, tmp_path / str(i)) for i, case in enumerate(cases)]
    assert cases
    assert not [text for text in wrong if text]


def test_graphs_are_comfyuis(folder: Path, tmp_path: Path) -> None:
    theirs = comfy_inpaint_host.pictures(folder)
    wrong = []
    for i, graph in enumerate(GRAPHS):
        (tmp_path / str(i)).mkdir()
        ours = drawn_by_us(graph.case, folder / f"{graph.model}.safetensors", tmp_path / str(i))
        found = [likeness(one, other) for one, other in zip(ours, theirs[graph.name])]
        if len(ours) != len(theirs[graph.name]) or not all(r >= 45 and d <= 2 for r, d in found):
            wrong.append(f"{graph.name}: (dB, levels) {found}")
    assert not wrong


def test_the_true_size(hub: Path, folder: Path, tmp_path: Path) -> None:
    path = os.environ.get("SD15_CHECKPOINT", "")
    if not path or not Path(path).is_file():
        pytest.skip("SD15_CHECKPOINT does not name an SD1.5 checkpoint of the true size")
    large = {"width": 128, "height": 128, "steps": 4}
    cases = [replace(case, job=case.job | large) for case in CASES if case.name in LARGE]
    assert len(cases) == len(LARGE)
    with ExitStack() as stack:
        host = stack.enter_context(running_a1111(Path(path), hub, folder / "data-large"))
        wrong = [apart(host, Path(path), case, tmp_path / str(i)) for i, case in enumerate(cases)]
    assert not [text for text in wrong if text]


def test_a_wrong_recipe_is_noticed(webui: tuple[str, Path, A1111], tmp_path: Path) -> None:
    model, checkpoint, host = webui
    case = next(case for case in CASES if case.model == model)
    theirs = host.img2img(picture(case.image), picture(case.mask or "hole"), **payload(case) | {"seed": 1})
    ours = drawn_by_us(case, checkpoint, tmp_path)
    assert likeness(ours[0], theirs[0])[0] < 40
    assert np.asarray(theirs[0]).shape == ours[0].shape
