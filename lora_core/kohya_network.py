"""kohya's and LyCORIS' network modules and arguments, and learning rates: what they become here."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.errors import LoomError
from lora_core.kohya_row import Notes, number, text, truth, whole

LARGEST_RANK = 1024
LYCORIS = "lycoris.kohya"
ALGORITHMS: dict[str, str] = {
    **dict.fromkeys(("", "networks.lora", "lora", "locon"), "lora"),
    **{"networks.loha": "loha", "networks.lokr": "lokr", "networks.oft": "oft"},
    **{"loha": "loha", "lokr": "lokr", "ia3": "ia3", "(ia)3": "ia3", "diag-oft": "oft"},
}
FACTORED = ("lora", "dora")
LYCORIS_SHAPE = "Not supported: the network has the plain form."
IA3_PLACES = "Keys, values and the ends of feed-forward blocks are trained, the last ones on their inputs."
DONE = (
    *("conv_dim", "conv_alpha", "algo", "rank_dropout", "module_dropout", "dropout", "rs_lora", "dora_wd"),
    *("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight"),
    *("up_lr_weight", "block_lr_zero_threshold", "factor", "decompose_both", "full_matrix"),
    *("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio", "preset"),
)
PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "full-lin": {"conv_rank": 0},
    "attn-mlp": {"conv_rank": 0},
    "attn-only": {"conv_rank": 0, "include": "*attn*"},
    "unet-only": {},
    "unet-transformer-only": {"conv_rank": 0},
    "unet-convblock-only": {"include": "*resnets*, *samplers*"},
}
REFUSED_MODULES: dict[str, str] = {
    "networks.dylora": "A plain LoRA is trained: what DyLoRA is for, one training for all ranks, is met by cutting its "
    "rank afterwards (python -m lora_core resize), which keeps the best of each rank.",
    "networks.lora_fa": "A plain LoRA is trained: frozen down matrices save little memory here and learn less.",
}
NETWORK_ARGUMENTS: dict[str, str] = {
    **dict.fromkeys(DONE, ""),
    "unit": "It belongs to DyLoRA, which is not supported.",
    "enable_all_linear": "The same modules are trained as with a LoRA.",
    "enable_conv": "The same modules are trained as with a LoRA; set conv_rank for 3x3 convolutions.",
    "wd_on_output": "The lengths are those of the inputs, which every program reads alike.",
    "train_on_input": IA3_PLACES,
    "constraint": "Not supported: programs read it in different ways.",
    **dict.fromkeys(("use_tucker", "use_cp", "use_scalar", "rescaled", "train_norm"), LYCORIS_SHAPE),
    "rank_dropout_scale": "What is kept is always scaled up.",
    "bypass_mode": "Branches are computed in the way that takes least memory.",
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
    """Algorithm, ranks, alphas and places of the network."""
    given = pairs(values["network_args"], notes, "network_args")
    module = text(values["network_module"])
    name = given.get("algo", "lora").lower() if module == LYCORIS else module
    if name not in ALGORITHMS:
        sentence = REFUSED_MODULES.get(name, "Not supported: a plain LoRA is trained.")
        notes.say("network_module", name, sentence, "not supported")
    algorithm = ALGORITHMS.get(name, "lora")
    if _true(given, "dora_wd", notes):
        if algorithm == "lora":
            algorithm = "dora"
        else:
            notes.say("network_args dora_wd", "True", f"Not supported with {algorithm}.", "not supported")
    found = {"algorithm": algorithm, **sizes(values, given, module == LYCORIS, notes)}
    found |= limited(found, _true(given, "full_matrix", notes), notes)
    found |= {"rs_lora": _true(given, "rs_lora", notes), "lokr_both": _true(given, "decompose_both", notes)}
    found["lokr_factor"] = notes.convert("factor", given.get("factor") or -1, whole)
    found |= dropouts(values, given, algorithm, notes) | blocks(values, given, notes) | lora_plus(given, notes)
    found["base_loras"] = merged_first(values, notes)
    found |= {"include": ""} | PRESETS.get(given.get("preset", ""), {})
    if given.get("preset", "full") not in PRESETS:
        notes.say("network_args preset", given["preset"], "Not known: all modules are trained.", "not supported")
    for key, value in given.items():
        tell_argument(key, value, notes)
    return found


def _true(given: dict[str, str], name: str, notes: Notes) -> bool:
    return bool(notes.convert(name, given.get(name, ""), truth))


def sizes(values: dict[str, Any], given: dict[str, str], lycoris: bool, notes: Notes) -> dict[str, Any]:
    """Rank and alpha, also of 3x3 convolutions, which LyCORIS trains when nothing is said."""
    rank = notes.convert("network_dim", values["network_dim"] or 4, whole) or 4
    alpha = notes.convert("network_alpha", values["network_alpha"], number) or float(rank)
    conv = notes.convert("conv_dim", given.get("conv_dim") or (rank if lycoris else 0), whole)
    conv_alpha = notes.convert("conv_alpha", given.get("conv_alpha") or (alpha if lycoris else 1), number)
    return {"rank": rank, "alpha": alpha, "conv_rank": conv, "conv_alpha": conv_alpha or float(conv or 1)}


def limited(found: dict[str, Any], full: bool, notes: Notes) -> dict[str, Any]:
    """Ranks that are none: LyCORIS' users ask for whole LoKr matrices by them."""
    rank, conv = found["rank"], found["conv_rank"] or 0
    if found["algorithm"] == "lokr" and (full or max(rank, conv) > LARGEST_RANK):
        return {name: LARGEST_RANK if full else min(found[name], LARGEST_RANK) for name in ("rank", "conv_rank")} | {
            "alpha": min(found["alpha"], float(LARGEST_RANK)),
            "conv_alpha": min(found["conv_alpha"], float(LARGEST_RANK)),
        }
    if max(rank, conv) <= LARGEST_RANK:
        return {}
    notes.say("network_dim", rank, "This is no rank of a LoRA: rank 16 and alpha 8 are used.", "differently")
    return {"rank": 16, "alpha": 8.0, "conv_rank": min(conv, 8), "conv_alpha": 4.0}


def dropouts(values: dict[str, Any], given: dict[str, str], algorithm: str, notes: Notes) -> dict[str, Any]:
    asked = values["network_dropout"] or given.get("dropout")
    found = {"dropout": notes.convert("network_dropout", asked, number)}
    found |= {name: notes.convert(name, given.get(name), number) for name in ("rank_dropout", "module_dropout")}
    for name in ("dropout", "rank_dropout"):
        if found[name] and algorithm not in FACTORED:
            notes.say(
                name, found[name], f"It belongs to lora and dora; {algorithm} has module_dropout.", "not supported"
            )
            found[name] = 0.0
    return found


def blocks(values: dict[str, Any], given: dict[str, str], notes: Notes) -> dict[str, Any]:
    """Ranks, alphas and shares of the learning rate, one number per block."""
    named = {"block_dims": "block_rank", "block_alphas": "block_alpha"}
    named |= {f"conv_{name}": f"block_conv_{ours[6:]}" for name, ours in list(named.items())}
    found: dict[str, Any] = {ours: given.get(name, "") for name, ours in named.items()}
    lists = [given.get(f"{part}_lr_weight", "") for part in ("down", "mid", "up")]
    if not any(lists):
        return found | {"block_lr": ""}
    try:
        counts = (9, 3, 9) if is_sdxl(values, lists) else (12, 1, 12)
        parts = [shares(one, count) for one, count in zip(lists, counts)]
        threshold = float(given.get("block_lr_zero_threshold") or 0)
    except ValueError:
        sentence = f"Numbers are read, one per block, or {', '.join(CURVES)}: all blocks learn alike."
        notes.say("down_lr_weight", " ".join(filter(None, lists)), sentence, "not supported")
        return found | {"block_lr": ""}
    return found | {"block_lr": ",".join(f"{n if n > threshold else 0:g}" for part in parts for n in part)}


CURVES: dict[str, Callable[[float], float]] = {
    "cosine": lambda place: math.sin(math.pi * (1 - place) / 2),
    "sine": lambda place: math.sin(math.pi * place / 2),
    "linear": lambda place: place,
    "reverse_linear": lambda place: 1 - place,
    "zeros": lambda place: 0.0,
}


def shares(text: str, count: int) -> list[float]:
    """Numbers, filled up with 1, or a curve over the blocks such as cosine or cosine+0.25. Raises ValueError."""
    name, _, more = text.partition("+")
    if name in CURVES:
        return [CURVES[name](i / max(1, count - 1)) + float(more or 0) for i in range(count)]
    return ([float(n) for n in text.split(",") if n.strip()] + [1.0] * count)[:count]


def is_sdxl(values: dict[str, Any], lists: list[str]) -> bool:
    """Whether shares for blocks are for SDXL: by how many numbers there are, else by the base's own file."""
    down, mid, up = (0 if one.partition("+")[0] in CURVES else len(one.split(",")) for one in lists)
    if max(down, up) > 1 or mid > 1:
        return max(down, up) == 9 or mid == 3
    base = text(values.get("pretrained_model_name_or_path"))
    if not Path(base).exists() or not base:
        return False
    from lora_core.architecture import architecture_of

    try:
        return architecture_of(base).family == "sdxl"
    except LoomError:
        return False


def lora_plus(given: dict[str, str], notes: Notes) -> dict[str, Any]:
    names = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
    both, unet, encoder = (notes.convert(name, given.get(name), number) or None for name in names)
    text_ratio = encoder or both or 1.0
    return {
        "lora_plus_ratio": unet or both or 1.0,
        "lora_plus_text_ratio": text_ratio if any((unet, encoder)) else None,
    }


def merged_first(values: dict[str, Any], notes: Notes) -> list[str]:
    """base_weights with their multipliers, 1 where there is none."""
    files, strengths = (_listed(values[name]) for name in ("base_weights", "base_weights_multiplier"))
    numbers = [notes.convert("base_weights_multiplier", one, number) for one in strengths]
    return [f"{file} = {n}" for file, n in zip(files, [*numbers, *[1.0] * len(files)])]


def _listed(value: Any) -> list[Any]:
    if value in (None, "", False):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def tell_argument(key: str, value: str, notes: Notes) -> None:
    """Note a network argument that is not followed."""
    sentence = NETWORK_ARGUMENTS.get(key, "This argument is not known here and is left out.")
    if sentence and value.lower() not in ("", "false", "none", "0", "0.0"):
        notes.say(f"network_args {key}", value, sentence, "not supported")


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
        "train_text_encoder": not unet_only and any(encoders) and not preset_of(values).startswith("unet-"),
    }


def preset_of(values: dict[str, Any]) -> str:
    """The name of LyCORIS' preset, "" without one."""
    return pairs(values["network_args"], Notes(), "network_args").get("preset", "")
