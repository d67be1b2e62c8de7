"""kohya's optimizers and schedules: what they become here."""

from __future__ import annotations

import ast
from typing import Any

from lora_core.jobs.optimization import OPTIMIZERS as NAMES
from lora_core.jobs.optimization import SCHEDULES
from lora_core.kohya_network import pairs
from lora_core.kohya_row import Notes, number, text, truth, whole

OPTIMIZERS: dict[str, str] = {
    **{name: name for name in NAMES},
    **{"": "adamw", "sgdnesterov": "sgd", "sgdnesterov8bit": "sgd8bit", "dadaptation": "dadaptadampreprint"},
}
OWN = ("torch.optim.", "bitsandbytes.optim.", "lion_pytorch.", "prodigyopt.", "dadaptation.", "schedulefree.")
WITH_ARGUMENTS = ("piecewise_constant", "inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay")


def optimizer(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The optimizer and its arguments."""
    name = text(values["optimizer_type"])
    if notes.convert("use_8bit_adam", values["use_8bit_adam"], truth):
        name = "AdamW8bit"
    if notes.convert("use_lion_optimizer", values["use_lion_optimizer"], truth):
        name = "Lion"
    short = name.rpartition(".")[2].lower() if name.startswith(OWN) else name.lower()
    ours = OPTIMIZERS.get(short, "")
    given = pairs(values["optimizer_args"], notes, "optimizer_args")
    decay = notes.convert("optimizer_args weight_decay", given.pop("weight_decay", None), number_or_none)
    if decay is None and ours:
        decay = 0.01 if "adamw" in ours and "free" not in ours else 0.0
    found: dict[str, Any] = {
        "optimizer": ours or "adamw",
        "optimizer_class": "" if ours else name,
        "weight_decay": decay,
    }
    found |= betas(given, notes)
    if ours == "prodigy":
        given = {"use_bias_correction": "False", "safeguard_warmup": "False"} | given
    if ours == "adafactor":
        given = {"relative_step": "True"} | given
    return found | {"optimizer_args": [f"{key} = {value}" for key, value in given.items()]}


def number_or_none(value: Any) -> float | None:
    return None if value in (None, "") else number(value)


def betas(given: dict[str, str], notes: Notes) -> dict[str, Any]:
    """The first two betas; the optimizer's own where none are given. Three or more stay an argument."""
    value = given.get("betas")
    if value is None:
        return {"beta1": None, "beta2": None}
    try:
        found = [float(beta) for beta in ast.literal_eval(value)]
    except (ValueError, SyntaxError, TypeError):
        found = []
    if len(found) < 2:
        notes.faults.append(f"optimizer_args betas must be two numbers such as 0.9,0.99, not {value!r}.")
        return {}
    if len(found) > 2:
        return {"beta1": None, "beta2": None}
    del given["betas"]
    return {"beta1": found[0], "beta2": found[1]}


def schedule(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The learning rate's schedule."""
    name = (text(values["lr_scheduler"]) or "constant").partition(":")[0]
    kind = text(values["lr_scheduler_type"])
    arguments = pairs(values["lr_scheduler_args"], notes, "lr_scheduler_args")
    if values["lr_scheduler_timescale"] and name == "inverse_sqrt":
        arguments["timescale"] = str(values["lr_scheduler_timescale"])
    if arguments and not kind and name not in WITH_ARGUMENTS:
        notes.say("lr_scheduler_args", " ".join(arguments), f"The schedule {name} takes none.", "differently")
        arguments = {}
    if name == "adafactor":
        name = "constant"
    elif name not in SCHEDULES:
        notes.say("lr_scheduler", name, "Not supported here: the rate stays constant.", "differently")
        name = "constant"
    return {
        "schedule": name,
        "schedule_class": kind,
        "schedule_args": [f"{key} = {value}" for key, value in arguments.items()],
        "decay_steps": notes.convert("lr_decay_steps", values["lr_decay_steps"], number),
        **warmup(name, values, notes),
        "power": notes.convert("lr_scheduler_power", values["lr_scheduler_power"] or 1, number),
    }


def warmup(name: str, values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    steps = notes.convert("lr_warmup_steps", values["lr_warmup_steps"], number)
    if name == "constant" and steps:
        notes.say(
            "lr_warmup_steps", steps, "A constant schedule has no warm-up; constant_with_warmup has.", "differently"
        )
    cycles = notes.convert("lr_scheduler_num_cycles", values["lr_scheduler_num_cycles"] or 1, whole)
    return {
        "warmup": 0.0 if name == "constant" else steps,
        "cycles": cycles if name == "cosine_with_restarts" else 1,
    }
