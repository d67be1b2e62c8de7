"""LoRAs onto MODEL and CLIP by the host's own patching."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_core.block_weights import weigher
from lora_core.comfyui_keys import canonical_of
from lora_core.errors import KeyMismatch
from lora_core.families import TITLES
from lora_core.inspect_file import Inspection, inspect_network
from lora_core.jobs import LoraUse

from . import host
from .declare import Context, Result
from .use import use_of

OTHER_FAMILY = "{name} was made for {theirs} models; this MODEL is {ours}. Choose a LoRA for it."
OTHER_SIZES = (
    "{name} was made for a model of other sizes: {wrong} of its {count} layers do not fit here, {such} among them. "
    "Choose the base that it was trained on."
)
NOTHING = "{name} changes nothing here: none of its {count} layers is in this MODEL or CLIP."


def run_load(context: Context, values: dict[str, Any]) -> Result:
    return applied(values["model"], values.get("clip"), (use_of(values),))


def run_apply(context: Context, values: dict[str, Any]) -> Result:
    return applied(values["model"], values.get("clip"), values["loras"])


def applied(model: Any, clip: Any, uses: Sequence[LoraUse]) -> Result:
    """MODEL and CLIP with the LoRAs, trigger words. Raises KeyMismatch for one that does not belong to them."""
    lines, words = [], []
    for use in uses:
        found = inspected(use, host.family_of(model))
        model, clip, line = with_lora(model, clip, use, found)
        lines.append(line)
        words += list(found.triggers) if found else []
    return Result((model, clip, ", ".join(dict.fromkeys(words))), {"text": ["\n".join(lines)]})


def inspected(use: LoraUse, family: str) -> Inspection | None:
    """What the file is, None for kinds that only ComfyUI knows. Raises KeyMismatch for another family."""
    try:
        found = inspect_network(use.path)
    except KeyMismatch:
        if family:
            raise
        return None
    if family and found.family != family:
        words = {"name": Path(use.path).name, "theirs": TITLES[found.family], "ours": TITLES[family]}
        raise KeyMismatch(OTHER_FAMILY.format(**words))
    return found


def with_lora(model: Any, clip: Any, use: LoraUse, found: Inspection | None) -> tuple[Any, Any, str]:
    patches = host.lora_patches(model, clip, host.read_tensors(Path(use.path)))
    groups = by_strength(patches, use, found.family if found else "sd1")
    name, count = Path(use.path).name, sum(found.components.values()) if found else len(patches)
    wrong = host.misfits(model, patches) + host.misfits(clip, patches)
    if 2 * len(wrong) > len(patches):
        raise KeyMismatch(OTHER_SIZES.format(name=name, wrong=len(wrong), count=count, such=wrong[0]))
    model, in_model = host.patched(model, groups)
    clip, in_clip = host.patched(clip, groups) if clip is not None else (None, set())
    if not in_model and not in_clip:
        raise KeyMismatch(NOTHING.format(name=name, count=count))
    left_out = f" {len(wrong)} are of other sizes and are left out." if wrong else ""
    return model, clip, f"{name}: {len(in_model)} weights of the MODEL, {len(in_clip)} of the CLIP.{left_out}"


def by_strength(patches: dict[Any, Any], use: LoraUse, family: str) -> list[tuple[float, dict[Any, Any]]]:
    """The patches, those of the same strength together."""
    strength = weigher(use, use.blocks, family)
    groups: dict[float, dict[Any, Any]] = {}
    for key, patch in patches.items():
        weight = key if isinstance(key, str) else key[0]
        groups.setdefault(strength(canonical_of(weight, family)), {})[key] = patch
    return list(groups.items())
