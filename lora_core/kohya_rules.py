"""Options of kohya's trainer whose meaning here takes more than one conversion."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.kohya_files import parse_toml
from lora_core.kohya_network import network, rates
from lora_core.kohya_optimizer import optimizer, schedule
from lora_core.kohya_row import Notes, number, text, truth, whole

PRECISIONS = {"": "fp32", "no": "fp32", "float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
LATENT_CELL = 8
PROMPT_FLAG = re.compile(r"\s--([a-z]+)\s+(.*?)(?=\s--[a-z]+\s|$)")


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
    parts = given if isinstance(given, (list, tuple)) else str(given).replace("x", ",").split(",")
    sides = [notes.convert("resolution", str(part).strip(), whole) for part in parts]
    if len(sides) not in (1, 2) or any(side is None for side in sides):
        notes.faults.append(f"resolution must be one size or width,height, not {given!r}.")
        return {}
    return {"width": sides[0], "height": sides[-1], "bucket_step": step}


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
    return {"rank_from_start": bool(notes.convert("dim_from_weights", values["dim_from_weights"], truth))}


def previews(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Prompts for previews from a .txt, .toml or .json file, or from the text itself."""
    given = values["sample_prompts"]
    if not given:
        return {}
    path = Path(str(given))
    if path.suffix.lower() not in (".txt", ".toml", ".json"):
        return read_prompts(str(given).splitlines(), notes)
    try:
        content = path.read_text("utf-8-sig", "replace")
        return read_prompts(prompt_lines(content, path.suffix.lower()), notes)
    except OSError as error:
        notes.say("sample_prompts", str(given), f"The file cannot be read ({error.strerror}): no previews are drawn.")
    except ValueError as error:
        notes.say("sample_prompts", str(given), f"The file is not understood ({error}): no previews are drawn.")
    return {}


def prompt_lines(content: str, kind: str) -> list[str]:
    """Prompts of a file, flags behind them. Raises ValueError."""
    if kind == ".txt":
        return content.splitlines()
    if kind == ".toml":
        table = parse_toml(content).get("prompt", {})
        entries = [{**table, **one} for one in table.get("subset", [{}])]
    else:
        entries = json.loads(content)
    return [
        entry if isinstance(entry, str) else f"{entry.get('prompt', '')}" + spell_flags(entry)
        for entry in list(entries)
    ]


def spell_flags(entry: dict[str, Any]) -> str:
    names = {"negative_prompt": "n", "width": "w", "height": "h", "sample_steps": "s", "scale": "l", "seed": "d"}
    return "".join(f" --{short} {entry[name]}" for name, short in names.items() if name in entry)


def read_prompts(lines: list[str], notes: Notes) -> dict[str, Any]:
    """One prompt a line; --s and --l are followed, other flags are named."""
    found: dict[str, Any] = {}
    prompts: list[str] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        flags = dict(PROMPT_FLAG.findall(line))
        prompts.append(re.split(r"\s--[a-z]+\s", line, maxsplit=1)[0].strip())
        if "s" in flags:
            found["preview_steps"] = notes.convert("sample_prompts --s", flags.pop("s"), whole)
        if "l" in flags:
            found["preview_cfg"] = notes.convert("sample_prompts --l", flags.pop("l"), number)
        for flag, value in flags.items():
            sentence = "Not supported yet: previews have the training's size, fixed seeds and no negative prompt."
            notes.say(f"sample_prompts --{flag}", value, sentence, "not supported")
    return {**found, "preview_prompts": prompts}


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
    previews,
)
