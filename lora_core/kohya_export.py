"""A training job in the words of sd-scripts: options, dataset config, preview prompts, and what they cannot say.

What comes out is read back by `kohya_config`: what then differs from the job is told, and kept for our own reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_core.jobs.train import Subset, TrainJob
from lora_core.kohya_config import settings_of
from lora_core.kohya_dataset import SUBSET_FIELDS, translate_dataset
from lora_core.kohya_export_network import network, optimizer, rates, schedule
from lora_core.kohya_options import OPTIONS
from lora_core.kohya_row import Notes
from lora_core.kohya_subsets import prompt_text, sources
from lora_core.settings import describe, from_json, leaf_values, replace_by_name, to_json

SECTION, KEY = "lora_loom", "loom_settings"
OF_SUBSETS = ("reg_data_dir", "conditioning_data_dir")
KOHYA = {"euler": "euler", "euler_ancestral": "euler_a", "heun": "heun", "lms": "lms"}
KOHYA |= {"dpm2": "dpm_2", "dpm2_ancestral": "dpm_2_a", "dpmpp_2m": "dpmsolver++"}
QUIET = {"folder", "repeats", "class_pictures", "masks", "work_dir", "cache_dir", "resume", "threads", "device"}
QUIET |= {"name", "caption_prefix", "more_sizes", "preview_prompts", "preview_negative", "preview_steps", "preview_cfg"}
QUIET |= {"metadata_file", "class_count"}
SENTENCES = {
    "trigger": "sd-scripts has no trigger word: it stands in caption_prefix, also where a caption holds it already.",
    "caption_extension": "sd-scripts reads one kind of caption file: .txt is named.",
    "text_encoder_lr": "It is written as the number that it means.",
    "text_encoder_2_lr": "It is written as the number that it means.",
    "beta1": "It is written as the number that it means.",
    "beta2": "It is written as the number that it means.",
    "dtype": "It is written as bf16, which most cards are fast with.",
    "warmup": "A constant schedule has none.",
    "weight_decay": "It is the optimizer's own in either program.",
    "class_prompt": "sd-scripts draws no class pictures: name the folder of those drawn here as reg_data_dir.",
    "held_out": "sd-scripts holds out a share of the pictures only: set validation_split there.",
}


@dataclass(frozen=True)
class Exported:
    """`options` and `dataset` are for TOML files, `prompts` is the text of a prompt file; `notes` is for a person."""

    options: dict[str, Any]
    dataset: dict[str, Any]
    prompts: str
    notes: tuple[str, ...]


def exported(job: TrainJob, subsets: Sequence[Subset] | None = None, family: str = "") -> Exported:
    """The job for sd-scripts. `subsets` are its folders where they are known better than from the job; `family` is
    the base's ("sd1", "sd2", "sdxl"). `options` hold what sd-scripts cannot say in a section that only we read.
    """
    options = trainer_options(job) | ({"v2": True} if family == "sd2" else {})
    dataset = dataset_config(job, list(subsets if subsets is not None else sources(job)))
    prompts = prompt_text(job)
    back = read_back(options, dataset, prompts)
    notes = list(unsaid(job, back))
    if family == "sdxl":
        notes.insert(0, "The base is SDXL: run sdxl_train_network.py with it.")
    return Exported(with_rest(options, job, back), dataset, prompts, tuple(notes))


def trainer_options(job: TrainJob) -> dict[str, Any]:
    """sd-scripts' options that differ from its defaults; the files of dataset and prompts are not among them."""
    values = leaf_values(job)
    found: dict[str, Any] = {}
    for option in OPTIONS.values():
        if option.convert is None or option.name in OF_SUBSETS:
            continue
        value = values[option.settings[0]]
        if value is not None and value != option.convert(option.default):
            found[option.name] = list(value) if isinstance(value, tuple) else value
    for part in (base, pictures, captions, network, optimizer, schedule, rates, length, files):
        found |= {name: value for name, value in part(job).items() if asked(value)}
    return found


def asked(value: Any) -> bool:
    """0 is a value, nothing and False are not."""
    return value is not False and value is not None and value != "" and value != []


def base(job: TrainJob) -> dict[str, Any]:
    n = job.noise
    return {
        "pretrained_model_name_or_path": job.base,
        "vae": job.vae,
        "v_parameterization": n.prediction == "v",
        "zero_terminal_snr": n.zero_terminal_snr == "on",
        "max_timestep": n.max_timestep if n.max_timestep < 1000 else None,
        "seed": job.seed,
    }


def pictures(job: TrainJob) -> dict[str, Any]:
    d = job.dataset
    masks = d.alpha_mask or d.masks or any(s.masks or s.alpha_mask for s in d.subsets)
    return {
        "resolution": f"{d.width},{d.height}",
        "bucket_reso_steps": d.bucket_step if d.bucket_step != 64 else None,
        "masked_loss": bool(masks),
        "resize_interpolation": None if d.resize_filter == "auto" else d.resize_filter,
        "cache_latents": not any(one.color_shift or one.random_crop for one in (d, *d.subsets)),
        "sdpa": True,
    }


def captions(job: TrainJob) -> dict[str, Any]:
    c = job.captions
    prefix = " ".join(filter(None, (f"{c.trigger}{c.separator}" if c.trigger else "", c.caption_prefix)))
    return {
        "caption_extension": c.caption_extension or ".txt",
        "caption_prefix": prefix,
        "max_token_length": c.max_tokens if c.max_tokens > 75 else None,
        "clip_skip": c.clip_skip if c.clip_skip > 1 else None,
    }


def length(job: TrainJob) -> dict[str, Any]:
    steps, epochs = job.length.steps, job.length.epochs
    return {"max_train_steps": steps} if steps else {"max_train_epochs": epochs}


def files(job: TrainJob) -> dict[str, Any]:
    s, dtype = job.saves, job.memory.dtype
    return {
        "output_dir": job.output_dir,
        "output_name": job.name,
        "mixed_precision": {"fp32": "no", "auto": "bf16"}.get(dtype, dtype),
        "save_precision": {"fp32": "float"}.get(s.save_precision, s.save_precision),
        "save_model_as": "safetensors",
        "no_metadata": s.metadata == "minimal",
        "save_last_n_epochs": s.keep_last or None,
        "sample_sampler": KOHYA.get(s.preview_sampler),
    }


def dataset_config(job: TrainJob, subsets: Sequence[Subset]) -> dict[str, Any]:
    """[[datasets]] with [[datasets.subsets]]: one dataset for each size and batch size."""
    datasets: dict[tuple[Any, ...], dict[str, Any]] = {}
    for subset in subsets:
        size = (subset.width or job.dataset.width, subset.height or subset.width or job.dataset.height)
        batch = subset.batch_size or job.dataset.batch_size
        found = datasets.setdefault((size, batch), {"resolution": list(size), "batch_size": batch, "subsets": []})
        found["subsets"].append(subset_keys(subset, job))
    return {"datasets": list(datasets.values())} if datasets else {}


def subset_keys(subset: Subset, job: TrainJob) -> dict[str, Any]:
    plain = Subset("")
    masks = job.dataset.masks if subset.masks is None and not subset.class_pictures else subset.masks
    found: dict[str, Any] = {"conditioning_data_dir": masks} if masks else {}
    for name, (field, _) in SUBSET_FIELDS.items():
        value = getattr(subset, field)
        if value != getattr(plain, field) and value is not None:
            found[name] = value
    if subset.keeps_base:
        found["custom_attributes"] = {"diff_output_preservation": True}
    return found


def read_back(options: Mapping[str, Any], dataset: dict[str, Any], prompts: str) -> TrainJob:
    """The job that our own reader makes of options and dataset, without their files."""
    notes = Notes()
    given = {"seed": 0, **options, "sample_prompts": prompts}
    job = replace_by_name(TrainJob(), settings_of(given, notes))
    whole, subsets = translate_dataset(dataset, notes) if dataset else ({}, [])
    translated = settings_of({**given, **whole}, notes)
    wanted = {setting for name in whole for setting in OPTIONS[name].settings}
    data = to_json(replace_by_name(job, {name: translated[name] for name in wanted if name in translated}))
    data["dataset"]["subsets"] = subsets
    return from_json(TrainJob, data)


def unsaid(job: TrainJob, back: TrainJob) -> Iterator[str]:
    """What comes back with another value, in sentences."""
    mine, other = leaf_values(job), leaf_values(back)
    unknown: list[str] = []
    for s in describe(TrainJob):
        value = mine[s.name]
        if value == other[s.name] or s.name in QUIET or without_effect(s.name, job, other[s.name]):
            continue
        if s.name in SENTENCES:
            yield f"{s.declaration.label} ({s.name} = {value!r}): {SENTENCES[s.name]}"
        else:
            unknown.append(f"{s.name} = {value!r}")
    if unknown:
        yield f"sd-scripts has no option for: {'; '.join(unknown)}."


def without_effect(name: str, job: TrainJob, other: Any) -> bool:
    """Whether a setting that comes back otherwise changes nothing in this job."""
    if name == "optimizer_args":
        return set(job.optimization.optimizer_args) < set(other)
    return name == "rank_from_start" and not job.network.start_from


def with_rest(options: dict[str, Any], job: TrainJob, back: TrainJob) -> dict[str, Any]:
    """The options and, in a section of its own, the settings that would come back otherwise."""
    rest = difference(to_json(job), to_json(back))
    return {**options, SECTION: {KEY: json.dumps(rest, ensure_ascii=False)}} if rest else options


def difference(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The parts of `wanted` that are not so in `found`."""
    parts: dict[str, Any] = {}
    for name, value in wanted.items():
        if isinstance(value, dict):
            parts |= {name: inner} if (inner := difference(value, found[name])) else {}
        elif value != found[name]:
            parts[name] = value
    return parts
