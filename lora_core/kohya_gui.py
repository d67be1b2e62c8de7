"""Presets of the kohya_ss GUI (JSON): its own names and habits, turned into sd-scripts' options."""

from __future__ import annotations

import shlex
from typing import Any

from lora_core.kohya_network import LYCORIS, NETWORK_ARGUMENTS
from lora_core.kohya_options import ONE_DEVICE, OPTIONS
from lora_core.kohya_row import Notes, number

RENAMED: dict[str, str] = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}

TRANSLATED: dict[str, str] = {
    "epoch": "max_train_epochs, when neither it nor max_train_steps is set.",
    "lr_warmup": "lr_warmup_steps, as percent of all steps.",
    "LoRA_type": "network_module and its arguments.",
    "LyCORIS_preset": "The preset argument of LyCORIS networks.",
    "noise_offset_type": "Original: the multires settings have no effect. Multires: the noise offset has none.",
    "additional_parameters": "Read as a command line.",
    "xformers": "xformers or sdpa.",
    "constrain": "The constraint argument of LyCORIS networks.",
}

WITHOUT_EFFECT: dict[str, str] = {
    "sdxl": "Read from the base's own file.",
    "sdxl_checkbox": "Read from the base's own file.",
    "model_list": "The base is named by pretrained_model_name_or_path.",
    "save_as_bool": "Belongs to the window.",
    "headless": "Belongs to the window.",
    "print_only": "Belongs to the window.",
    "use_wandb": "See log_with.",
    "no_token_padding": "Has no effect in sd-scripts any more.",
    "conv_dims": "Has no effect in kohya_ss either.",
    "conv_alphas": "Has no effect in kohya_ss either.",
    "mem_eff_save": "Belongs to full fine-tuning.",
    "lowvram": "See lowram.",
    "training_preset": "Belongs to the window.",
}

REFUSED: dict[str, str] = {
    "stop_text_encoder_training": "The text encoder trains to the end; kohya_ss does not follow this either.",
    "stop_text_encoder_training_pct": "The text encoder trains to the end; kohya_ss does not follow this either.",
    "train_inpainting": "Train on the normal model of the same family: the LoRA works with its inpainting model too.",
    "learning_rate_te": "It belongs to DreamBooth; use text_encoder_lr.",
    "learning_rate_te1": "It belongs to DreamBooth; use text_encoder_lr.",
    "learning_rate_te2": "It belongs to DreamBooth; use text_encoder_lr.",
    "batch_size": "It belongs to fine-tuning; use train_batch_size.",
    **dict.fromkeys(("num_processes", "num_machines", "multi_gpu", "gpu_ids", "main_process_port"), ONE_DEVICE),
    "num_cpu_threads_per_process": "Set threads.",
    "extra_accelerate_launch_args": ONE_DEVICE,
    **dict.fromkeys(("dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic"), "The model is not compiled."),
    "train_lora_ggpo": "GGPO is not supported.",
    "ggpo_sigma": "GGPO is not supported.",
    "ggpo_beta": "GGPO is not supported.",
}
QUIET: dict[str, tuple[Any, ...]] = {
    "num_processes": (1, "1"),
    "num_machines": (1, "1"),
    "num_cpu_threads_per_process": (1, 2, "2"),
    "dynamo_mode": ("default",),
}

FAMILY_CHECKBOXES = ("flux1_checkbox", "sd3_checkbox", "hunyuan_image_checkbox", "anima_checkbox", "lumina_checkbox")
FAMILY_TYPES = ("Flux1", "Flux1 OFT", "HunyuanImage-2.1", "Anima", "Lumina")
FAMILY_PREFIXES = (
    "flux",
    "sd3_",
    "hunyuan_",
    "anima_",
    "lumina_",
    "t5xxl",
    "clip_l",
    "clip_g",
    "img_",
    "txt_",
    "single_",
)
FAMILY_KEYS = {
    *("ae", "apply_t5_attn_mask", "blocks_to_swap", "discrete_flow_shift", "double_blocks_to_swap", "guidance_scale"),
    *("in_dims", "logit_mean", "logit_std", "mode_scale", "model_prediction_type", "model_type", "save_clip"),
    *("save_t5xxl", "show_timesteps", "show_timesteps_resolution", "split_mode", "split_qkv", "timestep_sampling"),
    *("train_blocks", "train_double_block_indices", "train_single_block_indices", "train_t5xxl", "weighting_scheme"),
    *("pos_emb_random_crop_rate", "blockwise_fused_optimizers", "fused_optimizer_groups", "enable_all_linear"),
    *("text_encoder_batch_size", "block_lr", "full_path"),
}

NETWORKS: dict[str, str] = {
    "": "networks.lora",
    "Standard": "networks.lora",
    "Kohya LoCon": "networks.lora",
    "LoRA-FA": "networks.lora_fa",
    "Kohya DyLoRA": "networks.dylora",
    "Kohya LoHa": "networks.loha",
    "Kohya LoKr": "networks.lokr",
    "LoCon": LYCORIS,
}
CONVOLUTIONS = ("conv_dim", "conv_alpha")
ANY_NETWORK = {name for name in NETWORK_ARGUMENTS if name.startswith(("down_", "mid_", "up_", "block_", "conv_block"))}
ANY_NETWORK |= {"rank_dropout", "module_dropout"} | {name for name in NETWORK_ARGUMENTS if name.startswith("loraplus")}
OFF = (None, False, "", 0, "0", "0.0")


def is_gui(data: dict[str, Any]) -> bool:
    """True for a preset of the GUI, false for options of the trainer itself."""
    return bool({"LoRA_type", "max_resolution", "lr_warmup", "optimizer", "noise_offset_type"} & data.keys())


def from_gui(data: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The trainer's options that the GUI would make of a preset."""
    other = [name for name in FAMILY_CHECKBOXES if data.get(name)]
    if other or data.get("LoRA_type") in FAMILY_TYPES:
        notes.faults.append("This preset is for another model family. SD 1.x, SD 2.x and SDXL can be trained.")
    found: dict[str, Any] = {}
    for name, value in data.items():
        name = RENAMED.get(name, name)
        if name in OPTIONS and name != "xformers":
            if value not in (None, False, ""):
                found[name] = value
        else:
            tell(name, value, notes)
    found.update(length(data, found))
    found.update(rates(data, notes))
    found.update(network(data))
    found.update(noise(data, found))
    if data.get("xformers"):
        found["sdpa" if data["xformers"] == "sdpa" else "xformers"] = True
    if not number(found.get("seed") or 0):
        found.pop("seed", None)
    found.update(additional(str(data.get("additional_parameters") or ""), notes))
    return found


def tell(name: str, value: Any, notes: Notes) -> None:
    """Note a setting of the GUI that no option of the trainer stands for."""
    if name in TRANSLATED or name in WITHOUT_EFFECT or name in NETWORK_ARGUMENTS or value in OFF:
        return
    if name in REFUSED:
        if value not in QUIET.get(name, ()):
            notes.say(name, value, REFUSED[name], "not supported")
    elif name in FAMILY_KEYS or name.startswith(FAMILY_PREFIXES):
        notes.foreign.append(name)
    else:
        notes.say(name, value, "", "unknown")


def length(data: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Epochs, steps, warm-up and restarts. `found` loses what is 0, which the GUI takes for not set."""
    for name in ("max_train_epochs", "max_train_steps", "lr_warmup_steps"):
        if not number(found.get(name)):
            found.pop(name, None)
    epoch = data.get("epoch") or 1
    extra: dict[str, Any] = {}
    if "max_train_epochs" not in found and "max_train_steps" not in found:
        extra["max_train_epochs"] = epoch
    if "lr_warmup_steps" not in found and number(data.get("lr_warmup")):
        extra["lr_warmup_steps"] = number(data["lr_warmup"]) / 100
    if data.get("lr_scheduler_num_cycles") == "":
        extra["lr_scheduler_num_cycles"] = epoch
    return extra


def rates(data: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """The GUI trains only the part whose own rate is not 0 when exactly one is 0."""
    unet = notes.convert("unet_lr", data.get("unet_lr"), number)
    encoder = notes.convert("text_encoder_lr", data.get("text_encoder_lr"), number)
    return {
        "unet_lr": unet or None,
        "text_encoder_lr": encoder or None,
        "network_train_unet_only": bool(unet and not encoder),
        "network_train_text_encoder_only": bool(encoder and not unet),
    }


def network(data: dict[str, Any]) -> dict[str, Any]:
    """network_module and network_args of the GUI's LoRA_type, with only the arguments that it passes on."""
    kind = str(data.get("LoRA_type") or "")
    lycoris = kind.startswith("LyCORIS/") or kind == "LoCon"
    passed = set(NETWORK_ARGUMENTS) if lycoris else set(ANY_NETWORK)
    if kind not in ("", "Standard", "LoRA-FA"):
        passed |= set(CONVOLUTIONS)
    if not lycoris and kind != "Kohya DyLoRA":
        passed.discard("unit")
    arguments = {name: data[name] for name in NETWORK_ARGUMENTS if name in passed and data.get(name) not in OFF}
    if lycoris:
        arguments["algo"] = kind.rpartition("/")[2].lower()
        arguments["preset"] = data.get("LyCORIS_preset") or "full"
        arguments.pop("unit", None)
        if arguments["algo"] in ("lora", "locon", "loha"):
            arguments.pop("factor", None)
    module = NETWORKS.get(kind, LYCORIS if lycoris else kind)
    return {"network_module": module, "network_args": [f"{name}={value}" for name, value in arguments.items()]}


def noise(data: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The GUI passes on the settings of one kind of noise only."""
    kind = data.get("noise_offset_type") or "Original"
    original = ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    multires = ("multires_noise_iterations", "multires_noise_discount")
    unset = multires if kind == "Original" else original
    if kind == "Multires" and not number(data.get("multires_noise_iterations")):
        unset += multires
    for name in unset:
        found.pop(name, None)
    return {}


def additional(line: str, notes: Notes) -> dict[str, Any]:
    """Options from a piece of command line: --name, --name value, --name=value, --name a b c."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        notes.faults.append(f"additional_parameters cannot be read as a command line: {error}.")
        return {}
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = [value] if equals else []
        elif name:
            found[name].append(word)
        else:
            notes.say("additional_parameters", word, "It belongs to no option and is left out.")
    lists = ("optimizer_args", "network_args", "lr_scheduler_args", "base_weights", "text_encoder_lr")
    return {
        name: parts if name in lists else (parts[0] if len(parts) == 1 else " ".join(parts)) if parts else True
        for name, parts in found.items()
    }
