"""Whole pictures against A1111 v1.10.1's own: tests/data/a1111_pictures.npz, written by tools/record_pictures.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_recipes import RECORDED, Recipe, a1111_recipes, ours, with_a_mean
from small_models import write_small_model

THEIRS = np.load(Path(__file__).parent / "data" / "a1111_pictures.npz")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_a_mean(write_small_model(tmp_path_factory.mktemp("small")))


@pytest.mark.parametrize("recipe", [r for r in a1111_recipes() if r.name in RECORDED], ids=lambda recipe: recipe.name)
def test_the_picture_is_a1111s(base: Path, tmp_path: Path, recipe: Recipe) -> None:
    pictures = np.stack(ours(recipe.job(base, tmp_path, "a1111"))).astype(int)
    assert np.abs(pictures - THEIRS[recipe.name]).max() <= 2
