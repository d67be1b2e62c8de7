"""Options of kohya's trainer whose meaning here takes more than one conversion."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.kohya_network import network, rates
from lora_core.kohya_optimizer import optimizer, schedule
from lora_core.kohya_previews import previews, sampler
from lora_core.kohya_row import Notes, text, truth, whole

PRECISIONS = {"": "fp32", "no": "fp32", "float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
LATENT_CELL = 8


def base(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The base, its VAE and how it predicts."""
    path = text(values["pretrained_model_name_or_path"])
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not Path(path).exists():
        sentence = (
            "This looks like a name on a hub. Nothing is downloaded: set base to a file or folder on this machine."
        )
        notes.say("pretrained_model_name_or_path", path, sentence, "differently")
    return {
        "base": path,
        "vae": text(values["vae"]),
        "prediction": "v" if notes.convert("v_parameterization", values["v_parameterization"], truth) else "auto",
        "zero_terminal_snr": "on" if notes.convert("zero_terminal_snr", values["zero_terminal_snr"], truth) else "auto",
    }


def size(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """`resolution` as 512, "512", "512,768" or [512, 768] (width, height); the step between buckets."""
    given = values["resolution"]
    step = notes.convert("bucket_reso_steps", values["bucket_reso_steps"], whole)
    if step is not None and step < LATENT_CELL:
        notes.say("bucket_reso_steps", step, "Sides of buckets are multiples of 64.", "differently")
        step = 64
    if given in (None, ""):
        return {"width": 512, "height": 512, "bucket_step": step}
    sides = size_of(given, notes)
    return {"width": sides[0], "height": sides[1], "bucket_step": step} if sides else {}


def size_of(given: Any, notes: Notes) -> tuple[int, int] | None:
    """(width, height) of 512, "512", "512,768" or [512, 768]; a fault and None for anything else."""
    parts = given if isinstance(given, (list, tuple)) else str(given).replace("x", ",").split(",")
    sides = [notes.convert("resolution", str(part).strip(), whole) for part in parts]
    if len(sides) not in (1, 2) or any(side is None for side in sides):
        notes.faults.append(f"resolution must be one size or width,height, not {given!r}.")
        return None
    return sides[0], sides[-1]


def captions(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Caption files, length and the text encoder's layer."""
    extension = text(values["caption_extention"]) or text(values["caption_extension"])
    given = values.get("given", ())
    asked = "caption_extension" in given or "caption_extention" in given
    return {
        "caption_extension": extension if asked else "",
        "max_tokens": notes.convert("max_token_length", values["max_token_length"] or 75, whole),
        "clip_skip": notes.convert("clip_skip", values["clip_skip"] or 1, whole),
    }


def length(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Epochs win over steps, as in the trainer; so does the last timestep's own default."""
    epochs = notes.convert("max_train_epochs", values["max_train_epochs"], whole)
    steps = notes.convert("max_train_steps", values["max_train_steps"], whole)
    seed = values["seed"]
    if seed in (None, ""):
        notes.say("seed", None, "No seed is named: 0 is used, so that the run can be repeated.", "differently")
    return {
        **({"epochs": epochs, "steps": 0} if epochs else {"steps": steps}),
        "max_timestep": notes.convert("max_timestep", values["max_timestep"] or 1000, whole),
        "seed": notes.convert("seed", seed, whole),
    }


def precision(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Precision of the base while it trains, and of the file."""
    half = "fp16" if values["full_fp16"] else "bf16" if values["full_bf16"] else text(values["mixed_precision"])
    saved = text(values["save_precision"])
    for name, value in (("mixed_precision", half), ("save_precision", saved)):
        if value not in PRECISIONS:
            notes.say(name, value, "Not supported: fp32 is used. Known: no, fp16, bf16.", "differently")
    return {"dtype": PRECISIONS.get(half, "fp32"), "save_precision": PRECISIONS.get(saved, "fp32")}


def output(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Where the LoRA goes and what it says about itself."""
    return {
        "output_dir": text(values["output_dir"]),
        "name": text(values["output_name"]) or "last",
        "start_from": text(values["network_weights"]),
        "metadata": "minimal" if notes.convert("no_metadata", values["no_metadata"], truth) else "full",
        "cache_text": True,
    }


def start(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Where rank and alpha come from when a LoRA is continued."""
    from_file = bool(notes.convert("dim_from_weights", values["dim_from_weights"], truth))
    return {"rank_from_start": from_file} if values["network_weights"] else {}


FILTERS = {"": "auto", "area": "auto", "box": "auto", "linear": "bilinear", "cubic": "bicubic"}
FILTERS |= {name: name for name in ("lanczos", "nearest", "bilinear", "bicubic")}


def resize_filter(value: Any) -> str:
    """Our name of a filter; one that is not known is as none."""
    return FILTERS.get(text(value).lower(), "auto")


def filters(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    return {"resize_filter": resize_filter(values["resize_interpolation"])}


def captions_file(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The file with all captions, and how often its pictures count."""
    file = text(values["in_json"])
    repeats = notes.convert("dataset_repeats", values["dataset_repeats"], whole)
    return {"metadata_file": file, "repeats": repeats} if file else {}


def kept_saves(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """How many saves are kept, from a number of saves or of steps."""
    epochs, steps, every = (
        notes.convert(name, values[name], whole) or 0
        for name in ("save_last_n_epochs", "save_last_n_steps", "save_every_n_steps")
    )
    return {"keep_last": epochs or (steps // every + 1 if steps and every else 0)}


RULES: tuple[Callable[[dict[str, Any], Notes], dict[str, Any]], ...] = (
    base,
    size,
    captions,
    network,
    optimizer,
    schedule,
    rates,
    length,
    precision,
    output,
    start,
    filters,
    captions_file,
    kept_saves,
    previews,
    sampler,
)
