"""From a goal in words to the settings of a training: what people use who know them, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_core.errors import ConfigError
from lora_core.goal_reasons import effective_rate, explained, scale
from lora_core.jobs.optimization import SELF_TUNING
from lora_core.jobs.train import TrainJob
from lora_core.settings import describe, replace_by_name

__all__ = ["EFFORTS", "FAMILIES", "GOALS", "Wish", "effective_rate", "explained", "on_top", "settings_for", "wished"]

GOALS = ("character", "style", "object")
EFFORTS = ("quick", "normal", "thorough")
FAMILIES = ("sd1", "sd2", "sdxl")
_EFFORT = {"quick": 0.5, "normal": 1.0, "thorough": 2.0}
_SAVES = 8
_JUDGED_FROM = 200  # steps; shorter trainings are trials
_PATIENCE = 3

_COMMON = {"optimizer": "adamw", "warmup": 0.05, "min_snr_gamma": 5.0, "weight_decay": 0.1, "beta2": 0.99}
_SMALL = {"width": 512, "height": 512, "max_bucket": 960}
_LARGE = {"width": 1024, "height": 1024, "max_bucket": 2048, "min_bucket": 512}
_CHARACTER = {
    "shuffle": True,
    "keep_tokens": 1,
    "caption_dropout": 0.0,
    "schedule": "cosine_with_restarts",
    "cycles": 3,
}
_STYLE = {"shuffle": True, "keep_tokens": 0, "caption_dropout": 0.1, "schedule": "cosine", "flip": True, "cycles": 1}
_OBJECT = {"shuffle": True, "keep_tokens": 1, "caption_dropout": 0.0, "schedule": "cosine", "cycles": 1}
_TABLE: dict[tuple[str, str], tuple[dict[str, Any], int]] = {
    ("character", "small"): (
        {"rank": 16, "alpha": 8.0, "learning_rate": 5e-4, "text_encoder_lr": 1e-4, "batch_size": 2}, 3600
    ),
    ("object", "small"): (
        {"rank": 32, "alpha": 16.0, "learning_rate": 2e-4, "text_encoder_lr": 2e-5, "batch_size": 2}, 3500
    ),
    ("style", "small"): (
        {"rank": 32, "alpha": 16.0, "conv_rank": 16, "conv_alpha": 8.0, "learning_rate": 2e-4, "text_encoder_lr": 2e-5,
         "batch_size": 4}, 4500
    ),
    ("character", "large"): (
        {"rank": 16, "alpha": 8.0, "learning_rate": 3e-4, "text_encoder_lr": 3e-5, "batch_size": 4}, 2000
    ),
    ("object", "large"): (
        {"rank": 16, "alpha": 8.0, "learning_rate": 3e-4, "text_encoder_lr": 3e-5, "batch_size": 4}, 2000
    ),
    ("style", "large"): (
        {"rank": 32, "alpha": 16.0, "conv_rank": 16, "conv_alpha": 8.0, "learning_rate": 1e-4,
         "train_text_encoder": False, "batch_size": 4}, 8000
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What a person wants. `pictures`: how many there are; `low_memory`: slower, but fits a small card."""

    goal: str = "character"
    effort: str = "normal"
    family: str = "sd1"
    pictures: int = 0
    low_memory: bool = False

    def problems(self) -> list[str]:
        named = (("goal", self.goal, GOALS), ("effort", self.effort, EFFORTS), ("family", self.family, FAMILIES))
        return [
            f"The {name} is {value!r}; choose one of: {', '.join(c)}." for name, value, c in named if value not in c
        ]


def settings_for(wish: Wish, steps: int | None = None) -> dict[str, Any]:
    """The leaf settings of a TrainJob that the wish decides, by name; `steps` overrides its length. Raises ConfigError.

    The table follows presets in wide use (Civitai's trainers, hollowstrawberry's notebook, sd-scripts' documentation):
    their ranks and rates, and their number of pictures seen, so that the steps follow from the batch size.
    """
    if wish.problems():
        raise ConfigError(wish.problems())
    size = "large" if wish.family == "sdxl" else "small"
    own, views = _TABLE[wish.goal, size]
    by_goal = {"character": _CHARACTER, "style": _STYLE, "object": _OBJECT}[wish.goal]
    chosen = {**_reset(), **_COMMON, **(_LARGE if size == "large" else _SMALL), **by_goal, **own}
    if wish.low_memory:
        chosen |= {"accumulation": chosen["batch_size"], "batch_size": 1, "gradient_checkpointing": True}
    per_step = chosen["batch_size"] * chosen["accumulation"]
    by_views = max(50, round(views * _EFFORT[wish.effort] * _share(wish.pictures) / per_step / 10) * 10)
    chosen["steps"] = steps or by_views
    chosen["save_every_steps"] = max(25, round(chosen["steps"] / _SAVES))
    chosen["preview_every_steps"] = chosen["save_every_steps"]
    if chosen["steps"] >= _JUDGED_FROM:
        chosen |= {"judge_saves": True, "early_stop": _PATIENCE}
    return chosen


def _share(pictures: int) -> float:
    """Fewer than ten pictures are learned by heart sooner; many bear more steps."""
    return 1.0 if not pictures else min(2.0, max(0.5, (pictures / 20) ** 0.5))


def _reset() -> dict[str, Any]:
    """The defaults of everything that some wish sets, so that one wish leaves nothing behind of another."""
    named = {name for values in (_COMMON, _SMALL, _LARGE, _CHARACTER, _STYLE, _OBJECT) for name in values}
    named |= {name for values, _ in _TABLE.values() for name in values}
    named |= {"accumulation", "gradient_checkpointing", "judge_saves", "early_stop"}
    return {s.name: s.default for s in describe(TrainJob) if s.name in named}


def wished(job: TrainJob, wish: Wish) -> TrainJob:
    """The job with the wish's settings; its base, pictures, trigger and names stay. Raises ConfigError."""
    return replace_by_name(job, settings_for(wish))


def on_top(values: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings with a person's changes, and a sentence ("" mostly).

    Where the changes are of rank or alpha and not of the learning rate, the effective rate (learning_rate x alpha /
    rank, also of convolutions) stays what it was.
    """
    merged = {**values, **changes}
    sized = any(merged.get(name) != values.get(name) for name in ("rank", "alpha", "rs_lora"))
    if merged.get("optimizer") in SELF_TUNING or "learning_rate" in changes or not sized:
        return merged, ""
    factor = scale(values) / scale(merged)
    for name in ("learning_rate", "text_encoder_lr", "text_encoder_2_lr"):
        if name not in changes and merged.get(name):
            merged[name] = _rounded(merged[name] * factor)
    if merged.get("conv_rank") and values.get("conv_rank") and "conv_alpha" not in changes:
        merged["conv_alpha"] *= scale(values, "conv_") / (scale(merged, "conv_") * factor)
    sentence = (
        f"The learning rate is {merged['learning_rate']:g} instead of {values['learning_rate']:g}, so that the "
        f"effective rate (times alpha, by rank) stays {effective_rate(values):.2g}."
    )
    return merged, sentence


def _rounded(rate: float) -> float:
    return float(f"{rate:.6g}")
