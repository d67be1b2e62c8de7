"""Optimizer, learning rates and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.settings import setting

OPTIMIZERS = (
    *("adamw", "adam", "nadam", "radam", "adamax", "rmsprop", "adagrad", "sgd", "adafactor"),
    *("adamw8bit", "pagedadamw", "pagedadamw8bit", "pagedadamw32bit", "lion8bit", "pagedlion8bit", "sgd8bit"),
    *("lion", "prodigy", "adamwschedulefree", "radamschedulefree", "sgdschedulefree"),
    *("dadaptadam", "dadaptadampreprint", "dadaptadagrad", "dadaptadan", "dadaptadanip", "dadaptlion", "dadaptsgd"),
    *("came", "ademamix", "adan", "stableadamw"),
)
SELF_TUNING = tuple(name for name in OPTIMIZERS if name.startswith(("prodigy", "dadapt")))
SCHEDULES = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "piecewise_constant",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
    "reduce_lr_on_plateau",
)


@dataclass(frozen=True)
class Optimization:
    optimizer: str = setting(
        "adamw",
        "Optimizer",
        "prodigy and dadapt... find their rate themselves: set the learning rate to 1.",
        choices=OPTIMIZERS,
    )
    optimizer_class: str = setting(
        "",
        "Optimizer class",
        "Another one by its full name, such as torch.optim.ASGD or pytorch_optimizer.Ranger21.",
        advanced=True,
    )
    optimizer_args: tuple[str, ...] = setting(
        (), "Optimizer arguments", "One a line: NAME = VALUE, such as d_coef = 2.", widget="lines", advanced=True
    )
    learning_rate: float = setting(1e-4, "Learning rate", "For the UNet's LoRA.", min=0, max=10)
    text_encoder_lr: float | None = setting(
        None, "Text encoder learning rate", "Empty: a fifth of the learning rate. 0: not trained.", min=0, max=10
    )
    text_encoder_2_lr: float | None = setting(
        None, "Second text encoder learning rate", "SDXL only. Empty: as the first.", min=0, max=10
    )
    token_lr: float = setting(
        1e-3, "Learning rate of the trigger's vectors", "See token_vectors.", min=0, max=10, advanced=True
    )
    block_lr: str = setting(
        "",
        "Learning rates of blocks",
        "Shares of the learning rate: one number per block (25; SDXL 19 or 21) or IN*=0.5, OUT03=2; 0: not trained.",
        advanced=True,
    )
    lora_plus_ratio: float = setting(
        1.0, "LoRA+ ratio", "The up matrices learn this many times faster; 16 is usual.", min=0, max=1000, advanced=True
    )
    lora_plus_text_ratio: float | None = setting(
        None, "LoRA+ ratio of text encoders", "Empty: as above.", min=0, max=1000, advanced=True
    )
    schedule: str = setting("cosine", "Learning rate schedule", choices=SCHEDULES)
    schedule_class: str = setting(
        "", "Schedule class", "Any schedule of torch by name, such as CosineAnnealingWarmRestarts.", advanced=True
    )
    schedule_args: tuple[str, ...] = setting(
        (), "Schedule arguments", "One a line: NAME = VALUE, such as T_0 = 100.", widget="lines", advanced=True
    )
    warmup: float = setting(0.05, "Warm-up", "Below 1: share of all steps; from 1: steps.", min=0, max=100000)
    cycles: int = setting(1, "Restarts", "Cycles of cosine_with_restarts.", min=1, max=100, advanced=True)
    power: float = setting(1.0, "Power", "Exponent of the polynomial schedule.", min=0.01, max=10, advanced=True)
    min_lr_ratio: float = setting(
        0.0,
        "Least rate",
        "Lowest rate of cosine_with_min_lr and warmup_stable_decay, as a share.",
        min=0,
        max=1,
        advanced=True,
    )
    decay_steps: float = setting(
        0.0,
        "Decay",
        "Last steps of warmup_stable_decay, a share below 1; 0: a fifth.",
        min=0,
        max=1_000_000,
        advanced=True,
    )
    weight_decay: float | None = setting(
        0.01, "Weight decay", "Empty: the optimizer's own.", min=0, max=10, advanced=True
    )
    beta1: float | None = setting(
        None, "Beta 1", "Empty: the optimizer's own (mostly 0.9).", min=0, max=0.99999, advanced=True
    )
    beta2: float | None = setting(
        None, "Beta 2", "Empty: the optimizer's own (mostly 0.999).", min=0, max=0.999999, advanced=True
    )
    max_grad_norm: float = setting(1.0, "Gradient clipping", "Largest norm of the gradient; 0 = off.", min=0, max=1000)
    accumulation: int = setting(1, "Gradient accumulation", "Forward passes per optimizer step.", min=1, max=1024)
    ema: float = setting(
        0.0,
        "Averaging (EMA)",
        "Save the moving average of the weights, with this share kept at each step; 0 = off, 0.99 to 0.999 is usual.",
        min=0,
        max=0.99999,
        advanced=True,
    )

    def problems(self) -> list[str]:
        """Settings that do not go together."""
        found: list[str] = []
        if self.ema and "schedulefree" in (self.optimizer_class or self.optimizer).lower().replace("_", ""):
            found.append("Schedule-free optimizers average the weights themselves: set ema to 0.")
        if self.finds_rate and (self.block_lr or {self.lora_plus_ratio, self.lora_plus_text_ratio} - {1.0, None}):
            found.append(f"{self.optimizer} takes one learning rate: leave block_lr empty and the LoRA+ ratios at 1.")
        for name in ("optimizer_args", "schedule_args"):
            bad = [line for line in getattr(self, name) if line.strip() and "=" not in line]
            found += [f"{name}: {line!r} is not of the form NAME = VALUE." for line in bad]
        return found

    @property
    def finds_rate(self) -> bool:
        """Whether the optimizer finds the learning rate itself (Prodigy, D-Adaptation)."""
        return not self.optimizer_class and self.optimizer in SELF_TUNING
