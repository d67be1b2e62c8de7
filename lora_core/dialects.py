"""Who wrote a LoRA-like file, and which programs apply it: told from names and algorithms, never from the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_core.families import TITLES
from lora_core.lora_names import family_by_metadata
from lora_core.networks import ALGORITHMS, Change, NetworkFile
from lora_core.shapes import TEXT_ENCODER_2, UNET, Architecture

HOSTS = ("A1111", "Forge", "ComfyUI")
STRANGERS = (
    ("double_blocks.", "a Flux model, XLabs' naming", ".processor."),
    ("double_blocks", "a Flux model", ""),
    ("single_transformer_blocks", "a Flux model, diffusers' naming", ""),
    ("joint_blocks", "a Stable Diffusion 3 model", ""),
    ("transformer.transformer_blocks", "a Stable Diffusion 3 or Flux model, diffusers' naming", ""),
    ("lora_te3", "a Stable Diffusion 3 model", ""),
    ("cross_attn.k_img", "a Wan video model", ""),
    ("prior_", "a Stable Cascade or Kandinsky model", ""),
    ("emb_params", "an embedding (textual inversion), not a LoRA", ""),
    ("control_model.", "a ControlNet, not a LoRA", ""),
    ("model.diffusion_model.", "a base model, not a LoRA", ""),
    ("image_proj", "an IP-Adapter, not a LoRA", ""),
)


@dataclass(frozen=True)
class Verdict:
    """Whether a program applies a file: "fully", "partly" or "no", how many of its layers, and why."""

    program: str
    answer: str
    layers: int
    reason: str = ""


def stranger(keys: Iterable[str]) -> str:
    """What a file without any layer of SD1, SD2 or SDXL was made for, in words; "" when that is not known."""
    names = list(keys)
    for mark, words, also in STRANGERS:
        if any(mark in name and also in name for name in names):
            return words
    return ""


def dialect(file: NetworkFile) -> str:
    """The program or convention that the file follows, in words."""
    changes = list(file.changes.values())
    styles = Counter(change.style for change in changes)
    kinds = {change.algorithm for change in changes}
    words = {
        "kohya": "kohya (sd-scripts)",
        "lycoris": "LyCORIS of SimpleTuner",
        "peft": "PEFT",
        "comfyui": "ComfyUI (SaveLoRA)",
        "diffusers": "diffusers",
        "diffusers old": "diffusers before 0.22 (attention processors)",
    }
    found = words[styles.most_common(1)[0][0]]
    lycoris = sorted(ALGORITHMS[k] for k in kinds - {"lora"})
    if any(key.startswith("ot_") for key in file.metadata):
        found = "OneTrainer"
    elif found.startswith("kohya") and lycoris:
        found = "LyCORIS"
    elif found.startswith("kohya") and any(c.layer.key.is_conv3x3 for c in changes):
        found = "kohya (sd-scripts), LoCon"
    extra = [*lycoris, *(["DoRA"] if any(c.is_dora for c in changes) else [])]
    mixed = f"; mixed with {', '.join(words[s] for s in styles if s != styles.most_common(1)[0][0])}"
    return found + (f": {', '.join(extra)}" if extra else "") + (mixed if len(styles) > 1 else "")


def verdicts(file: NetworkFile) -> tuple[Verdict, ...]:
    """What A1111, Forge, ComfyUI, diffusers and sd-scripts do with the file."""
    tests: dict[str, Callable[[Change], str]] = {
        "A1111": lambda change: _a1111(change, file.family),
        "Forge": _comfyui,
        "ComfyUI": _comfyui,
        "diffusers": _diffusers,
        "sd-scripts": _sd_scripts,
    }
    alike: dict[tuple[object, ...], tuple[Change, int]] = {}
    for change in file.changes.values():
        sort = _sort(change)
        alike[sort] = (change, alike[sort][1] + 1 if sort in alike else 1)
    sorts = list(alike.values())
    found = [_verdict(file, sorts, program, test) for program, test in tests.items()]
    return tuple(_special(file, verdict) for verdict in found)


def unread(path: str | Path, arch: Architecture | None = None) -> str:
    """A sentence when A1111, Forge or ComfyUI apply nothing of a file, else "". Raises FileError, KeyMismatch."""
    with NetworkFile(path, arch) as file:
        refused = [v for v in verdicts(file) if v.answer == "no" and v.program in HOSTS]
    if not refused:
        return ""
    programs = " and ".join(v.program for v in refused)
    return f"{Path(path).name} is not applied by {programs}: {refused[0].reason}."


def _sort(change: Change) -> tuple[object, ...]:
    """Changes with equal sorts are judged alike by every test below."""
    tensor = next(iter(change.parts.values()))
    layer = change.layer
    spelling = (change.style, _is_sgm(change), ".to_" in change.name, ".processor." in tensor)
    return (*spelling, change.algorithm, tuple(change.parts), layer.key.component == UNET, layer.listed)


def _verdict(
    file: NetworkFile, sorts: Sequence[tuple[Change, int]], program: str, test: Callable[[Change], str]
) -> Verdict:
    """`sorts`: one change of each sort, and how many there are."""
    refusals: Counter[str] = Counter()
    for change, count in sorts:
        refusals.update({reason: count} if (reason := test(change)) else {})
    applied = len(file.changes) - sum(refusals.values())
    if file.unmatched:
        refusals[f"{len(file.unmatched)} tensors belong to no layer"] += 1
    answer = "no" if not applied else "partly" if refusals else "fully"
    return Verdict(program, answer, applied, "; ".join(reason for reason, _ in refusals.most_common(3)))


def _special(file: NetworkFile, verdict: Verdict) -> Verdict:
    """Rules about whole files."""
    if verdict.program == "Forge" and len(file.unmatched) > 12:
        return Verdict("Forge", "no", 0, "Forge drops a file with more than 12 keys that it does not know")
    if verdict.program == "A1111" and verdict.answer != "no":
        reasons = [verdict.reason] if verdict.reason else []
        if half := half_attention(file):
            reasons.append(f"{half} attentions of the OpenCLIP text encoder lack one of q, k, v, out and are skipped")
        if a1111_family(file.metadata) not in ("", file.family):
            title = TITLES[a1111_family(file.metadata)]
            reasons.append(f"its metadata make A1111 list it as {title} and hide it")
        return Verdict("A1111", "partly" if reasons else verdict.answer, verdict.layers, "; ".join(reasons))
    return verdict


def a1111_family(metadata: Mapping[str, str]) -> str:
    """The family under which A1111 1.10 lists a file: "" (always shown) without metadata."""
    if not metadata:
        return ""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "sdxl"
    return "sd2" if metadata.get("ss_v2") == "True" else "sd1"


def half_attention(file: NetworkFile) -> int:
    """Attentions in OpenCLIP encoders of which A1111 skips q, k and v because one of q, k, v, out is missing."""
    fused = {TEXT_ENCODER_2} if file.family == "sdxl" else {"text_encoder"} if file.family == "sd2" else set()
    groups = Counter(
        name.rpartition(".")[0]
        for name, change in file.changes.items()
        if change.layer.key.component in fused and ".self_attn." in name
    )
    return sum(1 for count in groups.values() if count < 4)


def _a1111(change: Change, family: str) -> str:
    if change.style != "kohya":
        return f"{change.style} names are not read by A1111"
    if change.algorithm == "unknown":
        return "an unknown algorithm"
    if change.layer.key.component != UNET and not change.layer.listed:
        return "layers outside the text encoders' blocks are not read by A1111"
    if "diff_b" in change.parts and "diff" not in change.parts:
        return "changes of a bias alone or beside a LoRA are not read by A1111"
    wrong = family == "sdxl" and change.layer.key.component == UNET and not _is_sgm(change)
    return "SDXL's UNet layers have diffusers' names, which A1111 reads as SD1's" if wrong else ""


def _is_sgm(change: Change) -> bool:
    return change.name.removeprefix("lora_unet_") == change.layer.ldm.replace(".", "_")


def _comfyui(change: Change) -> str:
    tensor = next(iter(change.parts.values()))
    if change.algorithm == "ia3" or change.algorithm == "unknown":
        return f"{ALGORITHMS.get(change.algorithm, 'the algorithm')} is not read"
    if "magnitude" in change.parts:
        return "PEFT's DoRA magnitude is not read"
    if change.style == "peft":
        return "PEFT's names are not read"
    if change.style.startswith("diffusers") and ".to_" in change.name and ".processor." not in tensor:
        return "diffusers' names of attention layers are not read"
    return ""


def _diffusers(change: Change) -> str:
    if change.algorithm != "lora":
        return f"{ALGORITHMS.get(change.algorithm, 'the algorithm')} is not read by diffusers"
    if change.style in ("comfyui", "lycoris"):
        return f"{change.style} names are not read by diffusers"
    return "" if change.layer.listed else "layers outside kohya's table are not read by diffusers"


def _sd_scripts(change: Change) -> str:
    if change.algorithm != "lora" or change.is_dora:
        kind = "DoRA" if change.is_dora else ALGORITHMS.get(change.algorithm, "the algorithm")
        return f"{kind} is not read by networks.lora"
    if change.style != "kohya":
        return f"{change.style} names are not read by sd-scripts"
    return "" if change.layer.listed else "layers outside kohya's table are not read by sd-scripts"


def family_reason(file: NetworkFile) -> str:
    """Why the file is of its family, in words."""
    said = family_by_metadata(file.metadata)
    if said == file.family:
        return "its metadata say so and its layers agree"
    if said:
        return f"its layers are of {TITLES[file.family]} although its metadata say {TITLES[said]}"
    return "told from the names and widths of its layers; its metadata do not say"
