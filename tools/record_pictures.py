"""Record pictures that the real hosts draw on the tests' narrow models, in tests/data.

A1111_DIR=... A1111_PYTHON=... python tools/record_pictures.py
A1111_DIR=... A1111_PYTHON=... COMFYUI_DIR=... COMFYUI_PYTHON=... python tools/record_pictures.py sdxl
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "real_hosts")]


def sdxl() -> None:
    """sdxl_pictures.npz: "host/recipe" of both hosts."""
    from host_programs import host
    from parity import comfyui_draws, running_sdxl
    from picture_recipes import RECORDED_SDXL, a1111_fields, sdxl_recipes, with_a_mean
    from small_models import SDXL_LIKE_COMFYUI, write_small_sdxl

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = with_a_mean(write_small_sdxl(folder / "models"))
        chosen = [recipe for recipe in sdxl_recipes() if recipe.name in RECORDED_SDXL]
        comfyui = comfyui_draws(
            host("COMFYUI", "comfyui_pictures.py", folder, folder), base, chosen, folder, SDXL_LIKE_COMFYUI
        )
        drawn = {f"comfyui/{recipe}": np.stack(pictures) for recipe, pictures in comfyui.items()}
        with running_sdxl(base, folder) as webui:
            for recipe in chosen:
                drawn[f"a1111/{recipe.name}"] = np.stack(
                    webui.txt2img(**a1111_fields(recipe.job(base, folder, "a1111")))
                )
    np.savez_compressed(TESTS / "data" / "sdxl_pictures.npz", **drawn)


def sd1() -> None:
    """a1111_pictures.npz."""
    from a1111_live import running_a1111
    from picture_recipes import RECORDED, a1111_fields, a1111_recipes, with_a_mean
    from small_models import write_small_hub, write_small_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = with_a_mean(write_small_model(folder / "models"))
        write_small_hub(folder / "hub")
        chosen = [recipe for recipe in a1111_recipes() if recipe.name in RECORDED]
        with running_a1111(base, folder / "hub", folder / "data") as webui:
            drawn = {r.name: np.stack(webui.txt2img(**a1111_fields(r.job(base, folder, "a1111")))) for r in chosen}
    np.savez_compressed(TESTS / "data" / "a1111_pictures.npz", **drawn)


if __name__ == "__main__":
    {"sd1": sd1, "sdxl": sdxl}["".join(sys.argv[1:2]) or "sd1"]()
