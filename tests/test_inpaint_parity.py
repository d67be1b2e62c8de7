"""img2img and inpainting against pictures that the real A1111 and ComfyUI drew with the same narrow models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from comfy_inpaint_cases import GRAPHS, Graph
from inpaint_cases import CASES, Case, drawn_by_us, likeness, packed
from small_models import write_small_model

DATA = Path(__file__).parent / "data"
A1111, COMFYUI = (np.load(DATA / f"{name}_inpainting.npz") for name in ("a1111", "comfyui"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"small": write_small_model(folder), "small_inpainting": write_small_model(folder, inpainting=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_picture_is_a1111s(case: Case, models: dict[str, Path], tmp_path: Path) -> None:
    compare(case, A1111[case.name], models, tmp_path)


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_the_picture_is_comfyuis(graph: Graph, models: dict[str, Path], tmp_path: Path) -> None:
    compare(graph.case, COMFYUI[graph.name], models, tmp_path)


def compare(case: Case, known: np.ndarray, models: dict[str, Path], folder: Path) -> None:
    theirs = packed(case, known)
    ours = drawn_by_us(case, models[case.model], folder)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert one.shape == other.shape
        ratio, furthest = likeness(one, other)
        assert ratio >= 45
        assert furthest <= 2


def test_another_seed_is_another_picture(models: dict[str, Path], tmp_path: Path) -> None:
    case = Case("seed", {"masked_content": "latent noise", "seed": 1})
    known = packed(case, A1111["latent noise, whole picture"])[0]
    assert likeness(drawn_by_us(case, models["small"], tmp_path)[0], known)[0] < 30
