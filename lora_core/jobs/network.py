"""The trained network: its algorithm, sizes, places and start."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.settings import setting

ALGORITHMS = ("lora", "dora", "loha", "lokr", "ia3", "oft")
FACTORED = ("lora", "dora")


@dataclass(frozen=True)
class Network:
    algorithm: str = setting(
        "lora",
        "Algorithm",
        "lora is read by every program. dora: LoRA with the weights' lengths apart. loha, lokr: products of small "
        "matrices. ia3: one factor per channel (tiny). oft: rotations; rank is the size of a block.",
        choices=ALGORITHMS,
    )
    rank: int = setting(16, "Rank", "Size of the LoRA (kohya: network_dim).", min=1, max=1024)
    alpha: float = setting(8.0, "Alpha", "The LoRA is scaled by alpha / rank.", min=0.0001, max=1024)
    conv_rank: int = setting(
        0, "Convolution rank", "Rank for 3x3 convolutions (LoCon); 0 leaves them out.", min=0, max=1024
    )
    conv_alpha: float = setting(1.0, "Convolution alpha", "Alpha for 3x3 convolutions.", min=0.0001, max=1024)
    rs_lora: bool = setting(
        False,
        "Rank-stabilised scale",
        "Scale by alpha / root of the rank (rsLoRA); the file's alpha says so to every program.",
        advanced=True,
    )
    initialisation: str = setting(
        "zero",
        "Start values",
        "pissa: start from the base's largest singular directions (lora only); the file fits the ordinary base.",
        choices=("zero", "pissa"),
        advanced=True,
    )
    lokr_factor: int = setting(
        -1,
        "LoKr factor",
        "Largest size of the first matrix of LoKr; -1: as square as possible.",
        min=-1,
        max=1024,
        advanced=True,
    )
    lokr_both: bool = setting(
        False, "LoKr: factor both", "Make a low-rank product of LoKr's first matrix too.", advanced=True
    )
    dropout: float = setting(
        0.0,
        "Network dropout",
        "Chance to drop each number between down and up (lora, dora).",
        min=0,
        max=0.99,
        advanced=True,
    )
    rank_dropout: float = setting(
        0.0,
        "Rank dropout",
        "Chance to drop each rank for a whole picture (lora, dora).",
        min=0,
        max=0.99,
        advanced=True,
    )
    module_dropout: float = setting(
        0.0, "Module dropout", "Chance to leave each module out of a step.", min=0, max=0.99, advanced=True
    )
    max_norm: float = setting(
        0.0,
        "Largest norm",
        "Scale a module down when its change is longer than this (kohya: scale_weight_norms); 0 = off.",
        min=0,
        max=1000,
        advanced=True,
    )
    train_unet: bool = setting(True, "Train the UNet")
    train_text_encoder: bool = setting(True, "Train the text encoder", "SDXL: both text encoders.")
    include: str = setting(
        "",
        "Only these modules",
        "Patterns separated by commas: blocks (IN*, M00, OUT0?, TE) or names (*attn2*). Empty: all.",
        advanced=True,
    )
    exclude: str = setting("", "Without these modules", "Patterns as above; they win.", advanced=True)
    block_rank: str = setting(
        "",
        "Ranks of blocks",
        "One number per block (25; SDXL 19, 21 or 23) or IN*=8, OUT03=32, *attn2*=4; 0 leaves a block out.",
        advanced=True,
    )
    block_alpha: str = setting("", "Alphas of blocks", "As above.", advanced=True)
    block_conv_rank: str = setting("", "Convolution ranks of blocks", "As above, for 3x3 convolutions.", advanced=True)
    block_conv_alpha: str = setting("", "Convolution alphas of blocks", "As above.", advanced=True)
    token_vectors: int = setting(
        0,
        "Vectors of the trigger",
        "Train the trigger word itself as this many new tokens (textual inversion, 0 = off); they go into the LoRA "
        "file and into an embedding file. With neither UNet nor text encoder trained: the embedding alone.",
        min=0,
        max=75,
        advanced=True,
    )
    token_start: str = setting(
        "", "Words to start from", "What the new tokens mean at first; empty: as the trigger is spelled.", advanced=True
    )
    start_from: str = setting(
        "", "Start from LoRA", "Continue from this LoRA file, of any program's naming.", widget="lora"
    )
    rank_from_start: bool = setting(
        True,
        "Sizes of that LoRA",
        "Take ranks, alphas and modules from the LoRA that training starts from; off: those above, by SVD or padding.",
        advanced=True,
    )
    base_loras: tuple[str, ...] = setting(
        (),
        "LoRAs in the base",
        "Merged into the base in memory before training, one a line: FILE or FILE = STRENGTH.",
        widget="lines",
        advanced=True,
    )

    def problems(self) -> list[str]:
        """Settings that do not go together."""
        found: list[str] = []
        dropping = [n for n in ("dropout", "rank_dropout") if getattr(self, n)]
        if self.algorithm not in FACTORED and dropping:
            found.append(f"{' and '.join(dropping)} belong to lora and dora; {self.algorithm} has module_dropout.")
        if self.initialisation == "pissa":
            found += self._pissa_problems()
        if self.algorithm in ("ia3", "oft") and self.max_norm:
            found.append(f"max_norm limits changes that are added; {self.algorithm} multiplies. Set it to 0.")
        if self.algorithm in ("ia3", "oft") and self.rs_lora:
            found.append(f"rs_lora scales by the rank, which {self.algorithm} does not do. Switch it off.")
        return found

    def _pissa_problems(self) -> list[str]:
        others = ("dropout", "rank_dropout", "module_dropout", "max_norm", "start_from")
        used = [name for name in others if getattr(self, name)]
        found = [f"pissa does not go together with {name}: its start would not cancel out." for name in used]
        if self.algorithm != "lora":
            found.append(f"pissa is a start of lora, not of {self.algorithm}.")
        return found
