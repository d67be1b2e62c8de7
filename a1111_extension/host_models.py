"""The models and LoRAs that the host holds in memory: making room for a job, and using a LoRA saved again."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from .host import is_forge, lora_extension, the

SET_ANEW = (("a LoRA that was saved anew", 0, 0, None),)


@contextlib.contextmanager
def between_pictures() -> Iterator[None]:
    """While no picture is made. Keep it short: the host's own Generate waits for it."""
    with the("call_queue").queue_lock:
        yield


def forget_loras() -> None:
    """Make the host read and apply LoRA files anew with its next picture. Call between pictures.

    A1111 compares only names and multipliers with what is merged in; Forge keeps files and patches by name; both keep
    the encoded prompt by its words, and a LoRA may have changed the text encoder.
    """
    forget_prompts()
    networks = lora_extension()
    if networks is None:
        return
    getattr(networks, "networks_in_memory", {}).clear()
    clear = getattr(getattr(networks, "load_lora_state_dict", None), "cache_clear", None)
    if clear is not None:
        clear()
    for model in models():
        if hasattr(model, "current_lora_hash"):
            forget_in_forge(model)
        for layer in getattr(model, "network_layer_mapping", {}).values():
            if getattr(layer, "network_current_names", ()):
                layer.network_current_names = SET_ANEW


def forget_prompts() -> None:
    processing = the("processing")
    for owner in ("StableDiffusionProcessing", "StableDiffusionProcessingTxt2Img"):
        cls = getattr(processing, owner)
        for kept in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if kept in vars(cls):
                setattr(cls, kept, [None] * len(getattr(cls, kept)))


def forget_in_forge(model: Any) -> None:
    model.current_lora_hash = ""
    for part in ("unet", "clip"):
        patcher = getattr(getattr(model, "forge_objects", None), part, None)
        loader = getattr(getattr(patcher, "patcher", patcher), "lora_loader", None)
        if loader is not None:
            loader.loaded_hash = ""


def models() -> list[Any]:
    """The loaded models, the current one first. Loads nothing."""
    data = the("sd_models").model_data
    others = [model for model in getattr(data, "loaded_sd_models", ()) if model is not data.sd_model]
    return [model for model in (data.sd_model, *others) if model is not None]


def accelerator() -> tuple[str, int] | None:
    """The device that pictures are made on and its free bytes; None where it has no memory of its own (cpu, mps)."""
    device = the("devices").device
    if device is None or device.type in ("cpu", "mps"):
        return None
    torch = sys.modules["torch"]
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return str(device), int(free)


def on_accelerator(model: Any) -> bool:
    first = next(iter(model.parameters()), None) if hasattr(model, "parameters") else None
    return first is not None and first.device.type not in ("cpu", "meta")


def unload_models() -> list[Any]:
    """Take the host's models off the accelerator; those that `restore_models` has to bring back. Between pictures."""
    sd_models = the("sd_models")
    if is_forge():
        memory = importlib.import_module("backend.memory_management")
        memory.unload_all_models()
        memory.soft_empty_cache()
        return []
    moved = [model for model in models() if on_accelerator(model)]
    for model in moved:
        sd_models.send_model_to_cpu(model)
    the("devices").torch_gc()
    return moved


def restore_models(moved: Iterable[Any]) -> None:
    """Bring models back that are still the host's. Forge does that by itself with its next picture."""
    for model in moved:
        if any(model is kept for kept in models()):
            the("sd_models").send_model_to_device(model)


def draws() -> bool:
    """Whether the host makes a picture now."""
    state = the("shared").state
    return bool(state.job) or bool(state.job_count)


def give_up_picture() -> None:
    """End the picture that has just begun, as the host's own Interrupt does."""
    the("shared").state.interrupt()


def say_below_picture(p: Any, text: str) -> None:
    """A comment that A1111 shows below the picture (from v1.7)."""
    if hasattr(p, "comment"):
        p.comment(text)
