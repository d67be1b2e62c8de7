"""img2img and inpainting recipes whose pictures were made by the real A1111.

`tools/record_inpainting.py` records them in tests/data/a1111_inpainting.npz, an array [n, h, w, 3] for each case.

A case is what differs from BASE in our job. Pictures are made here from formulas, so that no file is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BASE: dict[str, Any] = {
    "prompt": "a photo of a cat",
    "negative_prompt": "blurry",
    "width": 64,
    "height": 64,
    "steps": 6,
    "cfg_scale": 7.0,
    "seed": 3147777030,
    "sampler": "ddim",
    "denoising_strength": 0.5,
    "mask_blur": 4,
    "keep_size": False,
}
SOFT = {"soft_inpainting": True}
SAMPLER_NAMES = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "heun": "Heun",
    "unipc": "UniPC",
}
CONTENTS = ("fill", "original", "latent noise", "latent nothing")
RESIZE_MODES = ("just resize", "crop and resize", "resize and fill", "just resize (latent upscale)")


@dataclass(frozen=True)
class Case:
    """`image` and `mask` name pictures of this module ("" as image: drawn from nothing); `job` is merged over BASE;
    `model` one of small_models."""

    name: str
    job: dict[str, Any] = field(default_factory=dict)
    image: str = "square"
    mask: str | None = "hole"
    model: str = "small"

    @property
    def values(self) -> dict[str, Any]:
        return BASE | self.job


def _cases() -> list[Case]:
    both = ("whole picture", "only masked")
    cases = [
        Case(f"{content}, {area}", {"masked_content": content, "inpaint_area": area})
        for content in CONTENTS
        for area in both
    ]
    cases += [
        Case(f"{sampler}, {content}, {area}", {"sampler": sampler, "masked_content": content, "inpaint_area": area})
        for sampler, content, area in [
            ("euler", "original", both[0]),
            ("euler", "latent noise", both[1]),
            ("euler_ancestral", "fill", both[1]),
            ("euler_ancestral", "original", both[0]),
            ("dpmpp_2m", "original", both[0]),
            ("heun", "fill", both[0]),
            ("unipc", "original", both[0]),
        ]
    ]
    cases += [
        Case("no blur", {"mask_blur": 0}),
        Case("wide blur", {"mask_blur": 12, "inpaint_area": both[1], "only_masked_padding": 4}),
        Case("inverted", {"mask_invert": True}),
        Case("inverted, only masked", {"mask_invert": True, "inpaint_area": both[1], "masked_content": "fill"}),
        Case("mask from alpha", {}, mask="alpha"),
        Case("grey mask", {"sampler": "euler"}, mask="slope"),
        Case("transparent picture", {}, image="transparent"),
        Case("wide picture, only masked", {"inpaint_area": both[1], "only_masked_padding": 8}, "wide", "wide hole"),
        Case("tall drawing, only masked", {"inpaint_area": both[1], "width": 72, "height": 104}, "wide", "wide hole"),
        Case("blank mask", {}, mask="blank"),
        Case("blank mask, only masked", {"inpaint_area": both[1]}, "wide", "wide blank"),
        Case("strong", {"denoising_strength": 1.0, "masked_content": "latent noise"}),
        Case("weak", {"denoising_strength": 0.2, "sampler": "euler"}),
        Case("no denoising", {"denoising_strength": 0.0}),
        Case("no denoising, euler", {"denoising_strength": 0.0, "sampler": "euler"}),
        Case("variation", {"subseed": 77, "subseed_strength": 0.3, "masked_content": "latent noise"}),
        Case("all steps", {"all_steps": True, "sampler": "euler"}),
        Case("all steps, ddim", {"all_steps": True}),
        Case("less noise", {"noise_multiplier": 0.7, "sampler": "euler"}),
        Case("colours", {"color_correction": True, "masked_content": "fill"}),
        Case("colours, only masked", {"color_correction": True, "inpaint_area": both[1]}),
        Case("batch", {"batch_size": 2, "masked_content": "latent noise"}),
        Case("two batches", {"batch_count": 2, "sampler": "euler_ancestral"}),
        Case("no overlay", {"overlay_original": False}),
    ]
    cases += [Case(f"inpaint, {mode}", {"resize_mode": mode}, "wide", "wide hole") for mode in RESIZE_MODES[:3]]
    cases += [Case(f"img2img, {mode}", {"resize_mode": mode}, "wide", None) for mode in RESIZE_MODES]
    cases += [
        Case("img2img, tall, crop", {"resize_mode": RESIZE_MODES[1], "width": 72, "height": 104}, "wide", None),
        Case("img2img, colours", {"color_correction": True, "sampler": "euler"}, "square", None),
        Case("img2img, euler a", {"sampler": "euler_ancestral", "denoising_strength": 0.8}, "square", None),
    ]
    return cases + _soft() + _nine()


def _soft() -> list[Case]:
    sliders = {
        **SOFT,
        "mask_blend_power": 2.0,
        "mask_blend_scale": 1.5,
        "detail_preservation": 8.0,
        "composite_mask_influence": 0.4,
        "composite_difference_threshold": 2.0,
        "composite_difference_contrast": 4.0,
    }
    only = {"inpaint_area": "only masked", "only_masked_padding": 8}
    return [
        Case("soft, euler", {"soft": SOFT, "sampler": "euler", "mask_blur": 12}),
        Case("soft, ddim", {"soft": SOFT, "mask_blur": 12}),
        Case("soft, sliders", {"soft": sliders, "sampler": "euler", "mask_blur": 12}),
        Case("soft, sliders, euler a", {"soft": sliders, "sampler": "euler_ancestral", "masked_content": "fill"}),
        Case("soft, grey mask", {"soft": sliders, "sampler": "euler"}, mask="slope"),
        Case("soft, only masked", {"soft": sliders, "sampler": "euler", **only}, "wide", "wide hole"),
        Case("soft, batch", {"soft": SOFT, "sampler": "euler", "batch_size": 2, "masked_content": "latent noise"}),
    ]


def _nine() -> list[Case]:
    rows = [
        ("9 channels", {}, "hole"),
        ("9 channels, fill, only masked", {"masked_content": "fill", "inpaint_area": "only masked"}, "hole"),
        ("9 channels, latent noise", {"masked_content": "latent noise", "sampler": "euler"}, "hole"),
        ("9 channels, half hidden", {"conditioning_mask_strength": 0.5, "sampler": "euler"}, "hole"),
        ("9 channels, soft", {"soft": SOFT, "sampler": "euler", "mask_blur": 12}, "hole"),
        ("9 channels, batch", {"batch_size": 2}, "hole"),
        ("9 channels, img2img", {}, None),
    ]
    return [Case(name, job, "square", mask, "small_inpainting") for name, job, mask in rows]


def picture(name: str) -> Image.Image:
    """The pictures and masks that cases name."""
    width, height = {"wide": (96, 72), "odd": (79, 69)}.get(name.split()[0], (64, 64))
    kind = name.removeprefix("wide ").removeprefix("odd ")
    if kind in ("square", "wide", "odd", "transparent"):
        made = Image.fromarray(_colors(width, height))
        if kind == "transparent":
            made.putalpha(Image.fromarray(_slope(width, height)))
        return made
    if kind == "slope":
        return Image.fromarray(_slope(width, height))
    mask = Image.new("L", (width, height))
    if kind != "blank":
        mask.paste(255, (width // 4, height // 3, width // 4 + 24, height // 3 + 20))
    if kind == "alpha":
        return Image.merge("RGBA", [mask.point([7] * 256)] * 3 + [mask])
    return mask


def _colors(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [128 + 110 * np.sin(x / 7), 128 + 90 * np.cos(y / 9 + x / 30), 128 + 100 * np.sin((x - y) / 11)]
    grain = np.random.default_rng(5).integers(-12, 13, (height, width, 3))
    return (np.dstack(waves) + grain).clip(0, 255).astype(np.uint8)


def _slope(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-120, 320, width), np.linspace(0, 60, height))
    return (x + y).clip(0, 255).astype(np.uint8)


CASES = _cases()


def payload(case: Case) -> dict[str, Any]:
    """The fields of A1111's API, without the pictures."""
    v = case.values
    sent: dict[str, Any] = {
        "prompt": v["prompt"],
        "negative_prompt": v["negative_prompt"],
        "width": v["width"],
        "height": v["height"],
        "steps": v["steps"],
        "cfg_scale": v["cfg_scale"],
        "seed": v["seed"],
        "sampler_name": SAMPLER_NAMES[v["sampler"]],
        "scheduler": "Automatic",
        "denoising_strength": v["denoising_strength"],
        "subseed": v.get("subseed", -1),
        "subseed_strength": v.get("subseed_strength", 0),
        "resize_mode": RESIZE_MODES.index(v.get("resize_mode", RESIZE_MODES[0])),
        "batch_size": v.get("batch_size", 1),
        "n_iter": v.get("batch_count", 1),
        "initial_noise_multiplier": v.get("noise_multiplier", 1.0),
        "override_settings": {
            "img2img_fix_steps": v.get("all_steps", False),
            "img2img_color_correction": v.get("color_correction", False),
            "inpainting_mask_weight": v.get("conditioning_mask_strength", 1.0),
            "overlay_inpaint": v.get("overlay_original", True),
            "return_grid": False,
            "live_previews_enable": False,
        },
    }
    if case.mask is not None:
        sent |= {
            "mask_blur": v["mask_blur"],
            "inpainting_fill": CONTENTS.index(v.get("masked_content", "original")),
            "inpaint_full_res": v.get("inpaint_area") == "only masked",
            "inpaint_full_res_padding": v.get("only_masked_padding", 32),
            "inpainting_mask_invert": int(v.get("mask_invert", False)),
        }
    if "soft" in v:
        sent["alwayson_scripts"] = {"Soft Inpainting": {"args": _soft_arguments(v["soft"])}}
    return sent


def _soft_arguments(soft: dict[str, Any]) -> list[Any]:
    names = ("mask_blend_power", "mask_blend_scale", "detail_preservation", "composite_mask_influence")
    names += ("composite_difference_threshold", "composite_difference_contrast")
    return [True, *(soft.get(name, default) for name, default in zip(names, (1.0, 0.5, 4.0, 0.0, 0.5, 2.0)))]


def packed(case: Case, drawn: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, 3] as what differs from the case's picture, which is mostly 0; `packed` again undoes it."""
    source = np.asarray(picture(case.image or "square").convert("RGB"))
    return source - drawn if drawn.shape[1:] == source.shape else drawn  # bytes wrap: s - (s - d) = d


def drawn_by_us(case: Case, base: Path, folder: Path) -> list[np.ndarray]:
    """The pictures [h, w, 3] that our runners make of a case."""
    from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob
    from lora_core.run import run
    from lora_core.settings import replace_by_name

    paths = {"base": str(base), "output_dir": str(folder)}
    if case.image:
        picture(case.image).save(folder / "picture.png")
        paths["image"] = str(folder / "picture.png")
    if case.mask:
        picture(case.mask).save(folder / "mask.png")
        paths["mask"] = str(folder / "mask.png")
    cls = GenerateJob if not case.image else Img2ImgJob if case.mask is None else InpaintJob
    job = cls(**paths, dtype="fp32", device="cpu")
    flat = {name: value for key, part in case.values.items() for name, value in _flat(key, part)}
    unknown = MASK_SETTINGS[: None if not case.image else 2 if case.mask is None else 0]
    known = {name: value for name, value in flat.items() if name not in unknown}
    finished = list(run(replace_by_name(job, known)))[-1]
    return [np.asarray(Image.open(path).convert("RGB")) for path in finished.outputs]


MASK_SETTINGS = ("mask_blur", "keep_size", "denoising_strength")  # the last one: not of pictures from nothing


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else [(name, value)]


def likeness(one: np.ndarray, other: np.ndarray) -> tuple[float, int]:
    """PSNR in dB (999: equal) and the largest difference of two uint8 pictures."""
    apart = one.astype(int) - other
    mean = float((apart**2).mean())
    return (999.0 if mean == 0 else 10 * float(np.log10(255**2 / mean))), int(np.abs(apart).max())
