"""What the widgets of the host's img2img page hold, as pictures and settings of our Inpaint page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_core import host_names
from lora_core.settings import Setting

from .compat import Painting, opaque, painted

ORDERED = {
    "resize_mode": tuple(host_names.RESIZE_MODE),
    "mask_invert": tuple(host_names.MASK_MODE),
    "masked_content": ("fill", "original", "latent noise", "latent nothing"),
    "inpaint_area": tuple(host_names.INPAINT_AREA),
}


def held_picture(held: Mapping[str, Any], inpaint: bool) -> Painting:
    """The picture of the page that is open in img2img, with what is painted on it; else the other page's."""
    plain, drawn = (held.get("picture"), None), held.get("painted")
    marked = (drawn, opaque(held["painted mask"])) if "painted mask" in held else painted(drawn)
    first, second = (marked, plain) if inpaint else (plain, marked)
    return first if first[0] is not None else second


def held_settings(held: Mapping[str, Any], known: Mapping[str, Setting]) -> dict[str, Any]:
    """Our settings from the widgets' values; what we do not have (a sampler, say) is left as it is."""
    found = {name: value for name, value in held.items() if name in known and value is not None}
    for name, tokens in ORDERED.items():
        if isinstance(found.get(name), int):
            found[name] = tokens[found[name]] if found[name] < len(tokens) else None
    sampler, schedule = host_names.combined_tokens(str(found.get("sampler", "")))
    found["scheduler"] = schedule or host_names.schedule_token(str(found.get("scheduler", "")))
    found["sampler"] = sampler
    return {name: value for name, value in found.items() if value is not None}
