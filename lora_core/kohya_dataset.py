"""sd-scripts' dataset_config: [general], [[datasets]] and [[datasets.subsets]], the lower level wins."""

from __future__ import annotations

from typing import Any

from lora_core.kohya_options import OPTIONS
from lora_core.kohya_row import Notes, number, text, truth, whole

ELSEWHERE = "One value holds for the whole dataset: that of the first subset that names it."

DATASET_OPTIONS: dict[str, str] = {
    "batch_size": "train_batch_size",
    "resolution": "resolution",
    "enable_bucket": "enable_bucket",
    "min_bucket_reso": "min_bucket_reso",
    "max_bucket_reso": "max_bucket_reso",
    "bucket_reso_steps": "bucket_reso_steps",
    "bucket_no_upscale": "bucket_no_upscale",
    "resize_interpolation": "resize_interpolation",
    "validation_split": "validation_split",
    "validation_seed": "validation_seed",
}

SUBSET_FIELDS: dict[str, tuple[str, Any]] = {
    "image_dir": ("folder", text),
    "num_repeats": ("repeats", whole),
    "class_tokens": ("class_words", text),
    "keep_tokens": ("keep_tokens", whole),
    "shuffle_caption": ("shuffle", truth),
    "flip_aug": ("flip", truth),
    "caption_prefix": ("caption_prefix", text),
    "caption_suffix": ("caption_suffix", text),
    "caption_extension": ("caption_extension", text),
    "caption_dropout_rate": ("caption_dropout", number),
    "caption_tag_dropout_rate": ("tag_dropout", number),
    "alpha_mask": ("alpha_mask", truth),
    "conditioning_data_dir": ("masks", text),
    "is_reg": ("class_pictures", truth),
}

WHOLE_DATASET = (
    "caption_separator",
    "keep_tokens_separator",
    "secondary_separator",
    "enable_wildcard",
    "caption_dropout_every_n_epochs",
    "token_warmup_min",
    "token_warmup_step",
)

REFUSED: dict[str, str] = {
    "network_multiplier": "Not supported: the network always trains at full strength.",
    "custom_attributes": "Not supported yet: the subset is trained as the others.",
    "metadata_file": "Put the captions beside the pictures, as .txt or .json files or one metadata.jsonl.",
}


def translate_dataset(config: dict[str, Any], notes: Notes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trainer options for the whole dataset, and the subsets as JSON values for `Subset`."""
    general = dict(config.get("general", {}))
    options: dict[str, Any] = {}
    subsets: list[dict[str, Any]] = []
    for index, dataset in enumerate(config.get("datasets", [])):
        own = {**general, **{k: v for k, v in dataset.items() if k != "subsets"}}
        where = f"datasets[{index}]"
        for name, option in DATASET_OPTIONS.items():
            if name in own:
                first(options, option, own.pop(name), f"{where} {name}", notes)
        for number_, subset in enumerate(dataset.get("subsets", [])):
            place = f"{where}.subsets[{number_}]"
            translated = translate_subset({**own, **subset}, options, place, notes)
            add(subsets, translated, place, notes)
    if not subsets:
        notes.faults.append("The dataset config holds no subset with an image_dir that can be trained on.")
    return options, subsets


def first(options: dict[str, Any], name: str, value: Any, where: str, notes: Notes) -> None:
    """Set an option that has one value for all; note a later value that differs."""
    if options.setdefault(name, value) != value:
        notes.say(where, value, f"Not supported yet: {options[name]!r} of the first is used for all.", "not supported")


def add(subsets: list[dict[str, Any]], subset: dict[str, Any] | None, where: str, notes: Notes) -> None:
    """Append a subset, once for each folder."""
    if subset is None:
        return
    if any(subset["folder"] == other["folder"] for other in subsets):
        sentence = "This folder is there already; training at several resolutions is not supported yet."
        notes.say(f"{where} image_dir", subset["folder"], sentence, "not supported")
        return
    subsets.append(subset)


def translate_subset(own: dict[str, Any], options: dict[str, Any], where: str, notes: Notes) -> dict[str, Any] | None:
    """One subset; None when it cannot be trained on."""
    if not own.get("image_dir"):
        notes.say(where, own.get("image_dir"), "A subset without image_dir is left out.", "not supported")
        return None
    found: dict[str, Any] = {}
    for name, value in own.items():
        if name in SUBSET_FIELDS:
            field, conversion = SUBSET_FIELDS[name]
            found[field] = notes.convert(f"{where} {name}", value, conversion)
        elif name in WHOLE_DATASET:
            first(options, name, value, f"{where} {name}", notes)
        elif name in REFUSED:
            if value not in (False, None, "", 1.0, {}):
                notes.say(f"{where} {name}", value, REFUSED[name], "not supported")
        elif name in OPTIONS:
            if OPTIONS[name].used(value):
                notes.say(f"{where} {name}", value, OPTIONS[name].sentence or ELSEWHERE, OPTIONS[name].how)
        else:
            notes.say(f"{where} {name}", value, "This option is not known and is left out.", "unknown")
    return found
