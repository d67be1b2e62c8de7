"""How fast each part of the network learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from lora_core.architecture import Architecture
from lora_core.block_weights import parse_blocks
from lora_core.engine.network import Network
from lora_core.engine.new_words import WordBranch, words_of
from lora_core.jobs.train import TrainJob


def rates(job: TrainJob, architecture: Architecture) -> dict[str, float]:
    """Learning rate of each component that is trained."""
    o, n = job.optimization, job.network
    share = o.learning_rate if o.finds_rate else o.learning_rate / 5  # Prodigy has one rate for all
    first = share if o.text_encoder_lr is None else o.text_encoder_lr
    second = first if o.text_encoder_2_lr is None else o.text_encoder_2_lr
    found = {"unet": o.learning_rate if n.train_unet else 0.0}
    if n.train_text_encoder:
        for name, rate in zip(("text_encoder", "text_encoder_2"), (first, second)):
            found[name] = rate
    present = ("unet", "text_encoder", "text_encoder_2")[: 1 + len(architecture.text_encoders)]
    return {name: rate for name, rate in found.items() if rate > 0 and name in present}


def parameter_groups(job: TrainJob, architecture: Architecture, net: Network) -> list[dict[str, Any]]:
    """One group for each learning rate of a component: its own, times the block's share, times LoRA+'s ratio."""
    o = job.optimization
    blocks = parse_blocks(o.block_lr, architecture.family)
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for component, rate in rates(job, architecture).items():
        text = component != "unet" and o.lora_plus_text_ratio is not None
        ratio = o.lora_plus_text_ratio if text and o.lora_plus_text_ratio is not None else o.lora_plus_ratio
        for name, branch in net.branches.items():
            if name.split(".", 1)[0] == component and not isinstance(branch, WordBranch):
                share = rate * blocks.of(name)
                for part, parameter in branch.trained().items():
                    own = share * (ratio if part in branch.fast() else 1.0)
                    groups.setdefault((component, own), []).append(parameter)
    found: list[dict[str, Any]] = [{"params": params, "lr": rate} for (_, rate), params in groups.items()]
    words = [branch.vectors for branch in words_of(net).values()]
    if words:  # a decay would pull the vectors out of the vocabulary's place
        rate = o.learning_rate if o.finds_rate else o.token_lr
        found.append({"params": words, "lr": rate, "weight_decay": 0.0})
    return found
