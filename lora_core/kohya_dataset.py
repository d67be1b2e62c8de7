"""sd-scripts' dataset_config: [general], [[datasets]] and [[datasets.subsets]], the lower level wins."""

from __future__ import annotations

from typing import Any

from lora_core.kohya_options import OPTIONS
from lora_core.kohya_row import Notes, number, text, truth, whole
from lora_core.kohya_rules import resize_filter, size_of

ELSEWHERE = "One value holds for the whole dataset: that of the first subset that names it."

DATASET_OPTIONS: dict[str, str] = {
    "batch_size": "train_batch_size",
    "resolution": "resolution",
    "enable_bucket": "enable_bucket",
    "min_bucket_reso": "min_bucket_reso",
    "max_bucket_reso": "max_bucket_reso",
    "bucket_reso_steps": "bucket_reso_steps",
    "bucket_no_upscale": "bucket_no_upscale",
    "validation_split": "validation_split",
    "validation_seed": "validation_seed",
}

PRESERVATION = "diff_output_preservation"


def face_text(value: Any) -> str:
    """ "2.0,4.0" of a text or a list."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else text(value)


def filter_name(value: Any) -> str:
    """Our name of a resize filter."""
    return resize_filter(value)


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
    "color_aug": ("color_shift", truth),
    "random_crop": ("random_crop", truth),
    "face_crop_aug_range": ("face_crop", face_text),
    "resize_interpolation": ("resize_filter", filter_name),
    "metadata_file": ("metadata_file", text),
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
    "custom_attributes": "Only diff_output_preservation is known; what else stands there is left out.",
}


def translate_dataset(config: dict[str, Any], notes: Notes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trainer options for the whole dataset, and the subsets as JSON values for `Subset`."""
    general = dict(config.get("general", {}))
    options: dict[str, Any] = {}
    subsets: list[dict[str, Any]] = []
    for index, dataset in enumerate(config.get("datasets", [])):
        own = {**general, **{k: v for k, v in dataset.items() if k != "subsets"}}
        where = f"datasets[{index}]"
        special = own_sizes(own, options, where, notes) if index else {}
        for name, option in DATASET_OPTIONS.items():
            if name in own:
                first(options, option, own.pop(name), f"{where} {name}", notes)
        for number_, subset in enumerate(dataset.get("subsets", [])):
            place = f"{where}.subsets[{number_}]"
            translated = translate_subset({**own, **subset}, options, place, notes)
            add(subsets, None if translated is None else translated | special, place, notes)
    if not subsets:
        notes.faults.append("The dataset config holds no subset with an image_dir that can be trained on.")
    return options, subsets


def own_sizes(own: dict[str, Any], options: dict[str, Any], where: str, notes: Notes) -> dict[str, Any]:
    """Size and batch size of a dataset behind the first, where they are others; taken out of `own`."""
    found: dict[str, Any] = {}
    if "resolution" in own and own["resolution"] != options.setdefault("resolution", own["resolution"]):
        sides = size_of(own.pop("resolution"), notes)
        found |= dict(zip(("width", "height"), sides)) if sides else {}
    if "batch_size" in own and own["batch_size"] != options.setdefault("train_batch_size", own["batch_size"]):
        found["batch_size"] = notes.convert(f"{where} batch_size", own.pop("batch_size"), whole)
    return found


def first(options: dict[str, Any], name: str, value: Any, where: str, notes: Notes) -> None:
    """Set an option that has one value for all; note a later value that differs."""
    if options.setdefault(name, value) != value:
        notes.say(where, value, f"Not supported: {options[name]!r} of the first is used for all.", "not supported")


def add(subsets: list[dict[str, Any]], subset: dict[str, Any] | None, where: str, notes: Notes) -> None:
    """Append a subset, once for each folder and size."""
    if subset is None:
        return
    same = ("folder", "metadata_file", "width", "height")
    if any(all(subset.get(name) == other.get(name) for name in same) for other in subsets):
        sentence = "This folder is there already at this size and counts once."
        notes.say(f"{where} image_dir", subset["folder"], sentence, "not supported")
        return
    subsets.append(subset)


def translate_subset(own: dict[str, Any], options: dict[str, Any], where: str, notes: Notes) -> dict[str, Any] | None:
    """One subset; None when it cannot be trained on."""
    if not own.get("image_dir") and not own.get("metadata_file"):
        notes.say(where, own.get("image_dir"), "A subset without image_dir is left out.", "not supported")
        return None
    found: dict[str, Any] = {"folder": ""}
    for name, value in own.items():
        if name in SUBSET_FIELDS:
            field, conversion = SUBSET_FIELDS[name]
            found[field] = notes.convert(f"{where} {name}", value, conversion)
        elif name in WHOLE_DATASET:
            first(options, name, value, f"{where} {name}", notes)
        elif name == "custom_attributes" and isinstance(value, dict) and set(value) == {PRESERVATION}:
            found["keeps_base"] = notes.convert(f"{where} {PRESERVATION}", value[PRESERVATION], truth)
        elif name in REFUSED:
            if value not in (False, None, "", 1.0, {}):
                notes.say(f"{where} {name}", value, REFUSED[name], "not supported")
        elif name in OPTIONS:
            if OPTIONS[name].used(value):
                notes.say(f"{where} {name}", value, OPTIONS[name].sentence or ELSEWHERE, OPTIONS[name].how)
        else:
            notes.say(f"{where} {name}", value, "This option is not known and is left out.", "unknown")
    return found
