"""kohya's network modules and arguments, optimizers and schedules: what they become here."""

from __future__ import annotations

import ast
import shlex
from typing import Any

from lora_core.jobs.train import SCHEDULES
from lora_core.kohya_row import Notes, equal, number, text, whole

LARGEST_RANK = 1024
LYCORIS = "lycoris.kohya"
PLAIN_MODULES = ("", "networks.lora")
PLAIN_ALGORITHMS = ("lora", "locon")
LYCORIS_SHAPE = "It belongs to LyCORIS networks, which are not supported yet."
BLOCKS = "Settings for single blocks are not supported yet: all blocks are trained alike."
LORA_PLUS = "LoRA+ is not supported yet: both matrices learn at the same rate."

NETWORK_ARGUMENTS: dict[str, str] = {
    "conv_dim": "",
    "conv_alpha": "",
    "algo": "",
    "preset": "The network covers attention, feed-forward and, with conv_dim, the convolutions.",
    "rank_dropout": "Not supported yet: network_dropout is.",
    "module_dropout": "Not supported yet: network_dropout is.",
    **dict.fromkeys(("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"), BLOCKS),
    **dict.fromkeys(("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold"), BLOCKS),
    **dict.fromkeys(("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"), LORA_PLUS),
    "unit": "DyLoRA is not supported.",
    "enable_all_linear": "OFT is not supported yet.",
    "enable_conv": "OFT is not supported yet.",
    "dora_wd": "DoRA is not supported yet: a LoRA without its weight decomposition is trained.",
    **dict.fromkeys(("factor", "use_tucker", "use_cp", "use_scalar", "decompose_both", "full_matrix"), LYCORIS_SHAPE),
    **dict.fromkeys(("train_norm", "rank_dropout_scale", "constraint", "rescaled", "bypass_mode"), LYCORIS_SHAPE),
    "dropout": "Use network_dropout.",
}

OPTIMIZERS: dict[str, tuple[str, str]] = {
    "": ("adamw", ""),
    "adamw": ("adamw", ""),
    "adam": ("adam", ""),
    "adamw8bit": ("adamw8bit", ""),
    "pagedadamw8bit": ("adamw8bit", "Without paging to the main memory."),
    "pagedadamw": ("adamw", "Without paging to the main memory."),
    "pagedadamw32bit": ("adamw", "Without paging to the main memory."),
    "lion": ("lion", ""),
    "lion8bit": ("lion", "In full precision."),
    "pagedlion8bit": ("lion", "In full precision, without paging."),
    "sgd": ("sgd", ""),
    "sgdnesterov": ("sgd", ""),
    "sgdnesterov8bit": ("sgd", "In full precision."),
    "prodigy": ("prodigy", ""),
    "adafactor": ("adafactor", ""),
    **{
        name.lower(): ("prodigy", "Prodigy, which follows from D-Adaptation, is used.")
        for name in "DAdaptation DAdaptAdamPreprint DAdaptAdaGrad DAdaptAdam DAdaptAdan DAdaptAdanIP".split()  # noqa: SIM905
    },
    "dadaptlion": ("prodigy", "Prodigy, which follows from D-Adaptation, is used."),
    "dadaptsgd": ("prodigy", "Prodigy, which follows from D-Adaptation, is used."),
    "radamschedulefree": ("adamw", "Schedule-free optimizers are not supported yet: AdamW is used."),
    "adamwschedulefree": ("adamw", "Schedule-free optimizers are not supported yet: AdamW is used."),
    "sgdschedulefree": ("sgd", "Schedule-free optimizers are not supported yet: SGD is used."),
}


ALWAYS: dict[str, dict[str, str]] = {
    "adafactor": dict.fromkeys(("scale_parameter", "relative_step", "warmup_init"), "false"),
    "prodigy": {
        **dict.fromkeys(("use_bias_correction", "safeguard_warmup", "decouple"), "true"),
        "d0": "1e-6",
        "d_coef": "1",
        "growth_rate": "inf",
    },
}


def pairs(value: Any, notes: Notes, name: str) -> dict[str, str]:
    """ "a=1 b=2", or a list of such texts, as a dict; a part without "=" is noted."""
    parts = shlex.split(value.replace("\\", "\\\\")) if isinstance(value, str) else list(value or ())
    found: dict[str, str] = {}
    for part in parts:
        key, equals, content = str(part).partition("=")
        if equals:
            found[key.strip()] = content.strip().strip("\"'")
        else:
            notes.say(name, part, "It is not of the form key=value and is left out.")
    return found


def network(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Rank, alpha and convolutions of the network."""
    given = pairs(values["network_args"], notes, "network_args")
    module = text(values["network_module"])
    name = given.get("algo", "lora").lower() if module == LYCORIS else module
    rank = notes.convert("network_dim", values["network_dim"] or 4, whole) or 4
    found = {"rank": rank, "alpha": notes.convert("network_alpha", values["network_alpha"], number) or float(rank)}
    if name not in PLAIN_MODULES + PLAIN_ALGORITHMS:
        notes.say("network_module", name, "Not supported yet: a plain LoRA is trained.", "not supported")
    conv_default = rank if module == LYCORIS else 0
    found["conv_rank"] = notes.convert("conv_dim", given.get("conv_dim") or conv_default, whole)
    alpha = given.get("conv_alpha") or (found["alpha"] if module == LYCORIS else 1)
    found["conv_alpha"] = notes.convert("conv_alpha", alpha, number) or float(found["conv_rank"] or 1)
    if max(rank, found["conv_rank"] or 0) > LARGEST_RANK:
        notes.say("network_dim", rank, "This is no rank of a LoRA: rank 16 and alpha 8 are used.", "differently")
        found.update(rank=16, alpha=8.0, conv_rank=min(found["conv_rank"] or 0, 8), conv_alpha=4.0)
    for key, value in given.items():
        tell_argument(key, value, notes)
    return found


def tell_argument(key: str, value: str, notes: Notes) -> None:
    """Note a network argument that is not followed."""
    sentence = NETWORK_ARGUMENTS.get(key, "This argument is not known here and is left out.")
    if sentence and value.lower() not in ("", "false", "none", "0", "0.0") and (key, value) != ("preset", "full"):
        notes.say(f"network_args {key}", value, sentence, "not supported")


def optimizer(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The optimizer and those of its arguments that have a setting."""
    name = text(values["optimizer_type"])
    if notes.convert("use_8bit_adam", values["use_8bit_adam"], bool):
        name = "AdamW8bit"
    if notes.convert("use_lion_optimizer", values["use_lion_optimizer"], bool):
        name = "Lion"
    unknown = ("adamw", "This optimizer is not supported yet: AdamW is used.")
    ours, sentence = OPTIMIZERS.get(name.rpartition(".")[2].lower(), unknown)
    if sentence:
        notes.say("optimizer_type", name, sentence, "differently")
    decay = 0.01 if ours.startswith("adamw") else 0.0
    found: dict[str, Any] = {"optimizer": ours, "weight_decay": decay, "beta1": 0.9}
    found["beta2"] = 0.99 if ours == "lion" else 0.999
    for key, value in pairs(values["optimizer_args"], notes, "optimizer_args").items():
        found.update(optimizer_argument(ours, key, value, notes))
    return found


def optimizer_argument(ours: str, key: str, value: str, notes: Notes) -> dict[str, Any]:
    if key == "weight_decay":
        return {"weight_decay": notes.convert("optimizer_args weight_decay", value, number)}
    if key == "betas":
        try:
            betas = [float(beta) for beta in ast.literal_eval(value)]
            return {"beta1": betas[0], "beta2": betas[1]}
        except (ValueError, SyntaxError, TypeError, IndexError):
            notes.faults.append(f"optimizer_args betas must be two numbers such as 0.9,0.99, not {value!r}.")
            return {}
    if not equal(value.lower(), ALWAYS.get(ours, {}).get(key, "")):
        notes.say(
            f"optimizer_args {key}", value, "Not supported yet: the optimizer's usual value is used.", "not supported"
        )
    return {}


def schedule(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The learning rate's schedule."""
    name = text(values["lr_scheduler"]) or "constant"
    if name not in SCHEDULES:
        notes.say("lr_scheduler", name, "Not supported here: the rate stays constant.", "differently")
        name = "constant"
    warmup = notes.convert("lr_warmup_steps", values["lr_warmup_steps"], number)
    if name == "constant" and warmup:
        notes.say(
            "lr_warmup_steps", warmup, "A constant schedule has no warm-up; constant_with_warmup has.", "differently"
        )
    cycles = notes.convert("lr_scheduler_num_cycles", values["lr_scheduler_num_cycles"] or 1, whole)
    return {
        "schedule": name,
        "warmup": 0.0 if name == "constant" else warmup,
        "cycles": cycles if name == "cosine_with_restarts" else 1,
        "power": notes.convert("lr_scheduler_power", values["lr_scheduler_power"] or 1, number),
    }


def rates(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Learning rates of the UNet and the text encoders, and which of them are trained."""
    base = notes.convert("learning_rate", values["learning_rate"], number)
    unet = base if values["unet_lr"] in (None, "") else notes.convert("unet_lr", values["unet_lr"], number)
    given = values["text_encoder_lr"]
    listed = [] if given in (None, "") else list(given) if isinstance(given, (list, tuple)) else [given]
    encoders = [notes.convert("text_encoder_lr", rate, number) for rate in listed] or [base]
    text_only, unet_only = bool(values["network_train_text_encoder_only"]), bool(values["network_train_unet_only"])
    return {
        "learning_rate": unet,
        "text_encoder_lr": encoders[0],
        "text_encoder_2_lr": encoders[1] if len(encoders) > 1 else encoders[0],
        "train_unet": not text_only and unet != 0,
        "train_text_encoder": not unet_only and any(encoders),
    }
