"""Record pictures that a real A1111 draws on the tests' narrow model: tests/data/a1111_pictures.npz.

A1111_DIR=... A1111_PYTHON=... python tools/record_pictures.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "real_hosts")]


def main() -> None:
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
    main()
