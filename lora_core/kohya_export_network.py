"""Network, optimizer, rates and schedule of a job in the words of sd-scripts and LyCORIS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_core.jobs.train import Network, TrainJob
from lora_core.kohya_network import LYCORIS

CLASSES = {
    **{"adamw": "AdamW", "adam": "torch.optim.Adam", "nadam": "torch.optim.NAdam", "radam": "torch.optim.RAdam"},
    **{"adamax": "torch.optim.Adamax", "rmsprop": "torch.optim.RMSprop", "adagrad": "torch.optim.Adagrad"},
    **{"sgd": "SGDNesterov", "sgd8bit": "SGDNesterov8bit", "adafactor": "AdaFactor", "adamw8bit": "AdamW8bit"},
    **{"pagedadamw": "PagedAdamW", "pagedadamw8bit": "PagedAdamW8bit", "pagedadamw32bit": "PagedAdamW32bit"},
    **{"lion": "Lion", "lion8bit": "Lion8bit", "pagedlion8bit": "PagedLion8bit", "prodigy": "Prodigy"},
    **{"adamwschedulefree": "AdamWScheduleFree", "radamschedulefree": "RAdamScheduleFree"},
    **{"sgdschedulefree": "SGDScheduleFree", "dadaptadam": "DAdaptAdam", "dadaptadampreprint": "DAdaptAdamPreprint"},
    **{"dadaptadagrad": "DAdaptAdaGrad", "dadaptadan": "DAdaptAdan", "dadaptadanip": "DAdaptAdanIP"},
    **{"dadaptlion": "DAdaptLion", "dadaptsgd": "DAdaptSGD", "came": "pytorch_optimizer.CAME"},
    **{"ademamix": "pytorch_optimizer.AdEMAMix", "adan": "pytorch_optimizer.Adan"},
    **{"stableadamw": "pytorch_optimizer.StableAdamW"},
}
ALGORITHMS = {"lora": "locon", "dora": "locon", "oft": "diag-oft"}
RATIOS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")


def network(job: TrainJob) -> dict[str, Any]:
    """Plain LoRAs are sd-scripts' own, everything else is LyCORIS'."""
    n = job.network
    lycoris = n.algorithm != "lora" or n.rs_lora
    merged = [file_and_strength(line) for line in n.base_loras]
    return {
        "network_module": LYCORIS if lycoris else "networks.lora",
        "network_dim": n.rank,
        "network_alpha": n.alpha,
        "network_dropout": n.dropout or None,
        "network_args": [f"{key}={value}" for key, value in arguments(job, lycoris)],
        "network_weights": n.start_from,
        "dim_from_weights": bool(n.start_from) and n.rank_from_start,
        "base_weights": [file for file, _ in merged],
        "base_weights_multiplier": [strength for _, strength in merged],
    }


def file_and_strength(line: str) -> tuple[str, float]:
    """ "FILE = 0.5"; a line without a number is all file."""
    file, _, number = line.rpartition("=")
    try:
        return file.strip(), float(number)
    except ValueError:
        return line.strip(), 1.0


def arguments(job: TrainJob, lycoris: bool) -> Iterator[tuple[str, Any]]:
    n, o = job.network, job.optimization
    if lycoris:
        yield "algo", ALGORITHMS.get(n.algorithm, n.algorithm)
    if lycoris or n.conv_rank:
        yield from (("conv_dim", n.conv_rank), ("conv_alpha", n.conv_alpha))
    flags = {"dora_wd": n.algorithm == "dora", "rs_lora": n.rs_lora, "decompose_both": n.lokr_both}
    yield from ((name, True) for name, wanted in flags.items() if wanted)
    if n.algorithm == "lokr":
        yield "factor", n.lokr_factor
    yield from ((name, getattr(n, name)) for name in ("rank_dropout", "module_dropout") if getattr(n, name))
    yield from blocks(n)
    both, text = o.lora_plus_ratio, o.lora_plus_text_ratio
    if both != 1 or text is not None:
        yield RATIOS[0] if text is None else RATIOS[1], both
    if text is not None:
        yield RATIOS[2], text
    yield from shares(o.block_lr)


def blocks(n: Network) -> Iterator[tuple[str, str]]:
    """Ranks and alphas of blocks, where they are one number per block."""
    named = {"block_dims": n.block_rank, "block_alphas": n.block_alpha}
    named |= {"conv_block_dims": n.block_conv_rank, "conv_block_alphas": n.block_conv_alpha}
    yield from ((name, value) for name, value in named.items() if value and "=" not in value)


def shares(text: str) -> Iterator[tuple[str, str]]:
    """Shares of the learning rate, in sd-scripts' three lists (12, 1, 12; SDXL 9, 3, 9)."""
    numbers = [] if "=" in text else [part.strip() for part in text.split(",") if part.strip()]
    split = {25: (12, 13), 21: (9, 12)}.get(len(numbers))
    if split is None:
        return
    parts = numbers[: split[0]], numbers[split[0] : split[1]], numbers[split[1] :]
    yield from ((f"{name}_lr_weight", ",".join(part)) for name, part in zip(("down", "mid", "up"), parts))


def rates(job: TrainJob) -> dict[str, Any]:
    o, n = job.optimization, job.network
    share = o.learning_rate if o.finds_rate else o.learning_rate / 5
    first = share if o.text_encoder_lr is None else o.text_encoder_lr
    second = first if o.text_encoder_2_lr is None else o.text_encoder_2_lr
    return {
        "learning_rate": o.learning_rate,
        "unet_lr": o.learning_rate,
        "text_encoder_lr": [first] if first == second else [first, second],
        "network_train_unet_only": not n.train_text_encoder,
        "network_train_text_encoder_only": not n.train_unet,
    }


ADAMS = (0.9, 0.999)
BETAS = {"lion": (0.9, 0.99), "lion8bit": (0.9, 0.99), "pagedlion8bit": (0.9, 0.99)}


def optimizer(job: TrainJob) -> dict[str, Any]:
    o = job.optimization
    given = [] if o.weight_decay is None else [f"weight_decay={o.weight_decay!r}"]
    if o.beta1 is not None or o.beta2 is not None:
        own = BETAS.get(o.optimizer, ADAMS)
        both = [default if mine is None else mine for mine, default in zip((o.beta1, o.beta2), own)]
        given.append(f"betas={both[0]!r},{both[1]!r}")
    given += [plain(line) for line in o.optimizer_args if line.strip()]
    return {"optimizer_type": o.optimizer_class or CLASSES[o.optimizer], "optimizer_args": given}


def plain(line: str) -> str:
    """ "d_coef = 2" as "d_coef=2"."""
    name, _, value = line.partition("=")
    return f"{name.strip()}={value.strip()}"


def schedule(job: TrainJob) -> dict[str, Any]:
    o = job.optimization
    steps = int(o.warmup) if o.warmup >= 1 else o.warmup
    cycles = o.cycles if o.schedule == "cosine_with_restarts" and o.cycles > 1 else None
    return {
        "lr_scheduler": o.schedule,
        "lr_scheduler_type": o.schedule_class,
        "lr_scheduler_args": [plain(line) for line in o.schedule_args if line.strip()],
        "lr_warmup_steps": None if o.schedule == "constant" else steps or None,
        "lr_decay_steps": (int(o.decay_steps) if o.decay_steps >= 1 else o.decay_steps) or None,
        "lr_scheduler_num_cycles": cycles,
        "lr_scheduler_power": o.power if o.power != 1 else None,
    }
