"""img2img, inpainting and two-pass graphs whose pictures were made by the real ComfyUI's nodes on our narrow models.

`tools/record_comfyui_inpainting.py` records them in tests/data/comfyui_inpainting.npz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import inpaint_cases
from inpaint_cases import Case

PROMPT, NEGATIVE = "a photo of a cat", "blurry"
NAMES = {"unipc": "uni_pc"}
METHODS = {
    None: "bilinear",
    "latent (nearest-exact)": "nearest-exact",
    "lanczos": "lanczos",
    "nearest": "nearest-exact",
}
BASE: dict[str, Any] = {
    "arithmetic": "comfyui",
    "prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "mask_blur": 0,
    "keep_size": True,
    "overlay_original": False,
    "scheduler": "normal",
}
CUT = {"width": 72, "height": 64}  # what ComfyUI makes of 79 x 69 pixels
SECOND = {"hires_scale": 1.2, "hires_denoising": 0.5}


@dataclass(frozen=True)
class Graph:
    """`nodes`: "set mask" (VAEEncode, SetLatentNoiseMask), "for inpaint" (VAEEncodeForInpaint), "inpaint model"
    (InpaintModelConditioning), "none" (VAEEncode alone); "hires": an empty latent, two samplers and between them
    LatentUpscaleBy, or VAEDecode, ImageScaleBy and VAEEncode. The settings are those of our job."""

    name: str
    nodes: str
    job: dict[str, Any] = field(default_factory=dict)
    image: str = "square"
    mask: str | None = "hole"
    model: str = "small"

    @property
    def case(self) -> Case:
        """As a case of inpaint_cases, for our side. No mask picture: LoadImage's mask, which is the alpha inverted."""
        content = {"masked_content": "grey"} if self.nodes == "for inpaint" else {}
        settings = BASE | content | self.job
        if self.nodes in ("none", "hires"):
            settings = {k: v for k, v in settings.items() if k not in ("mask_blur", "keep_size", "overlay_original")}
            return Case(self.name, settings, self.image, None, self.model)
        return Case(self.name, settings, self.image, self.mask or "", self.model)

    def asked(self, folder: Path) -> dict[str, Any]:
        """What the probe needs: pictures as files, settings by ComfyUI's names."""
        v = self.case.values
        image = folder / f"{self.image or 'nothing'}.png"
        inpaint_cases.picture(self.image or "square").save(image)
        mask = ""
        if self.case.mask:
            inpaint_cases.picture(self.mask).convert("RGB").save(folder / f"{self.mask}.png")
            mask = str(folder / f"{self.mask}.png")
        return {
            **{"name": self.name, "nodes": self.nodes, "image": str(image), "mask": mask, "model": self.model},
            **{"grow": v.get("mask_grow", 6), "batch": v.get("batch_size", 1), "seed": v["seed"], "steps": v["steps"]},
            **{"cfg": v["cfg_scale"], "denoise": v["denoising_strength"], "scheduler": v["scheduler"]},
            **{"sampler": NAMES.get(v["sampler"], v["sampler"]), "hires": v.get("hires", {})},
            **{"width": v["width"], "height": v["height"], "method": METHODS[v.get("hires", {}).get("hires_upscaler")]},
        }


def _graphs() -> list[Graph]:
    full, nine = {"denoising_strength": 1.0}, "small_inpainting"
    graphs = [
        Graph(f"set mask, {s}", "set mask", {"sampler": s}) for s in ("ddim", "euler", "euler_ancestral", "unipc")
    ]
    return [
        *graphs,
        Graph("set mask, karras", "set mask", {"sampler": "dpmpp_2m", "scheduler": "karras"}),
        Graph("set mask, ddim_uniform", "set mask", {"sampler": "ddim", "scheduler": "ddim_uniform"}),
        Graph("set mask, grey mask", "set mask", {"sampler": "euler"}, mask="slope"),
        Graph("set mask, batch", "set mask", {"sampler": "euler", "batch_size": 2}),
        Graph("set mask, full", "set mask", {"sampler": "euler", **full}),
        Graph("set mask, alpha", "set mask", {"sampler": "euler"}, image="transparent", mask=None),
        Graph("for inpaint, euler", "for inpaint", {"sampler": "euler", **full}),
        Graph("for inpaint, ddim", "for inpaint", {"sampler": "ddim", "mask_grow": 0, **full}),
        Graph("for inpaint, odd growth", "for inpaint", {"sampler": "euler_ancestral", "mask_grow": 9}),
        Graph("for inpaint, grey mask", "for inpaint", {"sampler": "euler", **full}, mask="slope"),
        Graph("img2img", "none", {"sampler": "euler"}),
        Graph("img2img, transparent", "none", {"sampler": "ddim"}, image="transparent"),
        Graph("9 channels", "inpaint model", {"sampler": "euler", **full}, model="small_inpainting"),
        Graph("9 channels, grey mask", "inpaint model", {"sampler": "ddim"}, mask="slope", model="small_inpainting"),
        Graph("9 channels, img2img", "none", {"sampler": "euler"}, model="small_inpainting"),
        Graph("odd sides, img2img", "none", {"sampler": "euler", **CUT}, image="odd"),
        Graph("odd sides, set mask", "set mask", {"sampler": "euler", **CUT}, "odd", "odd hole"),
        Graph("odd sides, grey mask", "set mask", {"sampler": "ddim", **CUT}, "odd", "odd slope"),
        Graph("odd sides, for inpaint", "for inpaint", {"sampler": "euler", **full, **CUT}, "odd", "odd hole"),
        Graph("odd sides, 9 channels", "inpaint model", {"sampler": "euler", **CUT}, "odd", "odd hole", nine),
        *(
            Graph(f"hires, {name}", "hires", {"sampler": "euler", "hires": SECOND | hires}, image="")
            for name, hires in (
                ("latent", {}),
                ("fewer steps", {"hires_scale": 1.5, "hires_steps": 4, "hires_upscaler": "latent (nearest-exact)"}),
                ("lanczos", {"hires_upscaler": "lanczos"}),
                ("nearest", {"hires_upscaler": "nearest", "hires_scale": 1.4}),
            )
        ),
    ]


GRAPHS = _graphs()
