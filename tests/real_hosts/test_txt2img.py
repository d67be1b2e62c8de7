"""Our pictures beside the real hosts' own, on narrow models: A1111 through its API, ComfyUI through its nodes.

A1111: A1111_DIR, A1111_PYTHON. ComfyUI: COMFYUI_DIR, COMFYUI_PYTHON. SD15_CHECKPOINT names a full-size SD1.5 file that
takes the narrow models' place (tools/random_checkpoint.py makes one; -k runs a part of the recipes). PARITY_TABLE names
a file that the figures are appended to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from a1111_live import A1111, running_a1111
from host_programs import Host
from parity import comfyui_draws, compare, narrow_sd15
from picture_recipes import Recipe, a1111_fields, a1111_recipes, ours, recipes, with_a_mean
from small_models import write_small_hub, write_small_model

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A copy of SD15_CHECKPOINT."""
    if "SD15_CHECKPOINT" not in os.environ:
        return None
    return with_a_mean(Path(os.environ["SD15_CHECKPOINT"]), tmp_path_factory.mktemp("full") / "full.safetensors")


@pytest.fixture(scope="module")
def base(full: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What A1111 draws with."""
    return full or with_a_mean(write_small_model(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def webui(full: Path | None, base: Path, hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111]:
    home = hub if full else tmp_path_factory.mktemp("home")
    if full is None:
        write_small_hub(home)
    with running_a1111(base, home, tmp_path_factory.mktemp("a1111")) as host:
        yield host


def shortened(recipes: list[Recipe]) -> list[Recipe]:
    """Small pictures in few steps: a step of the true size takes seconds."""
    steps = {"steps": 4, "width": 64, "height": 64}
    return [replace(r, values={**steps, **r.values}) for r in recipes if r.name != "ddim-20-steps"]


A1111_RECIPES = shortened(a1111_recipes()) if "SD15_CHECKPOINT" in os.environ else a1111_recipes()


@pytest.mark.parametrize("recipe", A1111_RECIPES, ids=lambda recipe: recipe.name)
def test_a1111_draws_the_same_picture(webui: A1111, base: Path, tmp_path: Path, recipe: Recipe) -> None:
    job = recipe.job(base, tmp_path, "a1111")
    psnr, most = compare("a1111", recipe.name, ours(job), webui.txt2img(**a1111_fields(job)))
    assert psnr >= 45
    assert most <= 2


@pytest.fixture(scope="module")
def sd15(full: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ComfyUI draws with."""
    return full or narrow_sd15(tmp_path_factory.mktemp("narrow"))


@pytest.fixture(scope="module")
def comfyui_pictures(
    request: pytest.FixtureRequest, comfyui: Host, sd15: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[np.ndarray]]:
    """The pictures of the recipes that are tested in this session."""
    chosen = [i.callspec.params["recipe"] for i in request.session.items if "comfyui_pictures" in i.fixturenames]
    return comfyui_draws(comfyui, sd15, chosen, tmp_path_factory.mktemp("comfyui_pictures"))


@pytest.mark.parametrize("recipe", shortened(recipes()), ids=lambda recipe: recipe.name)
def test_comfyui_draws_the_same_picture(
    comfyui_pictures: dict[str, list[np.ndarray]], sd15: Path, tmp_path: Path, recipe: Recipe
) -> None:
    theirs = comfyui_pictures[recipe.name]
    psnr, most = compare("comfyui", recipe.name, ours(recipe.job(sd15, tmp_path, "comfyui")), theirs)
    assert psnr >= 45
    assert most <= 2
