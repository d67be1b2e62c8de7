"""LoRAs on ComfyUI's own MODEL and CLIP, with its own patching: load, stack, apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_core.errors import LoomError
from lora_core.jobs import LoraUse
from lora_core.jobs.tools import BLOCKS_HELP

from .declare import CLIP, COMBO, FLOAT, LORAS, MODEL, PREFIX, STRING, Context, Node, Out, Port, Result
from .widgets import chosen_file

STRENGTH = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05}


def lora_ports() -> tuple[Port, ...]:
    return (
        Port("lora", COMBO, "LoRA", "Press R to refresh the list.", options={"options": []}, listed="loras"),
        Port("strength", FLOAT, "Strength", "In the model.", options=STRENGTH),
        Port("text_strength", FLOAT, "Strength in CLIP", "In the text encoders.", options=STRENGTH),
        Port("blocks", STRING, "Block weights", f"Empty: all alike. {BLOCKS_HELP}", options={"default": ""}),
        Port("lora_name", STRING, "LoRA by name", "Takes the place of the list.", True, {"forceInput": True}),
    )


def use_of(values: dict[str, Any]) -> LoraUse:
    """The LoRA that the widgets name. Raises ConfigError."""
    path = chosen_file("loras", values.get("lora_name") or values["lora"])
    strength, in_text = float(values["strength"]), float(values["text_strength"])
    return LoraUse(path, strength, None if in_text == strength else in_text, values.get("blocks", "").strip())


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


def run_stack(context: Context, values: dict[str, Any]) -> Result:
    return Result(((*(values.get("loras") or ()), use_of(values)),))


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
        "Puts a LoRA on MODEL and CLIP, also with a strength for each block. A file that was written anew is read "
        "anew; one that does not fit is an error, not a picture without it.",
        load_inputs(),
        OUTPUTS,
        "run_use:run_load",
        fingerprint=lora_state,
        group="Use",
    ),
    Node(
        f"{PREFIX}Stack",
        "LoRA Stack",
        "A list of LoRAs with their strengths, for Apply, Generate and Merge. Chain several.",
        stack_inputs(),
        (Out(LORAS, "loras"),),
        run_stack,
        fingerprint=lora_state,
        group="Use",
    ),
    Node(
        f"{PREFIX}Apply",
        "Apply LoRAs",
        "Puts a stack of LoRAs on MODEL and CLIP.",
        apply_inputs(),
        OUTPUTS,
        "run_use:run_apply",
        group="Use",
    ),
)
