"""LoRA-like files into another dialect, with a proof: the change of every layer before and after, compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lora_core.commands import Commands
from lora_core.dialects import dialect
from lora_core.errors import KeyMismatch
from lora_core.events import Event, Finished, Note, Progress, Saved, Stage
from lora_core.factors import balanced, difference, folded, norm
from lora_core.jobs.files import ConvertJob
from lora_core.keys import COMFYUI_ENCODERS, ModuleKey
from lora_core.layers import Layer
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import HASH_KEYS
from lora_core.lora_metadata import minimal_metadata
from lora_core.merge import rule_for
from lora_core.network_writer import Extra, Naming, write_network
from lora_core.networks import NetworkFile
from lora_core.shapes import UNET, Architecture
from lora_core.svd import RankRule, approximate
from lora_core.tensors import TensorSource, open_tensors
from lora_core.tool_files import FORMATS, base_architecture, check_inputs, check_output, heed, summary_of

PROGRESS_EVERY = 32
NO_ALPHA = ("peft", "diffusers", "diffusers-old")
DEFAULT_ERROR = 0.01
ENDINGS = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "diffusers": (".lora_A.weight", ".lora_B.weight"),
    "diffusers-old": (".down.weight", ".up.weight"),
    "comfyui": (".lora_down.weight", ".lora_up.weight"),
}
PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")


@dataclass
class Converted:
    """Modules, changes outside the table (norms, biases), what was left out, and the error of each approximation."""

    modules: dict[str, LoraModule] = field(default_factory=dict)
    extras: dict[str, Extra] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)


def convert(job: ConvertJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a ConvertJob. Raises ConfigError, FileError, KeyMismatch, NotFinite, DiskFull; then nothing is written."""
    output = check_output(job.output, job.overwrite, [job.lora])
    check_inputs(job.lora, *([job.base] if job.base else []))
    yield Stage("Reading the header")
    arch = base_architecture(job.base)
    with NetworkFile(job.lora, arch) as file, torch.no_grad():
        refuse_unmatched(file)
        yield Note(f"{Path(job.lora).name} is of the dialect {dialect(file)}.")
        base = open_tensors(job.base) if job.base else None
        done = Converted()
        try:
            yield Stage("Converting")
            for number, canonical in enumerate(file.changes):
                heed(commands, output)
                convert_layer(job, file, base, canonical, done)
                if number % PROGRESS_EVERY == 0 or number + 1 == len(file.changes):
                    yield Progress(number + 1, len(file.changes), unit="layer")
        finally:
            if base is not None:
                base.close()
        names = {name: spelled_in(job.to, file.changes[name].layer, file.family) for name in file.changes}
        lora = Lora(done.modules, file.metadata, file.family)
        dtype = output_format(job.dtype, file)
        yield Stage("Saving")
        metadata = converted_metadata(lora, output)
        naming = Naming(names, *ENDINGS[job.to])
        if job.to in NO_ALPHA:
            modules = {name: without_alpha(module, dtype) for name, module in done.modules.items()}
            write_network(output, (modules, done.extras), naming, None, metadata)
        else:
            write_network(output, (done.modules, done.extras), naming, dtype, metadata)
    yield Saved(str(output), "lora")
    yield Stage("Comparing")
    report = proof(done, output, arch)
    for line in proof_lines(report, done):
        yield Note(line)
    yield Finished((str(output),), report)


def refuse_unmatched(file: NetworkFile) -> None:
    """Raises KeyMismatch when tensors of the file belong to no layer: a conversion would lose them."""
    if file.unmatched:
        some = ", ".join(sorted(file.unmatched)[:3])
        raise KeyMismatch(
            f"{file.path.name}: {len(file.unmatched)} tensors belong to no layer of the model and would be lost, "
            f"e.g. {some}. repair takes them out."
        )


def convert_layer(
    job: ConvertJob, file: NetworkFile, base: TensorSource | None, canonical: str, done: Converted
) -> None:
    """One layer of the file as a LoRA module, or as an extra (norms, biases). Raises KeyMismatch."""
    change = file.changes[canonical]
    parts = set(change.parts)
    if not change.layer.listed and job.extras == "drop":
        done.dropped.append(canonical)
        return
    tensors = file.tensors(canonical) if parts & {"diff", "diff_b"} else {}
    bias = tensors.get("diff_b")
    if bias is not None and job.extras == "drop":
        done.dropped.append(f"{canonical} (bias)")
        bias = None
    vector = len(change.layer.key.shape) == 1
    if vector or bias is not None:
        done.extras[canonical] = Extra(tensors.get("diff") if vector else None, bias)
    if vector:
        return
    if not parts - {"diff_b", "alpha"}:
        if bias is not None:
            done.modules[canonical] = nothing(change.layer.key.shape)
        return
    if change.is_plain:
        done.modules[canonical] = file.module(canonical)
    else:
        done.modules[canonical], done.errors[canonical] = decomposed(job, file, base, canonical)


def nothing(shape: tuple[int, ...]) -> LoraModule:
    """A LoRA of zeros: A1111 refuses a whole file for a layer of which only the bias changes."""
    ones = (1,) * (len(shape) - 2)
    return LoraModule(torch.zeros(1, *shape[1:]), torch.zeros(shape[0], 1, *ones), 1.0)


def decomposed(
    job: ConvertJob, file: NetworkFile, base: TensorSource | None, canonical: str
) -> tuple[LoraModule, float]:
    """A change of another algorithm as a LoRA module by SVD, and its measured relative error."""
    key, transform = file.changes[canonical].layer.key, file.changes[canonical].layer.transform
    weight = None
    if base is not None:
        weight = base.read(key.base, torch.float32, key.slice_rows)
        weight = weight.t() if transform == "transpose" else weight
    delta = file.delta(canonical, weight, key.shape)
    if delta is None:
        raise KeyMismatch(f"{file.path.name}: {canonical} changes nothing.")
    rule = rule_for(job, key.shape)
    if rule.method == "fixed" and not rule.rank:
        rule = RankRule("error", DEFAULT_ERROR)
    found, error = approximate(delta.flatten(1), rule, generator=torch.Generator().manual_seed(0))
    return balanced(found, key.shape), error


def spelled_in(dialect: str, layer: Layer, family: str) -> str:
    """The name of a layer in a dialect."""
    key = layer.key
    if dialect == "kohya":
        return key.kohya
    if dialect == "diffusers":
        return key.canonical
    if dialect == "diffusers-old":
        return attention_processor(key)
    if key.component != UNET:
        if dialect == "comfyui":
            return f"text_encoders.{COMFYUI_ENCODERS[family][key.component]}.transformer.{key.path}"
        raise KeyMismatch(
            "PEFT files hold one model each; convert to diffusers instead, or leave the text encoder out."
        )
    return f"diffusion_model.{layer.ldm}" if dialect == "comfyui" else f"base_model.model.{key.path}"


def attention_processor(key: ModuleKey) -> str:
    """The name of a projection in diffusers before 0.22. Raises KeyMismatch for what had none there."""
    if key.component != UNET:
        return f"{key.canonical}.lora_linear_layer"
    parent, _, projection = key.canonical.removesuffix(".0").rpartition(".")
    if not key.canonical.endswith(PROJECTIONS):
        raise KeyMismatch(
            f"{key.canonical} is no attention projection, and diffusers-old knows only those: use diffusers."
        )
    return f"{parent}.processor.{projection}_lora"


def output_format(name: str, file: NetworkFile) -> torch.dtype:
    """The number format of the result; "same" is that of all factors, float32 if they differ."""
    if name != "same":
        return FORMATS[name]
    skipped = ("alpha", "scale", "on_input")
    keys = [key for change in file.changes.values() for part, key in change.parts.items() if part not in skipped]
    found = {file.source.dtype(key) for key in keys}
    half = found & {torch.float16, torch.bfloat16}
    return half.pop() if len(found) == len(half) == 1 else torch.float32


def without_alpha(module: LoraModule, dtype: torch.dtype) -> LoraModule:
    """For formats without an alpha. A scaled `up` stays float32: half precision would lose bits of small numbers."""
    found = folded(module)
    up = found.up.to(dtype) if found.up is module.up else found.up.float()
    return LoraModule(found.down.to(dtype), up, found.alpha)


def converted_metadata(lora: Lora, output: Path) -> dict[str, str]:
    """The metadata of the original, completed so that every host tells the family; hashes are made anew."""
    title = lora.metadata.get("modelspec.title") or output.stem
    kept = {key: value for key, value in lora.metadata.items() if key not in HASH_KEYS}
    if not lora.modules:
        return kept
    summary, _ = summary_of(lora, title, {"": lora.metadata})
    fresh = minimal_metadata(summary)
    telling = ("ss_v2", "ss_base_model_version", "ss_network_dim", "ss_network_alpha", "modelspec.architecture")
    return fresh | kept | {key: fresh[key] for key in telling} | {"ss_output_name": output.stem}


def proof(done: Converted, output: Path, arch: Architecture | None) -> dict[str, object]:
    """Read the result back and compare each layer's change with the one before.

    `identical` counts layers whose numbers are the very same bits, `largest_error` is relative (Frobenius), and
    `svd_error` that of the approximations.
    """
    errors: dict[str, float] = {}
    identical = 0
    with NetworkFile(output, arch) as file:
        refuse_unmatched(file)
        for canonical, module in done.modules.items():
            found = file.module(canonical)
            same = same_bits(found, module)
            identical += same
            errors[canonical] = 0.0 if same else difference(found, module)
    whole = math.sqrt(sum(norm(module) ** 2 for module in done.modules.values()))
    worst = max(errors, key=lambda name: errors[name], default="")
    return {
        "layers": len(done.modules),
        "extras": len(done.extras),
        "dropped": list(done.dropped),
        "identical": identical,
        "largest_error": errors.get(worst, 0.0),
        "largest_error_at": worst,
        "norm": whole,
        "svd_errors": dict(done.errors),
        "svd_error": max(done.errors.values(), default=0.0),
        "ranks": {name: module.rank for name, module in done.modules.items()},
    }


def same_bits(found: LoraModule, module: LoraModule) -> bool:
    """Whether two modules have the same alpha and the same numbers in the same format."""
    if found.alpha != module.alpha or len(found.tensors) != len(module.tensors):
        return False
    pairs = zip(found.tensors, module.tensors)
    return all(a.dtype == b.dtype and a.numel() == b.numel() and torch.equal(a, b.reshape(a.shape)) for a, b in pairs)


def proof_lines(report: Mapping[str, object], done: Converted) -> Iterator[str]:
    """The proof in sentences."""
    count, same = report["layers"], report["identical"]
    yield (
        f"Proof: the change of {count} layers was read back; {same} are the same to the last bit, the largest relative "
        f"error of the others is {float(str(report['largest_error'])):.2g} {report['largest_error_at']}"
    )
    if done.errors:
        worst = max(done.errors, key=lambda name: done.errors[name])
        yield f"{len(done.errors)} layers became LoRA by SVD; largest error {done.errors[worst]:.2%} ({worst})."
    if done.extras:
        yield f"{len(done.extras)} norms and biases are kept; sd-scripts and diffusers do not read them (extras drop)."
    if done.dropped:
        yield f"{len(done.dropped)} layers outside kohya's table were dropped, e.g. {done.dropped[0]}."
