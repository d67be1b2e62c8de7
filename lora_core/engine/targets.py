"""Which modules are trained, and with what rank and alpha."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lora_core.block_weights import BlockWeights, fits, parse_blocks
from lora_core.engine.branch import Size
from lora_core.errors import ConfigError
from lora_core.jobs.train import TrainJob
from lora_core.keys import ModuleKey, lora_targets
from lora_core.shapes import Architecture

IA3_ON_INPUT = (".ff.net.2", ".mlp.fc2")
IA3_ON_OUTPUT = (".to_k", ".to_v", ".k_proj", ".v_proj")


def module_sizes(job: TrainJob, architecture: Architecture, trained: Iterable[str]) -> dict[str, Size]:
    """The size of every module that gets a branch, by canonical name.

    kohya's rule: 3x3 convolutions take conv_rank, everything else rank; blocks may have their own.
    Raises ConfigError when a pattern fits no module, or nothing is left.
    """
    n, parts = job.network, set(trained)
    targets = lora_targets(architecture, conv=n.conv_rank > 0 or bool(n.block_conv_rank))
    sizes = _Sizes(job, architecture.family)
    found = {t.canonical: sizes.of(t) for t in targets if t.component in parts and sizes.chosen(t.canonical)}
    kept = {name: size for name, size in found.items() if size is not None}
    if not kept:
        raise ConfigError("No module is left to train: see include, exclude, block_rank and block_lr.")
    return kept


def patterns(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())


class _Sizes:
    def __init__(self, job: TrainJob, family: str) -> None:
        n = job.network
        self.settings, self.family = n, family
        self.linear = (parse_blocks(n.block_rank, family), parse_blocks(n.block_alpha, family))
        self.conv = (parse_blocks(n.block_conv_rank, family), parse_blocks(n.block_conv_alpha, family))
        self.rates = parse_blocks(job.optimization.block_lr, family)
        self.include, self.exclude = patterns(n.include), patterns(n.exclude)

    def chosen(self, canonical: str) -> bool:
        if self.settings.algorithm == "ia3" and not canonical.endswith(IA3_ON_INPUT + IA3_ON_OUTPUT):
            return False
        if self.include and not any(fits(canonical, p, self.family) for p in self.include):
            return False
        return not any(fits(canonical, p, self.family) for p in self.exclude) and self.rates.of(canonical) != 0

    def of(self, target: ModuleKey) -> Size | None:
        """None for a rank of 0."""
        n = self.settings
        conv = target.is_conv3x3
        ranks, alphas = self.conv if conv else self.linear
        rank = _number(ranks, target.canonical, n.conv_rank if conv else n.rank)
        alpha = _number(alphas, target.canonical, n.conv_alpha if conv else n.alpha)
        if rank < 1:
            return None
        if alpha <= 0:
            raise ConfigError(f"The alpha of {target.canonical} is {alpha:g}; it must be above 0 (block_alpha).")
        return Size(round(rank), alpha * (math.sqrt(rank) if n.rs_lora else 1.0))


def _number(blocks: BlockWeights, canonical: str, default: float) -> float:
    found = blocks.named(canonical)
    return default if found is None else found
