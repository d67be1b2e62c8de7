"""Optimizers, all from well-kept packages; an optional one that fails a real step is replaced."""

from __future__ import annotations

import ast
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from lora_core.engine.averages import has_modes
from lora_core.errors import ConfigError
from lora_core.jobs.train import Optimization

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """An optimizer class by its full name, our values for its own arguments, and what stands in for it.

    `fallback` "" is for optimizers whose learning rate of about 1 would destroy the LoRA with any other.
    """

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    fallback: str = "adamw"


def _bits(name: str, fallback: str = "adamw") -> Recipe:
    return Recipe(f"bitsandbytes.optim.{name}", fallback=fallback)


def _adapting(path: str, **values: Any) -> Recipe:
    return Recipe(path, values, "")


ADAFACTOR = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
RECIPES: dict[str, Recipe] = {
    "adamw": Recipe("torch.optim.AdamW"),
    "adam": Recipe("torch.optim.Adam"),
    "nadam": Recipe("torch.optim.NAdam"),
    "radam": Recipe("torch.optim.RAdam"),
    "adamax": Recipe("torch.optim.Adamax"),
    "rmsprop": Recipe("torch.optim.RMSprop"),
    "adagrad": Recipe("torch.optim.Adagrad"),
    "sgd": Recipe("torch.optim.SGD", {"momentum": 0.9, "nesterov": True}),
    "adafactor": Recipe("transformers.optimization.Adafactor", ADAFACTOR),
    "adamw8bit": _bits("AdamW8bit"),
    "pagedadamw": _bits("PagedAdamW"),
    "pagedadamw8bit": _bits("PagedAdamW8bit", "adamw8bit"),
    "pagedadamw32bit": _bits("PagedAdamW32bit"),
    "lion8bit": _bits("Lion8bit", "lion"),
    "pagedlion8bit": _bits("PagedLion8bit", "lion8bit"),
    "sgd8bit": Recipe("bitsandbytes.optim.SGD8bit", {"momentum": 0.9, "nesterov": True}, "sgd"),
    "lion": Recipe("lion_pytorch.Lion"),
    "prodigy": _adapting("prodigyopt.Prodigy", use_bias_correction=True, safeguard_warmup=True),
    "adamwschedulefree": Recipe("schedulefree.AdamWScheduleFree"),
    "radamschedulefree": Recipe("schedulefree.RAdamScheduleFree"),
    "sgdschedulefree": Recipe("schedulefree.SGDScheduleFree", fallback="sgd"),
    "dadaptadam": _adapting("dadaptation.DAdaptAdam", decouple=True),
    "dadaptadampreprint": _adapting("dadaptation.experimental.dadapt_adam_preprint.DAdaptAdamPreprint"),
    "dadaptadagrad": _adapting("dadaptation.DAdaptAdaGrad"),
    "dadaptadan": _adapting("dadaptation.DAdaptAdan"),
    "dadaptadanip": _adapting("dadaptation.experimental.dadapt_adan_ip.DAdaptAdanIP"),
    "dadaptlion": _adapting("dadaptation.DAdaptLion"),
    "dadaptsgd": _adapting("dadaptation.DAdaptSGD", momentum=0.9),
    "came": Recipe("pytorch_optimizer.CAME"),
    "ademamix": Recipe("pytorch_optimizer.AdEMAMix"),
    "adan": Recipe("pytorch_optimizer.Adan"),
    "stableadamw": Recipe("pytorch_optimizer.StableAdamW"),
}
FAULTS = (ImportError, RuntimeError, AttributeError, TypeError, OSError, AssertionError, NotImplementedError)


def build_optimizer(settings: Optimization, groups: Groups, steps: int) -> tuple[torch.optim.Optimizer, str]:
    """The optimizer over `groups` (each with its own "lr"), and a sentence ("" when the wish was met).

    One that is not installed, or that fails a real step on these devices, is replaced. Raises ConfigError for arguments
    that it does not take, for a class that is not there, and for Prodigy and D-Adaptation, whose learning rates of
    about 1 no other bears.
    """
    if settings.optimizer_class:
        return _by_class(settings, groups, steps), ""
    name, reasons = settings.optimizer, list[str]()
    while True:
        recipe = RECIPES[name]
        try:
            optimizer = _built(recipe, settings, groups, steps, with_arguments=name == settings.optimizer)
            return optimizer, _replaced(settings.optimizer, name, reasons)
        except FAULTS as error:
            reasons.append((str(error).splitlines() or [type(error).__name__])[0])
            if not recipe.fallback:
                raise ConfigError(
                    f"The optimizer {name} cannot be used here ({reasons[-1]}). Install "
                    f"{recipe.path.split('.')[0]}, or choose adamw with a learning rate of about 0.0001."
                ) from error
            if name == recipe.fallback:
                raise
            name = recipe.fallback


def _replaced(wanted: str, used: str, reasons: list[str]) -> str:
    if wanted == used:
        return ""
    title = {"adamw": "AdamW", "sgd": "SGD"}.get(used, used)
    return f"The optimizer {wanted} cannot be used here ({reasons[0]}); {title} is used instead."


def _by_class(settings: Optimization, groups: Groups, steps: int) -> torch.optim.Optimizer:
    path = settings.optimizer_class
    recipe = Recipe(path if "." in path else f"torch.optim.{path}")
    try:
        return _built(recipe, settings, groups, steps, with_arguments=True)
    except FAULTS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"The optimizer class {path} cannot be used here: {reason}") from error


def _built(
    recipe: Recipe, settings: Optimization, groups: Groups, steps: int, with_arguments: bool
) -> torch.optim.Optimizer:
    kind = class_named(recipe.path, torch.optim.Optimizer)
    given = arguments(settings.optimizer_args) if with_arguments else {}
    options = _options(kind, recipe, settings, steps) | given
    _refuse_unknown(kind, given)
    if not recipe.path.startswith("torch.optim."):
        _probe(kind, options, groups[0]["params"][0].device)
    if options.get("relative_step"):  # Adafactor's own rate
        optimizer = kind([{**group, "lr": None} for group in groups], lr=None, **options)
    else:
        optimizer = kind([dict(group) for group in groups], lr=groups[0]["lr"], **options)
    if has_modes(optimizer):
        optimizer.train()  # pyright: ignore[reportAttributeAccessIssue]
    return optimizer


def class_named(path: str, parent: type) -> Any:
    """A class by its full name. Raises ImportError, or ConfigError when it is no `parent`."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise ImportError(f"{module} has no {name}") from None
    if not (isinstance(found, type) and issubclass(found, parent)):
        raise ConfigError(f"{path} is no {parent.__name__} class.")
    return found


def arguments(lines: Iterable[str]) -> dict[str, Any]:
    """Lines of NAME = VALUE as keyword arguments; a value that is no Python number, tuple or True/False is a text."""
    found: dict[str, Any] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals:
            found[name.strip()] = literal(value.strip())
    return found


def literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _signature(kind: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind.__init__).parameters)


def _refuse_unknown(kind: Any, given: dict[str, Any]) -> None:
    known = _signature(kind)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return
    unknown = [name for name in given if name not in known]
    if unknown:
        names = ", ".join(name for name in known if name not in ("self", "params"))
        raise ConfigError(f"{kind.__name__} takes no {' or '.join(unknown)} (optimizer_args). It takes: {names}.")


def _options(kind: Any, recipe: Recipe, settings: Optimization, steps: int) -> dict[str, Any]:
    """Our settings under the class's own names, as far as it has them."""
    known = _signature(kind)
    found: dict[str, Any] = {}
    if "weight_decay" in known and settings.weight_decay is not None:
        found["weight_decay"] = settings.weight_decay
    default = known["betas"].default if "betas" in known else ()
    if isinstance(default, tuple) and len(default) >= 2:
        given = (settings.beta1, settings.beta2)
        found["betas"] = tuple(own if mine is None else mine for own, mine in zip(default, given)) + default[2:]
    if "momentum" in recipe.values and settings.beta1 is not None:
        found["momentum"] = settings.beta1
        if settings.beta1 == 0:
            found["nesterov"] = False
    if "warmup_steps" in known and recipe.path.startswith("schedulefree."):
        found["warmup_steps"] = warmup_steps(settings, steps)
    return {name: value for name, value in (recipe.values | found).items() if name in known}


def warmup_steps(settings: Optimization, steps: int) -> int:
    """The warm-up in optimizer steps."""
    return round(settings.warmup * steps) if settings.warmup < 1 else round(settings.warmup)


def _probe(build: Callable[..., Any], options: dict[str, Any], device: torch.device) -> None:
    p = torch.nn.Parameter(torch.ones(64, 64, device=device))
    p.grad = torch.ones_like(p)
    rate = None if options.get("relative_step") else 1e-3
    optimizer = build([{"params": [p], "lr": rate}], lr=rate, **options)
    if has_modes(optimizer):
        optimizer.train()
    optimizer.step()
    if not torch.isfinite(p).all():
        raise RuntimeError("its step gave NaN")


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first group, times what Prodigy or D-Adaptation have found."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))


def advance(schedule: torch.optim.lr_scheduler.LRScheduler, loss: float) -> None:
    """One step of the schedule; `loss` is for the one that follows it. It goes on where a step was left out, too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before", UserWarning)
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step(loss)
        else:
            schedule.step()


def parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
