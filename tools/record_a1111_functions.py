"""Record what the pixel functions that A1111 uses answer: `python tools/record_a1111_functions.py A1111_DIR OUT.json`.

Runs in A1111's own interpreter, which has OpenCV, scikit-image and blendmodes, and takes the soft inpainting script's
functions from its folder. The inputs below are also what the tests give ours.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

FUNCTIONS = {"SoftInpaintingSettings", "latent_blend", "get_modified_nmask", "weighted_histogram_filter"}
FUNCTIONS |= {"get_gaussian_kernel", "smootherstep"}


def grid() -> np.ndarray:
    """uint8 [289, 17, 3]: 17 values of each channel."""
    values = np.minimum(np.arange(17) * 16, 255).astype(np.uint8)
    return np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(289, 17, 3)


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two uint8 pictures [20, 24, 3] and [16, 16, 3] of different spreads."""
    rng = np.random.default_rng(seed)
    ends = ((0, 256), (40, 200), (200, 256))[seed]
    return rng.integers(*ends, (20, 24, 3)).astype(np.uint8), rng.integers(0, 256 >> seed, (16, 16, 3)).astype(np.uint8)


def latents(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32: two latents [2, 4, 9, 12] that agree in places, and a mask [9, 12]."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((2, 4, 9, 12)).astype(np.float32)
    mask = rng.random((9, 12)).astype(np.float32).round(2)
    mask[:3] = 0
    second = np.where(mask > 0.2, first + rng.standard_normal(first.shape).astype(np.float32), first)
    return first, second.astype(np.float32), mask


def text_of(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"shape": array.shape, "dtype": str(array.dtype), "data": data}


def colors() -> dict[str, Any]:
    import cv2
    from blendmodes.blend import BlendType, blendLayers
    from PIL import Image
    from skimage import exposure

    found: dict[str, Any] = {}
    for name, code in (("rgb_to_lab", cv2.COLOR_RGB2LAB), ("lab_to_rgb", cv2.COLOR_LAB2RGB)):
        found[name] = hashlib.sha256(cv2.cvtColor(grid(), code).tobytes()).hexdigest()
    for seed in range(3):
        drawn, target = pictures(seed)
        lab = [cv2.cvtColor(p, cv2.COLOR_RGB2LAB) for p in (drawn, target)]
        matched = cv2.cvtColor(exposure.match_histograms(*lab, channel_axis=2), cv2.COLOR_LAB2RGB).astype("uint8")
        blended = blendLayers(Image.fromarray(matched), Image.fromarray(drawn), BlendType.LUMINOSITY).convert("RGB")
        found[f"match_colors_{seed}"] = text_of(np.asarray(blended))
    return found


def soft(folder: Path) -> dict[str, Any]:
    import torch

    source = (folder / "extensions-builtin/soft-inpainting/scripts/soft_inpainting.py").read_text()
    wanted = [node for node in ast.parse(source).body if getattr(node, "name", None) in FUNCTIONS]
    space: dict[str, Any] = {"np": np, "math": math, "float64": lambda _: torch.float64}
    exec(compile(ast.Module(wanted, []), "soft_inpainting", "exec"), space)
    found: dict[str, Any] = {}
    kernel, center = space["get_gaussian_kernel"](stddev_radius=1.5, max_radius=2)
    for seed, sliders in enumerate(((1, 0.5, 4, 0, 0.5, 2), (2.5, 3, 12, 0.6, 2, 4))):
        settings = space["SoftInpaintingSettings"](*sliders)
        first, second, mask = latents(seed)
        nmask = torch.from_numpy(mask).expand(4, 9, 12)
        for sigma in (14.6, 0.3, 501.0):
            weight = space["get_modified_nmask"](settings, nmask, torch.tensor(sigma))
            blended = space["latent_blend"](settings, torch.from_numpy(first), torch.from_numpy(second), weight)
            found[f"blend_{seed}_{sigma}"] = text_of(blended.numpy())
        change = np.linalg.norm(second - first, axis=1)[0]
        for window in ((0.9, 1.0), (0.25, 0.75)):
            filtered = space["weighted_histogram_filter"](
                change, kernel, center, percentile_min=window[0], percentile_max=window[1], min_width=1
            )
            found[f"filter_{seed}_{window[0]}"] = text_of(filtered)
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(colors() | soft(Path(sys.argv[1])), indent=0))
