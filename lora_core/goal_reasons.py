"""Why a training has the settings it has: each value with its reason, a sentence each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lora_core.jobs.optimization import SELF_TUNING

Values = Mapping[str, Any]


def explained(values: Values) -> list[str]:
    """What the settings (leaf settings of a TrainJob by name) mean and why they are so; nothing on what is off."""
    found = [reason(values) for reason in REASONS]
    return [sentence for sentence in found if sentence]


def scale(values: Values, part: str = "") -> float:
    """What a network multiplies its change by: alpha / rank, with rsLoRA alpha over the root of the rank.

    `part`: "conv_" for convolutions.
    """
    rank, alpha = values[f"{part}rank"], values[f"{part}alpha"]
    return alpha / (math.sqrt(rank) if values.get("rs_lora") else rank)


def effective_rate(values: Values) -> float:
    """learning_rate x alpha / rank: what compares between trainings of unlike rank and alpha."""
    return values["learning_rate"] * scale(values)


def length(values: Values) -> str:
    batch = values["batch_size"] * values["accumulation"]
    size = f"{values['width']} x {values['height']}"
    pictures = "1 picture" if batch == 1 else f"{batch} pictures"
    steps, minutes = values["steps"], values.get("time_budget")
    limit = f", fewer if they take more than {minutes:g} minutes" if minutes else ""
    if not steps:
        return f"{values['epochs']} times through all pictures in batches of {batch}, at {size} pixels{limit}."
    return f"{steps} steps of {pictures}, at {size} pixels{limit}: {steps * batch} looks at pictures in all."


def size(values: Values) -> str:
    why = "room for many details" if values["rank"] >= 32 else "enough for one subject, and a small file"
    return f"Rank {values['rank']}, alpha {values['alpha']:g}: {why}."


def rate(values: Values) -> str:
    if values.get("optimizer") in SELF_TUNING:
        return f"{values['optimizer'].capitalize()} finds the learning rate by itself."
    return (
        f"Learning rate {values['learning_rate']:g}, effective rate {effective_rate(values):.2g} (times alpha, by "
        "rank): the effective one decides how fast the weights move, whatever the rank."
    )


def schedule(values: Values) -> str:
    name, restarts = values["schedule"].replace("_", " "), values.get("cycles", 1)
    if values["schedule"] == "cosine_with_restarts":
        return f"Schedule {name}, {restarts} times: each fall of the rate ends in a save that has settled."
    return f"Schedule {name}: the rate falls, so that the last steps settle." if "cosine" in name else ""


def text_encoder(values: Values) -> str:
    if not values["train_text_encoder"]:
        return "Only the UNet is trained: the meaning of words stays as it is."
    own = values.get("text_encoder_lr")
    at = f" at {own:g}" if own is not None else ""
    return f"The text encoder learns the words too{at}: slower than the UNet, because it forgets other words easily."


def convolutions(values: Values) -> str:
    return f"Convolutions are trained too (rank {values['conv_rank']}): textures and lines live there." * bool(
        values.get("conv_rank")
    )


def weighting(values: Values) -> str:
    gamma = values.get("min_snr_gamma")
    return f"Min-SNR {gamma:g}: timesteps weigh alike, so that fewer steps do." if gamma else ""


def captions(values: Values) -> str:
    if not values.get("shuffle"):
        return ""
    kept = values.get("keep_tokens", 0)
    first = {0: "", 1: ", the first one stays in front"}.get(kept, f", the first {kept} stay in front")
    return f"Tags are shuffled{first}: no tag depends on its place."


def dropout(values: Values) -> str:
    share = values.get("caption_dropout")
    return f"{share:.0%} of the captions are left out: guidance keeps working." if share else ""


def mirrored(values: Values) -> str:
    return "Half of the pictures are mirrored: more variety, and a style has no sides." * bool(values["flip"])


def memory(values: Values) -> str:
    return "Gradient checkpointing saves memory and takes a third longer." * bool(values["gradient_checkpointing"])


def saves(values: Values) -> str:
    every = values.get("save_every_steps")
    return f"A save and previews every {every} steps: earlier ones are there to go back to." if every else ""


def judging(values: Values) -> str:
    patience = values.get("early_stop")
    if not patience and not values.get("judge_saves"):
        return ""
    end = f" {patience} saves that are no better end the training." if patience else ""
    return f"Saves are judged by pictures drawn with them: the best one becomes the LoRA, its strength is told.{end}"


REASONS: tuple[Callable[[Values], str], ...] = (
    length, size, rate, schedule, text_encoder, convolutions, weighting, captions, dropout, mirrored, memory, saves,
    judging,
)  # fmt: skip
