"""The settings that are compared: our goals, and what guides and trainers for SD1.5 advise, one row each.

Rates are written as their sources give them. The demo base is five to ten times narrower than SD1.5, and the best rate
of Adam-like optimizers goes with one over the width (Yang et al. 2022, arXiv:2203.03466), so `RATE_FACTOR` multiplies
all of them, ours as well. Prodigy finds its own rate and gets 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lora_core.goals import Wish, settings_for

RATE_FACTOR = 6.0
COSTS = {"save_every_steps": 0, "preview_every_steps": 0, "judge_saves": False, "early_stop": 0}
KOHYA = {  # what sd-scripts does where nothing is said
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "constant",
    "warmup": 0.0,
    "min_snr_gamma": 0.0,
    "shuffle": False,
    "keep_tokens": 0,
    "caption_dropout": 0.0,
}
DROPPING = "ours + caption dropout"
RESTARTS = {"schedule": "cosine_with_restarts", "cycles": 3, "warmup": 0.05}
SNR = {"min_snr_gamma": 5.0}


@dataclass(frozen=True)
class Row:
    """One training. `values`: settings by name; `others`: whether ordinary portraits are class pictures."""

    name: str
    source: str
    values: dict[str, Any] = field(default_factory=dict)
    others: bool = False


def rows(goal: str, pictures: int) -> tuple[Row, ...]:
    """The rows of a goal, the ones that matter most first."""
    ours = settings_for(Wish(goal, pictures=pictures))
    return (*own_rows(goal, ours), *(practice(*row) for row in PRACTICE))


def own_rows(goal: str, ours: dict[str, Any]) -> list[Row]:
    """The goal's settings, and changed ones: of a character while a twentieth of the captions was left out."""
    start = ours if goal == "style" else {**ours, "caption_dropout": 0.05}
    title = "ours" if goal == "style" else DROPPING
    rate, text, conv = start["learning_rate"], start["text_encoder_lr"], start["conv_rank"]
    source = f"`--goal {goal}`, changed"
    small = {"conv_rank": 4, "conv_alpha": 4 * start["conv_alpha"] / conv} if conv else {}

    def changed(name: str, **values: Any) -> Row:
        return Row(f"{title}, {name}", source, {**start, **values})

    found = [
        changed("twice the rate", learning_rate=2 * rate, text_encoder_lr=2 * text),
        changed("half the rate", learning_rate=rate / 2, text_encoder_lr=text / 2),
        changed("no min-SNR", min_snr_gamma=0.0),
        changed("batch of 6", batch_size=6),
        changed("UNet only", train_text_encoder=False),
        changed("rank 4, same effective rate", rank=4, alpha=4 * start["alpha"] / start["rank"], **small),
        changed("Lion", optimizer="lion", learning_rate=rate / 5, text_encoder_lr=text / 5, weight_decay=0.3),
        changed("Adafactor", optimizer="adafactor", weight_decay=0.0, beta2=None),
    ]
    first = Row("ours", f"`--goal {goal}`", ours)
    if goal == "style":
        return [
            first,
            changed("no caption dropout", caption_dropout=0.0),
            *found,
            changed("no convolutions", conv_rank=0),
        ]
    others = Row(f"{title}, class pictures", f"`--goal {goal}` `--class-pictures`, changed", start, others=True)
    return [first, Row(title, source, start), *found, others]


def practice(name: str, source: str, values: dict[str, Any]) -> Row:
    return Row(name, source, {**KOHYA, **values})


def rated(rank: int, alpha: float, unet: float, text: float | None, batch: int, **more: Any) -> dict[str, Any]:
    """Rank, alpha, rates and batch; a text encoder's rate of None: not trained."""
    found = {"rank": rank, "alpha": float(alpha), "learning_rate": unet, "batch_size": batch, **more}
    return {**found, "train_text_encoder": False} if text is None else {**found, "text_encoder_lr": text}


CIVITAI = {**RESTARTS, **SNR, "noise_offset": 0.1, "shuffle": True, "keep_tokens": 1}
PRACTICE = (
    ("Civitai, anime", "Civitai's trainer", rated(16, 8, 5e-4, 1e-4, 6, **CIVITAI)),
    ("Prodigy", "hollowstrawberry's notebook",
     rated(16, 16, 1.0, 1.0, 2, optimizer="prodigy", optimizer_args=("d_coef = 2",), schedule="constant_with_warmup",
           warmup=0.05, shuffle=True, keep_tokens=1, **SNR)),
    ("LoraOpti", "kohya_ss preset", rated(64, 64, 1e-4, 5e-5, 3, noise_offset=0.05)),
    ("OneTrainer", "its SD1.5 preset", rated(16, 1, 3e-4, 3e-4, 4, warmup=0.1)),
    ("sd-scripts", "its documentation", rated(16, 1, 1e-4, 1e-5, 1)),
)  # fmt: skip
