"""What the tools share: where a result may go, which keys it gets, what its metadata say, how it is saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from lora_core.architecture import architecture_of, refuse_untrainable
from lora_core.commands import Commands
from lora_core.errors import ConfigError, FileError, Interrupted, KeyMismatch
from lora_core.families import TITLES, reference
from lora_core.keys import ModuleKey, lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.lora_metadata import Summary, minimal_metadata
from lora_core.shapes import Architecture

Number = TypeVar("Number", int, float)
FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
CARRIED = ("ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_clip_skip", "ss_resolution")


def check_output(output: str, overwrite: bool, inputs: Sequence[str] = ()) -> Path:
    """The output's path. Raises ConfigError when it exists and may not be replaced, or its folder is not there."""
    path = Path(output)
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"The folder {path.parent} does not exist. Create it or choose another one for {path.name}.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists. Choose another name, or allow it to be replaced (overwrite).")
    for name in inputs:
        if Path(name).exists() and path.exists() and path.samefile(name):
            raise ConfigError(f"{path} is one of the inputs. Choose another name for the output.")
    return path


def check_inputs(*paths: str) -> None:
    """Raises FileError for a path that is not there."""
    for name in paths:
        if not Path(name).exists():
            raise FileError(f"There is no file {name}.")


def heed(commands: Commands | None, output: Path) -> None:
    """Raises Interrupted when a stop was asked for."""
    if commands is not None and commands.stop:
        raise Interrupted(f"Stopped; {output.name} was not written.")


def base_architecture(path: str) -> Architecture | None:
    """The architecture of a named base; None for "". Raises FileError for one that no LoRA fits."""
    if not path:
        return None
    arch = architecture_of(path)
    refuse_untrainable(arch, path)
    return arch


def one_family(loras: Mapping[str, Lora]) -> str:
    """The family of LoRAs by file name. Raises KeyMismatch when they are of several."""
    families = {lora.family for lora in loras.values()}
    if len(families) == 1:
        return families.pop()
    told = ", ".join(f"{Path(name).name} for {TITLES[lora.family]}" for name, lora in loras.items())
    raise KeyMismatch(f"The LoRAs were made for different model families: {told}. They cannot be merged.")


def keys_of(modules: Mapping[str, LoraModule], family: str, arch: Architecture | None = None) -> tuple[ModuleKey, ...]:
    """kohya's names for the modules of a LoRA, in the order of the forward pass, with the modules' own shapes."""
    known = lora_targets(arch or reference(family), conv=True)
    found = [dataclasses.replace(k, shape=modules[k.canonical].shape) for k in known if k.canonical in modules]
    return tuple(found)


def summary_of(
    lora: Lora, title: str, sources: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[Summary, dict[str, str]]:
    """What the metadata of a LoRA made from others (name -> metadata) say: its own rank and alpha, the rest carried.

    A value is carried when all sources that have it agree; trigger words are joined.
    """
    made = list((sources or {}).values())
    linear = [m for m in lora.modules.values() if m.shape[2:] in ((), (1, 1))] or list(lora.modules.values())
    convs = [m for m in lora.modules.values() if m.shape[2:] not in ((), (1, 1))]
    args: dict[str, str] = {}
    if convs:
        args = {"conv_dim": str(_only(m.rank for m in convs)), "conv_alpha": str(_only(m.alpha for m in convs))}
    triggers = [m.get("modelspec.trigger_phrase", "") for m in made]
    summary = Summary(
        lora.family,
        _only(m.rank for m in linear),
        _only(m.alpha for m in linear),
        title,
        _agreed(made, "modelspec.prediction_type") or _agreed(made, "lora_loom.prediction_type") or "epsilon",
        _agreed(made, "ss_zero_terminal_snr") == "True",
        args,
        date=time.time(),
        merged_from=", ".join(Path(name).stem for name in sources or {}),
        trigger=", ".join(dict.fromkeys(t for t in triggers if t)),
    )
    carried = {key: value for key in CARRIED if (value := _agreed(made, key))}
    return summary, carried


def _only(values: Iterable[Number]) -> Number | str:
    """The one value that all have, or "Dynamic"."""
    found = set(values)
    return found.pop() if len(found) == 1 else "Dynamic"


def _agreed(metadata: Sequence[Mapping[str, str]], key: str) -> str:
    found = {m[key] for m in metadata if m.get(key) not in (None, "", "None")}
    return found.pop() if len(found) == 1 else ""


def made_metadata(lora: Lora, output: Path, title: str, sources: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The metadata of a LoRA that a tool made from others; A1111's alias is the file's own name."""
    summary, carried = summary_of(lora, title or output.stem, sources)
    return carried | minimal_metadata(summary) | {"ss_output_name": output.stem}


def save_lora(
    path: Path, lora: Lora, dtype: torch.dtype, metadata: Mapping[str, str], arch: Architecture | None = None
) -> None:
    """Write and verify a LoRA. Raises KeyMismatch when a module has no kohya name: none is ever left out."""
    keys = keys_of(lora.modules, lora.family, arch)
    if len(keys) != len(lora.modules):
        lost = sorted(lora.modules.keys() - {key.canonical for key in keys})
        raise KeyMismatch(f"{len(lost)} modules have no place in {TITLES[lora.family]}, e.g. {lost[0]}.")
    write_lora(path, lora, keys, dtype, metadata)
