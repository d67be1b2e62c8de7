"""From a LoRA's metadata back to the settings it was trained with, and how two trainings differ."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_core.errors import FileError
from lora_core.jobs.train import TrainJob
from lora_core.kohya_config import Place, translate
from lora_core.kohya_options import OPTIONS
from lora_core.kohya_row import Notes
from lora_core.settings import describe, replace_by_name
from lora_core.tensor_header import Header
from lora_core.tensors import read_header

RENAMED = {
    "debiased_estimation": "debiased_estimation_loss",
    "batch_size_per_device": "train_batch_size",
    "optimizer": "optimizer_type",
    "sd_model_name": "pretrained_model_name_or_path",
    "vae_name": "vae",
}
OWN = {  # keys that say how the file came about, not how it was to be trained
    *("session_id", "training_started_at", "training_finished_at", "steps", "epoch", "num_epochs", "num_train_images"),
    *("num_reg_images", "num_validation_images", "num_batches_per_epoch", "total_batch_size", "bucket_info"),
    *("dataset_dirs", "reg_dataset_dirs", "tag_frequency", "datasets", "sd_model_hash", "new_sd_model_hash"),
    *("vae_hash", "new_vae_hash", "base_model_version", "sd_scripts_commit_hash", "cache_latents", "lowram"),
}
PRECISIONS = {"F32": "float", "F16": "fp16", "BF16": "bf16"}


def job_like(path: str | Path) -> tuple[TrainJob, tuple[str, ...]]:
    """The training settings that a LoRA's metadata tell, and a sentence for each that is not followed or not told.

    Pictures and the output folder are left empty; the base is its bare file name. What the metadata do not say is as
    in kohya's trainer. Raises FileError for a file without training metadata.
    """
    path = Path(path)
    header = read_header(path)
    told = {k.removeprefix("ss_"): read_value(v) for k, v in header.metadata.items() if k.startswith("ss_")}
    if not {"learning_rate", "unet_lr", "max_train_steps"} & told.keys():
        raise FileError(f"{path.name} does not say how it was trained: its metadata hold no training settings.")
    notes = Notes()
    given = options_of(told, header)
    job = translate(given, Place(path.parent), notes)
    notes.raise_faults()
    values, sentences = further(told, header.metadata, job)
    return replace_by_name(job, values), (*notes.told(), *sentences)


def read_value(text: str) -> Any:
    """A metadata value as what it was before kohya's trainer made it a text."""
    plain = {"None": None, "True": True, "False": False, "": None}
    if text in plain:
        return plain[text]
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    if text[:1] in ("(", "["):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return text


def options_of(told: Mapping[str, Any], header: Header) -> dict[str, Any]:
    """The trainer's options by its own names."""
    told = {**first_dataset(told), **told}
    found = {RENAMED.get(name, name): value for name, value in told.items() if name not in OWN and value is not None}
    found = {name: value for name, value in found.items() if name in OPTIONS}
    if isinstance(told.get("resolution"), (tuple, list)):
        found["resolution"] = ",".join(map(str, told["resolution"]))
    arguments = told.get("network_args")
    if isinstance(arguments, dict):
        found["network_args"] = [f"{key}={value}" for key, value in arguments.items()]
    found |= optimizer(str(told.get("optimizer") or ""))
    found |= parts(header)
    if header.metadata.get("modelspec.prediction_type") == "v":
        found["v_parameterization"] = True
    low, comma, high = header.metadata.get("modelspec.timestep_range", "").partition(",")
    return {**found, "min_timestep": low, "max_timestep": high} if comma else found


def first_dataset(told: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a training with a dataset config keeps in its list of datasets."""
    datasets = told.get("datasets")
    first = datasets[0] if isinstance(datasets, list) and datasets and isinstance(datasets[0], dict) else {}
    subsets = first.get("subsets") if isinstance(first.get("subsets"), list) else []
    subset = subsets[0] if subsets and isinstance(subsets[0], dict) else {}
    return {**{k: v for k, v in subset.items() if k in OPTIONS}, **{k: v for k, v in first.items() if k != "subsets"}}


def optimizer(text: str) -> dict[str, Any]:
    """ "torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.99))" as optimizer_type and optimizer_args."""
    name, bracket, rest = text.partition("(")
    if not name:
        return {}
    arguments: list[str] = []
    for piece in rest.removesuffix(")").split(",") if bracket else ():
        if "=" in piece:
            arguments.append(piece.strip())
        elif arguments:  # a comma inside a value
            arguments[-1] += f",{piece}"
    return {"optimizer_type": name.strip(), "optimizer_args": arguments}


def parts(header: Header) -> dict[str, Any]:
    """What the tensors tell: which parts were trained, and the precision of the file."""
    names = header.tensors
    text = any(name.startswith("lora_te") for name in names)
    unet = any(name.startswith("lora_unet") for name in names)
    kinds = {info.dtype for name, info in names.items() if not name.endswith(".alpha")}
    found: dict[str, Any] = {"network_train_unet_only": not text, "network_train_text_encoder_only": not unet}
    return {**found, "save_precision": next((p for d, p in PRECISIONS.items() if kinds == {d}), "float")}


def further(told: Mapping[str, Any], metadata: Mapping[str, str], job: TrainJob) -> tuple[dict[str, Any], list[str]]:
    """Settings that no option of the trainer holds, and what the metadata leave open."""
    values: dict[str, Any] = {"output_dir": "", "folder": ""}
    sentences = ["The pictures are not in the file: set the dataset's folder."]
    if "betas" not in str(told.get("optimizer")):
        values |= {"beta1": TrainJob().optimization.beta1, "beta2": TrainJob().optimization.beta2}
    if not str(told.get("base_model_version")).startswith("sdxl"):
        values["text_encoder_2_lr"] = None
    trigger = metadata.get("modelspec.trigger_phrase", "") or common_tag(told)
    if trigger:
        values["trigger"] = trigger
    if trigger and not metadata.get("modelspec.trigger_phrase"):
        sentences.append(f"{trigger!r} stood in every caption and is taken for the trigger word.")
    folders = told.get("dataset_dirs")
    if isinstance(folders, dict) and folders:
        known = {name: entry for name, entry in folders.items() if isinstance(entry, dict)}
        listed = [f"{name}: {d.get('img_count')} x {d.get('n_repeats')}" for name, d in known.items()]
        sentences.append(f"It was trained on these pictures x repeats: {'; '.join(listed)}.")
        repeats = {d.get("n_repeats") for d in known.values()}
        if len(repeats) == 1 and isinstance(count := repeats.pop(), int) and count > 1:
            values["repeats"] = count
    steps, whole = told.get("steps"), told.get("max_train_steps")
    if steps and whole and str(steps) != str(whole):
        sentences.append(f"The file was saved at step {steps} of {whole}.")
    if told.get("num_epochs") and job.length.steps:
        sentences.append(f"Its {whole} steps were {told['num_epochs']} epochs; with other pictures they are not.")
    return values, sentences


def common_tag(told: Mapping[str, Any]) -> str:
    """The tag that all pictures of a folder share, if there is one and no other is as frequent."""
    frequency, folders = told.get("tag_frequency"), told.get("dataset_dirs")
    if not isinstance(frequency, dict) or not isinstance(folders, dict) or len(frequency) != 1:
        return ""
    name, tags = next(iter(frequency.items()))
    count = folders.get(name, {}).get("img_count") if isinstance(folders.get(name), dict) else None
    found = [tag for tag, times in tags.items() if times == count] if isinstance(tags, dict) and count else []
    return str(found[0]) if found else ""


@dataclass(frozen=True)
class Difference:
    """A setting that two jobs have differently."""

    name: str
    label: str
    first: Any
    second: Any


def differences(first: TrainJob, second: TrainJob) -> tuple[Difference, ...]:
    """Every setting that is not the same, but for where files lie and how they are called."""
    places = {"base", "name", "output_dir", "work_dir", "folder", "held_out", "cache_dir", "vae", "comment", "resume"}
    found: list[Difference] = []
    for s in describe(TrainJob):
        one, other = first, second
        for part in s.path:
            one, other = getattr(one, part), getattr(other, part)
        if one != other and s.name not in places:
            found.append(Difference(s.name, s.declaration.label or s.name, one, other))
    return tuple(found)
