"""Whole pictures against the real hosts' own, in tests/data: written by tools/record_pictures.py.

A1111 v1.10.1: a1111_pictures.npz; the same and ComfyUI 0.3.64 on SDXL: sdxl_pictures.npz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_recipes import RECORDED, Recipe, a1111_recipes, ours, sdxl_recipes, with_a_mean
from small_models import write_small_model, write_small_sdxl

DATA = Path(__file__).parent / "data"
THEIRS, SDXL = (np.load(DATA / f"{name}_pictures.npz") for name in ("a1111", "sdxl"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_a_mean(write_small_model(tmp_path_factory.mktemp("small")))


@pytest.mark.parametrize("recipe", [r for r in a1111_recipes() if r.name in RECORDED], ids=lambda recipe: recipe.name)
def test_the_picture_is_a1111s(base: Path, tmp_path: Path, recipe: Recipe) -> None:
    pictures = np.stack(ours(recipe.job(base, tmp_path, "a1111"))).astype(int)
    assert np.abs(pictures - THEIRS[recipe.name]).max() <= 2


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_a_mean(write_small_sdxl(tmp_path_factory.mktemp("sdxl")))


@pytest.mark.parametrize("name", SDXL.files)
def test_the_sdxl_picture_is_the_hosts(sdxl: Path, tmp_path: Path, name: str) -> None:
    host, _, wanted = name.partition("/")
    (recipe,) = (recipe for recipe in sdxl_recipes() if recipe.name == wanted)
    pictures = np.stack(ours(recipe.job(sdxl, tmp_path, host))).astype(int)
    assert np.abs(pictures - SDXL[name]).max() <= 2
