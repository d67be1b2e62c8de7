"""Jobs on one LoRA file: convert, repair, inspect, edit metadata."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.jobs.tools import (
    DTYPES,
    base_setting,
    conv_rank_setting,
    output_problems,
    output_setting,
    overwrite_setting,
    rank_setting,
    rule_problems,
    rule_setting,
    value_setting,
)
from lora_core.settings import problems, setting

DIALECTS = ("kohya", "peft", "diffusers", "diffusers-old", "comfyui")
NO_LORA = "No LoRA is named: set lora."


@dataclass(frozen=True)
class ConvertJob:
    """A LoRA-like file in another dialect; LoHa, LoKr, full differences, IA3 and DoRA become LoRA by SVD."""

    lora: str = setting("", "LoRA", "Any dialect that inspect knows.", widget="lora")
    output: str = output_setting()
    to: str = setting("kohya", "Dialect", "kohya is what every host reads, OneTrainer too.", choices=DIALECTS)
    rank: int = rank_setting("Of modules that are no plain LoRA; 0: as the rank rule says.")
    conv_rank: int = conv_rank_setting()
    rule: str = rule_setting("For modules that are no plain LoRA. fixed without a rank: error 0.01.")
    value: float = value_setting()
    extras: str = setting(
        "keep",
        "Layers outside kohya's table",
        "Norms, biases, first and last convolutions: ComfyUI and A1111 read them, sd-scripts and diffusers do not.",
        choices=("keep", "drop"),
    )
    base: str = base_setting("Needed for DoRA and IA3, and for unusual models.")
    dtype: str = setting("same", "Number format", "same: as in the file.", choices=("same", *DTYPES))
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self) + output_problems(self.output) + rule_problems(self.rule, self.value)
        return found + ([] if self.lora else [NO_LORA])


@dataclass(frozen=True)
class RepairJob:
    """A kohya file with right hashes, alphas and metadata; stray keys taken out. Factors keep their bits."""

    lora: str = setting("", "LoRA", widget="lora")
    output: str = output_setting()
    base: str = base_setting("For unusual models only.")
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        return problems(self) + output_problems(self.output) + ([] if self.lora else [NO_LORA])


@dataclass(frozen=True)
class InspectJob:
    """What is in a LoRA: dialect, family, ranks, who applies it; with numbers also norms, faults and hashes."""

    lora: str = setting("", "LoRA", widget="lora")
    base: str = setting("", "Base model", "Empty: the released one of the LoRA's family.", widget="checkpoint")
    numbers: bool = setting(False, "Read the weights", "Norms, NaN, zero layers, hashes.")
    picture: str = setting("", "Heat map", "A .png file to draw |dW| by block and layer into.", widget="file")

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self) + ([] if self.lora else [NO_LORA])
        wrong = self.picture and not self.picture.lower().endswith(".png")
        return found + (["The heat map must be a .png file."] if wrong else [])


@dataclass(frozen=True)
class MetadataJob:
    """Edit what a LoRA says about itself; tensors and their hash stay as they are. Without changes: show it."""

    lora: str = setting("", "LoRA", widget="lora")
    output: str = setting("", "Output file", "Empty: the file itself is replaced, atomically.", widget="file")
    title: str | None = setting(None, "Title")
    description: str | None = setting(None, "Description", widget="text")
    author: str | None = setting(None, "Author")
    license: str | None = setting(None, "Licence")
    tags: str | None = setting(None, "Tags", "Separated by commas.")
    trigger: str | None = setting(None, "Trigger words")
    usage_hint: str | None = setting(None, "Usage hint")
    cover: str = setting("", "Preview picture", "Stored in the file, small.", widget="file")
    assign: tuple[str, ...] = setting((), "Other keys", "KEY=VALUE, one a line.", widget="lines", advanced=True)
    remove: tuple[str, ...] = setting((), "Keys to remove", "Patterns such as ss_tag_*.", widget="lines", advanced=True)
    sidecar: bool = setting(False, "A1111's sidecar", "Also write NAME.json (activation text, description).")
    weight: float = setting(0.0, "Preferred weight", "For the sidecar; 0: unset.", min=0, max=10, advanced=True)
    overwrite: bool = overwrite_setting()

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self) + ([] if self.lora else [NO_LORA])
        found += [f"{text!r} is not KEY=VALUE." for text in self.assign if not text.partition("=")[0].strip()]
        found += [f"{text!r} is not KEY=VALUE." for text in self.assign if "=" not in text]
        return found + (output_problems(self.output) if self.output else [])
