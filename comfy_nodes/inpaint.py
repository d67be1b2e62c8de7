"""Inpaint Plan and Paste: A1111's crop, fill, blur and paste around ComfyUI's own models and samplers."""

from __future__ import annotations

from lora_core.jobs import InpaintJob

from .declare import BOOLEAN, COMBO, IMAGE, LATENT, MASK, PLAN, PREFIX, VAE, Node, Out, Port
from .generate import sized
from .widgets import port, setting

NOTHING = "latent nothing"
CONTENTS = ("original", "fill", NOTHING)
SHARED = ("width", "height", "mask_blur", "mask_invert", "inpaint_area", "only_masked_padding", "resize_mode")


def plan_inputs() -> tuple[Port, ...]:
    shared = [sized(port(setting(InpaintJob, name)), True) for name in SHARED]
    content = setting(InpaintJob, "masked_content").declaration
    return (
        Port("image", IMAGE, "Picture"),
        Port("mask", MASK, "Mask", "White is repainted."),
        *shared,
        Port("masked_content", COMBO, content.label, options={"options": list(CONTENTS), "default": CONTENTS[0]}),
        Port(
            "soft_mask",
            BOOLEAN,
            "Soft latent mask",
            "Off: rounded, as in A1111. On: with Differential Diffusion, for soft borders.",
            options={"default": False},
        ),
        Port("vae", VAE, "VAE", "Connected, the latents for the sampler come out.", True),
    )


def paste_inputs() -> tuple[Port, ...]:
    return (Port("plan", PLAN, "Plan"), Port("drawn", IMAGE, "Drawn", "What the sampler made of the plan's picture."))


NODES = (
    Node(
        f"{PREFIX}InpaintPlan",
        "Inpaint Plan",
        "What to give your own sampler: the part to draw, enlarged and filled as A1111 does it, and its mask.",
        plan_inputs(),
        (
            Out(PLAN, "plan"),
            Out(IMAGE, "working"),
            Out(MASK, "mask"),
            Out(LATENT, "latent", "With its noise mask; only with a VAE."),
        ),
        "run_inpaint:run_plan",
        group="Pictures",
    ),
    Node(
        f"{PREFIX}InpaintPaste",
        "Inpaint Paste",
        "Puts what was drawn back into the picture. Pixels outside the mask stay exactly as they were.",
        paste_inputs(),
        (Out(IMAGE, "images"),),
        "run_inpaint:run_paste",
        group="Pictures",
    ),
)
