"""Jobs on LoRA files: merge, merge into a checkpoint, extract, resize, convert, repair, inspect, edit metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_core.jobs.generate import LoraUse
from lora_core.settings import problems, setting

DTYPES = ("fp16", "bf16", "fp32")
EXACT, SVD = "exact", "svd"
METHODS = ("ties", "dare_linear", "dare_ties", "magnitude_prune", "sce")
RULES = ("fixed", "sv_ratio", "sv_fro", "sv_cumulative", "error")
OUTPUT_HELP = "A .safetensors file; its folder must exist."


def output_setting(help: str = OUTPUT_HELP) -> str:
    return setting("", "Output file", help, widget="file")


def rank_setting(help: str = "The most that a module keeps; 0: as many as the rule wants.") -> int:
    return setting(0, "Rank", help, min=0, max=4096)


def conv_rank_setting() -> int:
    return setting(0, "Rank of 3x3 convolutions", "0: as the others.", min=0, max=4096)


def rule_setting(help: str = "") -> str:
    return setting("fixed", "Rank rule", help or RULE_HELP, choices=RULES)


def value_setting() -> float:
    return setting(0.0, "Value of the rank rule", min=0, max=1e9)


def dtype_setting() -> str:
    return setting("fp16", "Number format", "Sums are always made in fp32.", choices=DTYPES)


def overwrite_setting() -> bool:
    return setting(False, "Replace an existing file", advanced=True)


def base_setting(help: str = "Needed for DoRA, IA3 and unusual models only.") -> str:
    return setting("", "Base model", help, widget="checkpoint", advanced=True)


RULE_HELP = (
    "fixed: the rank; sv_ratio: singular values above the largest / value; sv_fro, sv_cumulative: that share of their "
    "norm or sum; error: the smallest rank whose relative error is at most the value."
)
BLOCKS_HELP = (
    "One line per LoRA: 25 or 19 numbers (IN.., M00, OUT..), one more in front for the text encoders, or NAME=WEIGHT "
    "pairs such as IN*=0.5,OUT03=0,TE=1,*attn2*=0.8; the last that fits counts."
)


@dataclass(frozen=True)
class MergeJob:
    """Several LoRAs into one: the exact weighted sum (ranks add), or its best approximation of a smaller rank."""

    loras: tuple[LoraUse, ...] = ()
    output: str = output_setting()
    method: str = setting(
        EXACT,
        "Method",
        "exact: the weighted sum, ranks add. svd: the sum at a smaller rank. The others: published methods, then svd.",
        choices=(EXACT, SVD, *METHODS),
    )
    rank: int = rank_setting()
    conv_rank: int = conv_rank_setting()
    rule: str = rule_setting()
    value: float = value_setting()
    density: float = setting(0.5, "Density", "Share of numbers kept (TIES, DARE, prune, SCE).", min=0.0, max=1.0)
    sign: str = setting("total", "Sign election", "TIES: by sum or by count.", choices=("total", "frequency"))
    seed: int = setting(0, "Seed", "Of DARE's random choice.", min=0, max=2**31)
    blocks: tuple[str, ...] = setting((), "Block weights", BLOCKS_HELP, widget="lines", advanced=True)
    base: str = base_setting()
    dtype: str = dtype_setting()
    title: str = setting("", "Title", "Empty: the file's name.", advanced=True)
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self) + output_problems(self.output) + rule_problems(self.rule, self.value)
        found += use_problems(self.loras, self.blocks)
        if self.method != EXACT and self.rule == "fixed" and not self.rank:
            found.append(f"Method {self.method} needs a rank, or a rank rule with a value.")
        return found


@dataclass(frozen=True)
class MergeIntoCheckpointJob:
    """LoRAs baked into a checkpoint, tensor by tensor; memory: the largest tensor and its change."""

    base: str = setting("", "Base model", "A .safetensors checkpoint.", widget="checkpoint")
    loras: tuple[LoraUse, ...] = ()
    output: str = output_setting()
    dtype: str = setting("same", "Number format", "same: each tensor as in the base.", choices=("same", *DTYPES))
    blocks: tuple[str, ...] = setting((), "Block weights", BLOCKS_HELP, widget="lines", advanced=True)
    title: str = setting("", "Title", "Empty: the file's name.", advanced=True)
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        named = [] if self.base else ["No base model is named: set base."]
        return problems(self) + named + output_problems(self.output) + use_problems(self.loras, self.blocks)


@dataclass(frozen=True)
class ExtractJob:
    """The difference of two checkpoints (or of two LoRAs) as a LoRA."""

    tuned: str = setting("", "Tuned model", "Checkpoint, or a LoRA.", widget="checkpoint")
    base: str = setting("", "Base model", "What the tuned one was made from; or a LoRA.", widget="checkpoint")
    output: str = output_setting()
    rank: int = rank_setting()
    conv_rank: int = conv_rank_setting()
    rule: str = rule_setting()
    value: float = value_setting()
    conv: bool = setting(False, "3x3 convolutions too", "LoCon.")
    text_encoders: bool = setting(True, "Text encoders")
    power: int = setting(2, "Power iterations", "Of the randomised SVD.", min=0, max=20, advanced=True)
    seed: int = setting(0, "Seed", min=0, max=2**31, advanced=True)
    dtype: str = dtype_setting()
    title: str = setting("", "Title", "Empty: the file's name.", advanced=True)
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self) + output_problems(self.output) + rule_problems(self.rule, self.value)
        found += [f"No {name} model is named: set {name}." for name in ("tuned", "base") if not getattr(self, name)]
        return found + ([] if self.rank or self.rule != "fixed" else ["Set a rank, or a rank rule with a value."])


@dataclass(frozen=True)
class ResizeJob:
    """A LoRA at a smaller rank, each module at its best approximation."""

    lora: str = setting("", "LoRA", widget="lora")
    output: str = output_setting()
    rank: int = rank_setting()
    conv_rank: int = conv_rank_setting()
    rule: str = rule_setting()
    value: float = value_setting()
    base: str = base_setting()
    dtype: str = setting("same", "Number format", "same: as in the file.", choices=("same", *DTYPES))
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self) + output_problems(self.output) + rule_problems(self.rule, self.value)
        found += [] if self.lora else ["No LoRA is named: set lora."]
        return found + ([] if self.rank or self.rule != "fixed" else ["Set a rank, or a rank rule with a value."])


def output_problems(output: str) -> list[str]:
    if not output:
        return ["No output file is named: set output."]
    if Path(output).suffix.lower() != ".safetensors":
        return [f"The output file must end in .safetensors, not {Path(output).name!r}."]
    return []


def rule_problems(rule: str, value: float) -> list[str]:
    """A dynamic rank rule needs a value in its range."""
    if rule == "sv_ratio" and value < 1:
        return [f"The rank rule sv_ratio needs a value of at least 1 (typical: 20), not {value:g}."]
    if rule in ("sv_fro", "sv_cumulative", "error") and not 0 < value <= 1:
        return [f"The rank rule {rule} needs a value between 0 and 1, not {value:g}."]
    return []


def use_problems(loras: tuple[LoraUse, ...], blocks: tuple[str, ...]) -> list[str]:
    found = [] if loras else ["No LoRA is named: give --lora FILE:STRENGTH, once for each."]
    if len(blocks) > len(loras):
        found.append(f"There are {len(blocks)} lines of block weights for {len(loras)} LoRAs.")
    return found
