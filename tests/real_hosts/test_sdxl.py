"""SDXL beside the real hosts, on a narrow model of its topology with random weights.

A1111_DIR and A1111_PYTHON, COMFYUI_DIR and COMFYUI_PYTHON name the programs. PARITY_TABLE names a file that the figures
are appended to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import comfy_inpaint_host
import numpy as np
import pytest
from a1111_live import A1111
from comfy_inpaint_cases import GRAPHS
from host_programs import Host
from inpaint_cases import CASES, Case
from parity import apart, comfyui_draws, compare, graphs_apart, running_sdxl
from picture_recipes import Recipe, a1111_fields, ours, sdxl_recipes, with_a_mean
from small_models import SDXL_LIKE_COMFYUI, write_small_sdxl

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

RECIPES = sdxl_recipes()
INPAINTED = ("original, whole picture", "latent noise, only masked", "euler, original, whole picture", "soft, sliders")
DRAWN = ("set mask, ddim", "for inpaint, euler", "img2img")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_a_mean(write_small_sdxl(tmp_path_factory.mktemp("sdxl")))


@pytest.fixture(scope="module")
def webui(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111]:
    with running_sdxl(base, tmp_path_factory.mktemp("a1111")) as host:
        yield host


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a1111_draws_the_same_picture(webui: A1111, base: Path, tmp_path: Path, recipe: Recipe) -> None:
    job = recipe.job(base, tmp_path, "a1111")
    psnr, most = compare("a1111", recipe.name, ours(job), webui.txt2img(**a1111_fields(job)))
    assert psnr >= 45
    assert most <= 2


@pytest.mark.parametrize("case", [case for case in CASES if case.name in INPAINTED], ids=lambda case: case.name)
def test_a1111_inpaints_the_same_picture(webui: A1111, base: Path, tmp_path: Path, case: Case) -> None:
    assert not apart(webui, base, replace(case, name=f"sdxl {case.name}"), tmp_path)


@pytest.fixture(scope="module")
def comfyui_pictures(
    comfyui: Host, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[np.ndarray]]:
    return comfyui_draws(comfyui, base, RECIPES, tmp_path_factory.mktemp("comfyui"), SDXL_LIKE_COMFYUI)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_comfyui_draws_the_same_picture(
    comfyui_pictures: dict[str, list[np.ndarray]], base: Path, tmp_path: Path, recipe: Recipe
) -> None:
    theirs = comfyui_pictures[recipe.name]
    psnr, most = compare("comfyui", recipe.name, ours(recipe.job(base, tmp_path, "comfyui")), theirs)
    assert psnr >= 45
    assert most <= 2


def test_comfyui_inpaints_the_same_pictures(base: Path, tmp_path: Path) -> None:
    graphs = [graph for graph in GRAPHS if graph.name in DRAWN]
    assert len(graphs) == len(DRAWN)
    theirs = comfy_inpaint_host.pictures(tmp_path, graphs, base, SDXL_LIKE_COMFYUI)
    assert not graphs_apart(graphs, theirs, tmp_path, lambda _: base)
