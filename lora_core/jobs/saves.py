"""Settings of saves, previews, held-out measurements and what the file says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.jobs.choices import SAMPLERS
from lora_core.preview_prompt import prompt_faults
from lora_core.settings import setting


@dataclass(frozen=True)
class Saves:
    save_every_steps: int = setting(
        0, "Save every N steps", "0 = off. Each save has its own name.", min=0, max=1_000_000
    )
    save_every_epochs: int = setting(0, "Save every N epochs", "0 = off.", min=0, max=100_000)
    save_parts: int = setting(
        0, "Number of saves", "At least so many, spread over the epochs; 0 = off.", min=0, max=10_000, advanced=True
    )
    keep_last: int = setting(
        0,
        "Keep the last saves",
        "Older saves of this run are deleted; the finished LoRA stays. 0 = all are kept.",
        min=0,
        max=10_000,
        advanced=True,
    )
    judge_saves: bool = setting(
        False,
        "Recommend a save and its strength",
        "Each save is judged by pictures drawn with it and by the held-out loss; the best one becomes the LoRA, and "
        "the strength to use it at is written into it and for A1111.",
    )
    early_stop: int = setting(
        0,
        "Stop early",
        "End when so many saves in a row are no better than the best one, which is kept; 0 = off.",
        min=0,
        max=1000,
    )
    state_every_steps: int = setting(
        100, "Resumable state every N steps", "0 = only when stopped.", min=0, max=1_000_000
    )
    save_precision: str = setting("fp16", "Precision of the file", choices=("fp16", "bf16", "fp32"))
    preview_prompts: tuple[str, ...] = setting(
        (),
        "Preview prompts",
        "One picture each, fixed seed. Flags may follow: --n negative --w 512 --h 768 --d seed --s steps --l cfg.",
        widget="lines",
    )
    preview_every_steps: int = setting(0, "Previews every N steps", "0 = off.", min=0, max=1_000_000)
    preview_every_epochs: int = setting(0, "Previews every N epochs", "0 = off.", min=0, max=100_000, advanced=True)
    preview_first: bool = setting(False, "Previews before the first step", "What the base makes of them.")
    preview_negative: str = setting("", "Negative prompt of previews", "Of prompts without --n.", advanced=True)
    preview_sampler: str = setting("ddim", "Preview sampler", choices=SAMPLERS, advanced=True)
    preview_steps: int = setting(20, "Preview sampling steps", min=1, max=150, advanced=True)
    preview_cfg: float = setting(7.0, "Preview CFG scale", min=1, max=30, advanced=True)
    validate_every_steps: int = setting(50, "Held-out loss every N steps", "0 = off.", min=0, max=1_000_000)
    validate_every_epochs: int = setting(
        0, "Held-out loss every N epochs", "0 = off.", min=0, max=100_000, advanced=True
    )
    metadata: str = setting("full", "Metadata", "full, or minimal: only what hosts need.", choices=("full", "minimal"))
    comment: str = setting("", "Comment", "Stored in the file as ss_training_comment.")
    title: str = setting("", "Title", "Empty: the file's name.", advanced=True)
    author: str = setting("", "Author", "Stored in the file, as is what follows.", advanced=True)
    description: str = setting("", "Description", widget="text", advanced=True)
    license: str = setting("", "Licence", advanced=True)
    tags: str = setting("", "Tags of the file", "Separated by commas.", advanced=True)
    usage_hint: str = setting("", "Usage hint", advanced=True)
    trigger_phrase: str = setting("", "Trigger phrase", "Empty: the trigger word.", advanced=True)
    merged_from: str = setting("", "Merged from", "Models that the LoRA was made from.", advanced=True)
    thumbnail: str = setting(
        "", "Thumbnail", "A picture that is stored in the file, made small.", widget="file", advanced=True
    )

    def problems(self) -> list[str]:
        """Preview prompts that cannot be drawn, and an early stop without saves to compare."""
        found = [fault for line in self.preview_prompts for fault in prompt_faults(line)]
        if self.early_stop and not (self.save_every_steps or self.save_every_epochs or self.save_parts):
            found.append("To stop early (early_stop), saves are compared: set save_every_steps.")
        return found
