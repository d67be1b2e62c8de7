"""The demo's figures: what was measured, as numbers, as lines for a terminal and as rows for the page."""

from __future__ import annotations

from dataclasses import dataclass

BAR = 0.8


@dataclass(frozen=True)
class Share:
    """`hits` of `total` samples."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.hits} of {self.total}"


@dataclass(frozen=True)
class Measured:
    """The pictures in numbers. The changes are mean absolute pixel differences as shares of the full range.

    `with_lora` / `without_lora`: samples with the trigger that show all of the character's own features.
    `leaked`: samples of the same number without the trigger, with the LoRA at 1.0, that show them.
    `obeyed`: samples with trigger and LoRA whose background is the one that the prompt names.
    `change`: how far the LoRA moves a picture whose prompt lacks the trigger; `change_with_trigger`, `change_of_seed`:
    the same for prompts with it, and for another seed without any LoRA, as yardsticks.
    """

    with_lora: Share
    without_lora: Share
    leaked: Share
    obeyed: Share
    change: float
    change_with_trigger: float
    change_of_seed: float


@dataclass(frozen=True)
class Trained:
    """The training in numbers; times in seconds."""

    steps: int
    batch_size: int
    rank: int
    pictures: int
    others: int
    seconds_per_step: float
    seconds: float
    held_out_before: float
    held_out_after: float
    modules: int


@dataclass(frozen=True)
class FileFact:
    """A file's name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}, {self.size / 2**20:.2f} MiB, sha256 {self.sha256[:16]}"


@dataclass(frozen=True)
class Figures:
    """Everything that the demo found out."""

    trigger: str
    trained: Trained
    measured: Measured
    lora: FileFact
    base: FileFact
    seconds: float
    machine: str

    def passed(self) -> bool:
        """Whether the character appears in at least 80 % of the samples."""
        return self.measured.with_lora.value >= BAR

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of every figure, the most telling ones first."""
        t, m = self.trained, self.measured
        change = (t.held_out_after / t.held_out_before - 1) * 100 if t.held_out_before else 0.0
        return [
            ("Character seen at strength 1.0", f"{m.with_lora} samples ({m.with_lora.value:.0%}; bar {BAR:.0%})"),
            ("The same prompts without the LoRA", f"{m.without_lora} samples"),
            ("Prompts without the trigger, LoRA at 1.0", f"{m.leaked} samples show the character"),
            ("Background as the prompt says, with the LoRA", f"{m.obeyed} samples"),
            ("Change of pictures without the trigger", f"{m.change:.1%} of the range of a pixel"),
            ("  with the trigger", f"{m.change_with_trigger:.1%}"),
            ("  by another seed, no LoRA", f"{m.change_of_seed:.1%}"),
            ("Held-out loss", f"{t.held_out_before:.4f} -> {t.held_out_after:.4f} ({change:+.1f} %)"),
            (
                "Training",
                f"{t.steps} steps of {t.batch_size}, rank {t.rank}; pictures: {t.pictures} and {t.others} others",
            ),
            ("Seconds per step", f"{t.seconds_per_step:.3f}"),
            ("Time of the training", clock(t.seconds)),
            ("Time of the whole demo", clock(self.seconds)),
            ("LoRA", f"{self.lora} ({t.modules} modules)"),
            ("Base", str(self.base)),
            ("Machine", self.machine),
        ]

    def lines(self) -> list[str]:
        """The rows as aligned text."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {value}" for name, value in rows]


def clock(seconds: float) -> str:
    """Seconds as "42 s" or "3 min 07 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
