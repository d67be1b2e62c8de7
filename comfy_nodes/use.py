"""LoRAs on ComfyUI's own MODEL and CLIP, with its own patching: load, stack, apply."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_core.block_weights import weigher
from lora_core.comfyui_keys import canonical_of
from lora_core.errors import KeyMismatch, LoomError
from lora_core.families import TITLES
from lora_core.inspect_file import Inspection, inspect_network
from lora_core.jobs import LoraUse
from lora_core.jobs.tools import BLOCKS_HELP

from . import host
from .declare import CLIP, COMBO, FLOAT, LORAS, MODEL, PREFIX, STRING, Context, Node, Out, Port, Result
from .widgets import chosen_file

STRENGTH = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05}
AS_MODEL = -100.0
OTHER_FAMILY = "{name} was made for {theirs} models; this MODEL is {ours}. Choose a LoRA for it."
NOTHING = "{name} changes nothing here: none of its {count} layers is in this MODEL or CLIP."


def lora_ports() -> tuple[Port, ...]:
    return (
        Port("lora", COMBO, "LoRA", "Press R to refresh the list.", options={"options": host.files("loras")}),
        Port("strength", FLOAT, "Strength", options=STRENGTH),
        Port(
            "text_strength",
            FLOAT,
            "Strength in CLIP",
            "-100: as the strength.",
            options={**STRENGTH, "default": AS_MODEL, "min": AS_MODEL},
        ),
        Port("blocks", STRING, "Block weights", f"Empty: all alike. {BLOCKS_HELP}", options={"default": ""}),
        Port("lora_name", STRING, "LoRA by name", "Takes the place of the list.", True, {"forceInput": True}),
    )


def use_of(values: dict[str, Any]) -> LoraUse:
    """The LoRA that the widgets name. Raises ConfigError."""
    text = float(values.get("text_strength", AS_MODEL))
    path = chosen_file("loras", values.get("lora_name") or values["lora"])
    return LoraUse(
        path, float(values["strength"]), None if text <= AS_MODEL else text, values.get("blocks", "").strip()
    )


def state_of(path: str) -> str:
    """Changes when a file is written anew under the same name."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


def lora_state(values: dict[str, Any]) -> str:
    try:
        return state_of(chosen_file("loras", values.get("lora_name") or values.get("lora")))
    except LoomError:
        return ""


def run_load(context: Context, values: dict[str, Any]) -> Result:
    return applied(values["model"], values.get("clip"), (use_of(values),))


def run_stack(context: Context, values: dict[str, Any]) -> Result:
    return Result(((*(values.get("loras") or ()), use_of(values)),))


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
    model, in_model = host.patched(model, groups)
    clip, in_clip = host.patched(clip, groups) if clip is not None else (None, set())
    name, count = Path(use.path).name, sum(found.components.values()) if found else len(patches)
    if not in_model and not in_clip:
        raise KeyMismatch(NOTHING.format(name=name, count=count))
    return model, clip, f"{name}: {len(in_model)} weights of the MODEL, {len(in_clip)} of the CLIP."


def by_strength(patches: dict[Any, Any], use: LoraUse, family: str) -> list[tuple[float, dict[Any, Any]]]:
    """The patches, those of the same strength together."""
    strength = weigher(use, use.blocks, family)
    groups: dict[float, dict[Any, Any]] = {}
    for key, patch in patches.items():
        weight = key if isinstance(key, str) else key[0]
        groups.setdefault(strength(canonical_of(weight, family)), {})[key] = patch
    return list(groups.items())


def load_inputs() -> tuple[Port, ...]:
    return (Port("model", MODEL, "Model"), Port("clip", CLIP, "CLIP", optional=True), *lora_ports())


def stack_inputs() -> tuple[Port, ...]:
    return (*lora_ports(), Port("loras", LORAS, "LoRAs", "Those before this one.", True))


def apply_inputs() -> tuple[Port, ...]:
    return (Port("model", MODEL, "Model"), Port("loras", LORAS, "LoRAs"), Port("clip", CLIP, "CLIP", optional=True))


OUTPUTS = (Out(MODEL, "model"), Out(CLIP, "clip"), Out(STRING, "trigger_words", "As the file says."))
NODES = (
    Node(
        f"{PREFIX}Load",
        "Load LoRA (LoRA Loom)",
        "Puts a LoRA on MODEL and CLIP, also with a strength for each block. A file that was written anew is read anew; "
        "one that does not fit is an error, not a picture without it.",
        load_inputs,
        OUTPUTS,
        run_load,
        fingerprint=lora_state,
        group="Use",
    ),
    Node(
        f"{PREFIX}Stack",
        "LoRA Stack",
        "A list of LoRAs with their strengths, for Apply, Generate and Merge. Chain several.",
        stack_inputs,
        (Out(LORAS, "loras"),),
        run_stack,
        fingerprint=lora_state,
        group="Use",
    ),
    Node(
        f"{PREFIX}Apply",
        "Apply LoRAs",
        "Puts a stack of LoRAs on MODEL and CLIP.",
        apply_inputs,
        OUTPUTS,
        run_apply,
        group="Use",
    ),
)
