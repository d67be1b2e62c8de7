"""img2img and inpainting beside the running A1111 and ComfyUI: the recipes of inpaint_cases and comfy_inpaint_cases.

A1111_DIR and A1111_PYTHON, COMFYUI_DIR and COMFYUI_PYTHON name the programs. With SD15_CHECKPOINT (an SD1.5 checkpoint
of the true size, for example from tools/random_checkpoint.py) the plain models' recipes are also drawn with it.
PARITY_TABLE names a file that the figures are appended to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import comfy_inpaint_host
import numpy as np
import pytest
from a1111_live import A1111, running_a1111
from comfy_inpaint_cases import GRAPHS, Graph
from inpaint_cases import CASES, Case, drawn_by_us, likeness, payload, picture
from small_models import write_small_hub, write_small_model

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


def written(host: str, name: str, found: list[tuple[float, int]]) -> None:
    """A line of the table of figures."""
    if "PARITY_TABLE" in os.environ:
        with open(os.environ["PARITY_TABLE"], "a") as table:
            worst = min(found)[0], max(levels for _, levels in found)
            table.write(f"{host:8} {name:40} {worst[0]:6.1f} dB  max {worst[1]}\n")


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
    written("a1111", f"{checkpoint.stem}: {case.name}", found)
    good = all(ratio >= 45 and furthest <= 2 for ratio, furthest in found)
    return "" if good else f"{case.name}: (dB, levels) {found}"


def test_every_recipe_is_a1111s(webui: tuple[str, Path, A1111], tmp_path: Path) -> None:
    model, checkpoint, host = webui
    cases = [case for case in CASES if case.model == model]
    wrong = [apart(host, checkpoint, case, tmp_path / str(i)) for i, case in enumerate(cases)]
    assert cases
    assert not [text for text in wrong if text]


def graphs_apart(
    graphs: Sequence[Graph], theirs: dict[str, np.ndarray], folder: Path, base: Callable[[Graph], Path]
) -> list[str]:
    """What is wrong with our pictures of ComfyUI's graphs."""
    wrong = []
    for i, graph in enumerate(graphs):
        (folder / str(i)).mkdir()
        ours = drawn_by_us(graph.case, base(graph), folder / str(i))
        found = [likeness(one, other) for one, other in zip(ours, theirs[graph.name])]
        written("comfyui", f"{base(graph).stem}: {graph.name}", found)
        if len(ours) != len(theirs[graph.name]) or not all(r >= 45 and d <= 2 for r, d in found):
            wrong.append(f"{graph.name}: (dB, levels) {found}")
    return wrong


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
