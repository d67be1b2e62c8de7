"""Previews of sd-scripts: prompts from a .txt, .toml or .json file, and the sampler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lora_core.kohya_files import parse_toml
from lora_core.kohya_row import Notes, text
from lora_core.preview_prompt import KNOWN, flags_of, sampler_named, text_of

STEPS, CFG = 30, 7.5


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
    """One prompt a line with the flags that we know; others are taken out and told. sd-scripts' own steps and CFG."""
    prompts: list[str] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        flags = flags_of(line)
        for flag in sorted(flags.keys() - KNOWN):
            sentence = "Not supported: it belongs to other models." if flag != "g" else "Not supported: see --l."
            notes.say(f"sample_prompts --{flag}", flags.pop(flag), sentence, "not supported")
        if "ss" in flags and sampler_named(flags["ss"]) is None:
            notes.say("sample_prompts --ss", flags.pop("ss"), "Not known: drawn as the others.", "differently")
        unknown = flags_of(line).keys() - flags.keys()
        kept = "".join(f" --{name} {value}" for name, value in flags.items())
        prompts.append(f"{text_of(line)}{kept}" if unknown else line.strip())
    return {"preview_steps": STEPS, "preview_cfg": CFG, "preview_prompts": prompts} if prompts else {}


def sampler(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The sampler of previews."""
    name = text(values["sample_sampler"]) or "ddim"
    found = sampler_named(name)
    if found is None:
        notes.say("sample_sampler", name, "Not known: ddim is used.", "differently")
    return {"preview_sampler": found or "ddim"}
