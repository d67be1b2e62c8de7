"""All that LoRA Loom asks of ComfyUI; the only module that imports it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .declare import SAMPLER_NAME, SCHEDULER_NAME

OWN_FOLDER = "lora_loom"


# Folders and files


def folders(kind: str) -> list[Path]:
    """The folders that ComfyUI searches for models of a kind: "checkpoints", "loras", "vae", "embeddings"."""
    import folder_paths  # type: ignore[import-not-found]

    try:
        return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
    except KeyError:
        return []


def files(kind: str) -> list[str]:
    """The names that ComfyUI lists for a kind of models."""
    import folder_paths  # type: ignore[import-not-found]

    try:
        return list(folder_paths.get_filename_list(kind))
    except KeyError:
        return []


def file_path(kind: str, name: str) -> Path | None:
    """Where the model of that name lies; None for a name that ComfyUI does not list."""
    import folder_paths  # type: ignore[import-not-found]

    found = folder_paths.get_full_path(kind, name) if name in files(kind) else None
    return Path(found) if found else None


def input_folder() -> Path:
    import folder_paths  # type: ignore[import-not-found]

    return Path(folder_paths.get_input_directory())


def input_files() -> list[str]:
    """The files of the input folder itself, as Load Image lists them."""
    folder = input_folder()
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file()) if folder.is_dir() else []


def output_folder() -> Path:
    import folder_paths  # type: ignore[import-not-found]

    return Path(folder_paths.get_output_directory())


def temp_folder() -> Path:
    import folder_paths  # type: ignore[import-not-found]

    return Path(folder_paths.get_temp_directory())


def user_folder() -> Path:
    """A folder of our own in ComfyUI's user folder: settings, and what is known of jobs."""
    import folder_paths  # type: ignore[import-not-found]

    return Path(folder_paths.get_user_directory()) / OWN_FOLDER


def next_pictures(prefix: str, folder: Path) -> tuple[Path, str, int]:
    """Folder, name and first free number for pictures saved as ComfyUI saves them; refuses other folders."""
    import folder_paths  # type: ignore[import-not-found]

    place, name, number, _, _ = folder_paths.get_save_image_path(prefix, str(folder))
    return Path(place), name, number


def keeps_metadata() -> bool:
    """False when ComfyUI was started with --disable-metadata."""
    try:
        from comfy.cli_args import args  # type: ignore[import-not-found]
    except ImportError:
        return True
    return not getattr(args, "disable_metadata", False)


# Execution


def interrupted() -> bool:
    """Whether the user pressed stop; the flag stays up."""
    from comfy import model_management  # type: ignore[import-not-found]

    return bool(model_management.processing_interrupted())


def raise_interrupted() -> None:
    """End this node as interrupted, as ComfyUI's own nodes do."""
    from comfy import model_management  # type: ignore[import-not-found]

    raise model_management.InterruptProcessingException()


class Bar:
    """ComfyUI's progress bar of one node, its previews, and a line of text on the node."""

    def __init__(self, node_id: str) -> None:
        from comfy.utils import ProgressBar  # type: ignore[import-not-found]

        self.node_id = node_id
        self._bar = ProgressBar(1, node_id=node_id or None)

    def show(self, done: int, total: int, picture: Any = None, largest: int = 512) -> None:
        """A stop does not raise: it is polled for with `interrupted`, so that what was trained is kept."""
        from comfy import model_management  # type: ignore[import-not-found]

        preview = ("JPEG", picture, largest) if picture is not None else None
        try:
            self._bar.update_absolute(done, max(1, total), preview)
        except model_management.InterruptProcessingException:
            model_management.interrupt_current_processing(True)  # the bar has taken the flag down

    def say(self, text: str) -> None:
        server = _server()
        if self.node_id and hasattr(server, "send_progress_text"):
            server.send_progress_text(text, self.node_id)


def tell_pages(event: str, data: dict[str, Any]) -> None:
    """Send a message to every open page."""
    server = _server()
    if server is not None:
        server.send_sync(event, data)


def _server() -> Any:
    try:
        from server import PromptServer  # type: ignore[import-not-found]
    except ImportError:
        return None
    return getattr(PromptServer, "instance", None)


def add_route(method: str, path: str, answer: Callable[[dict[str, str]], Any]) -> None:
    """`answer(the path's parts)` gives JSON values, a Path to send, or None for "not found"; it runs in a thread."""
    import asyncio

    server = _server()
    if server is None:
        return

    async def handle(request: Any) -> Any:
        from aiohttp import web  # type: ignore[import-not-found]

        try:
            found = await asyncio.to_thread(answer, dict(request.match_info))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        if found is None:
            return web.json_response({"error": "There is no such job."}, status=404)
        return web.FileResponse(found) if isinstance(found, Path) else web.json_response(found)

    getattr(server.routes, method)(path)(handle)


# Models


@contextlib.contextmanager
def models_away() -> Iterator[None]:
    """Within: ComfyUI's models have left the graphics memory. Afterwards ComfyUI loads what it needs by itself."""
    free_models()
    try:
        yield
    finally:
        _collect()


def free_models() -> None:
    from comfy import model_management  # type: ignore[import-not-found]

    model_management.unload_all_models()
    _collect()


def _collect() -> None:
    from comfy import model_management  # type: ignore[import-not-found]

    gc.collect()
    model_management.soft_empty_cache()


def read_tensors(path: Path) -> dict[str, Any]:
    """A file's tensors, read by ComfyUI and detached from the file, so that it may be replaced meanwhile."""
    import comfy.utils  # type: ignore[import-not-found]

    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def lora_patches(model: Any, clip: Any, tensors: dict[str, Any]) -> dict[Any, Any]:
    """Patches by the weight that they change, as ComfyUI reads a LoRA's tensors; clip may be None."""
    import comfy.lora  # type: ignore[import-not-found]

    places = comfy.lora.model_lora_keys_unet(model.model, {}) if model is not None else {}
    if clip is not None:
        places = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, places)
    return comfy.lora.load_lora(converted(tensors), places)


def converted(tensors: dict[str, Any]) -> dict[str, Any]:
    try:
        import comfy.lora_convert  # type: ignore[import-not-found]
    except ImportError:
        return tensors
    return comfy.lora_convert.convert_lora(tensors)


def misfits(patcher: Any, patches: dict[Any, Any]) -> list[str]:
    """Weights of a MODEL or CLIP whose LoRA is of other sizes: ComfyUI would leave those out and only log it."""
    if patcher is None:
        return []
    weights = getattr(patcher, "patcher", patcher).model_state_dict()
    return [key for key, patch in patches.items() if key in weights and not fits(patch, weights[key])]


def fits(patch: Any, weight: Any) -> bool:
    """Whether the product of a plain LoRA's two matrices has the weight's size; true for all other kinds of patches."""
    parts = getattr(patch, "weights", ())
    if getattr(patch, "name", "") != "lora" or len(parts) < 4 or any(part is not None for part in parts[3:]):
        return True
    up, down = parts[:2]  # [out, rank, ...], [rank, in, ...]
    return up.shape[0] * down[0].numel() == weight.numel()


def patched(patcher: Any, groups: list[tuple[float, dict[Any, Any]]]) -> tuple[Any, set[Any]]:
    """A copy of a MODEL or CLIP with patches at several strengths, and the patches that belonged to it."""
    result, taken = patcher.clone(), set()
    for strength, patches in groups:
        taken |= set(result.add_patches(patches, strength))
    return result, taken


def family_of(model: Any) -> str:
    """ "sd1", "sd2", "sdxl", "sdxl_refiner", or "" for a model of another kind."""
    name = type(getattr(model.model, "model_config", None)).__name__
    for start, family in (("SDXLRefiner", "sdxl_refiner"), ("SDXL", "sdxl"), ("SD15", "sd1"), ("SD2", "sd2")):
        if name.startswith(start):
            return family
    return ""


# Nodes


def has_v3() -> bool:
    """Whether this ComfyUI knows extensions of the API v3."""
    try:
        from comfy_api.latest import ComfyExtension, io  # type: ignore[import-not-found]
    except ImportError:
        return False
    return bool(ComfyExtension) and hasattr(io, "ComfyNode")


def extension(classes: Callable[[Any], list[type]]) -> Any:
    """The `ComfyExtension` that lists `classes(io)`. Needs ComfyUI's API v3."""
    from comfy_api.latest import ComfyExtension, io  # type: ignore[import-not-found]

    class LoraLoom(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return classes(io)

    return LoraLoom()


def sampler_lists() -> dict[str, list[str]]:
    """Types of outputs that fit the lists of ComfyUI's samplers: those very lists."""
    from comfy.samplers import KSampler  # type: ignore[import-not-found]

    return {SAMPLER_NAME: list(KSampler.SAMPLERS), SCHEDULER_NAME: list(KSampler.SCHEDULERS)}
