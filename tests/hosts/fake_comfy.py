"""A stand-in for the parts of ComfyUI that comfy_nodes/host.py uses: folders, schema classes, execution, messages."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".safetensors", ".ckpt", ".pt")


class Interrupted(Exception):
    """ComfyUI's InterruptProcessingException."""


@dataclass
class Comfy:
    """What a test may look at and change: folders, messages sent to pages, the stop flag, memory calls."""

    base: Path
    models: dict[str, list[str]] = field(default_factory=dict)
    sent: list[tuple[str, Any]] = field(default_factory=list)
    bars: list[tuple[int, int, Any]] = field(default_factory=list)
    routes: dict[tuple[str, str], Any] = field(default_factory=dict)
    unloads: int = 0
    stop: bool = False
    metadata: bool = True
    modules: dict[str, types.ModuleType] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        path = self.base / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def folder_paths(comfy: Comfy) -> types.ModuleType:
    module = types.ModuleType("folder_paths")
    for kind in ("checkpoints", "loras", "vae", "embeddings", "diffusers"):
        comfy.models[kind] = [str(comfy.folder(f"models/{kind}"))]
    comfy.models["loras"].append(str(comfy.folder("output/loras")))

    def listed(kind: str) -> list[str]:
        found = []
        for root in comfy.models[kind]:
            for place, _, names in os.walk(root, followlinks=True):
                found += [os.path.relpath(os.path.join(place, n), root) for n in names if n.endswith(SUFFIXES)]
        return sorted(set(found))

    def full_path(kind: str, name: str) -> str | None:
        name = os.path.relpath(os.path.join("/", name), "/")
        places = (os.path.join(root, name) for root in comfy.models[kind])
        return next((place for place in places if os.path.isfile(place)), None)

    def save_path(prefix: str, root: str, *_: int) -> tuple[str, str, int, str, str]:
        subfolder, name = os.path.split(os.path.normpath(prefix))
        folder = os.path.join(root, subfolder)
        if os.path.commonpath((root, os.path.abspath(folder))) != root:
            raise Exception("**** ERROR: Saving image outside the output folder is not allowed.")
        os.makedirs(folder, exist_ok=True)
        taken = [int(n[len(name) + 1 : len(name) + 6]) for n in os.listdir(folder) if n.startswith(f"{name}_")]
        return folder, name, max(taken, default=0) + 1, subfolder, prefix

    module.get_folder_paths = lambda kind: list(comfy.models[kind])
    module.get_filename_list, module.get_full_path = listed, full_path
    module.get_save_image_path = save_path
    for name in ("input", "output", "temp", "user"):
        place = str(comfy.folder(name))
        setattr(module, f"get_{name}_directory", lambda place=place: place)
    return module


def comfy_package(comfy: Comfy) -> dict[str, types.ModuleType]:
    package, management, utils = (types.ModuleType(f"comfy{n}") for n in ("", ".model_management", ".utils"))
    arguments, samplers = types.ModuleType("comfy.cli_args"), types.ModuleType("comfy.samplers")
    arguments.args = types.SimpleNamespace(disable_metadata=not comfy.metadata)
    samplers.KSampler = types.SimpleNamespace(SAMPLERS=["euler", "ddim"], SCHEDULERS=["normal", "karras"])
    management.InterruptProcessingException = Interrupted
    management.processing_interrupted = lambda: comfy.stop
    management.interrupt_current_processing = lambda value=True: setattr(comfy, "stop", value)
    management.soft_empty_cache = lambda: None

    def unload() -> None:
        comfy.unloads += 1

    management.unload_all_models = unload

    class ProgressBar:
        def __init__(self, total: int, node_id: str | None = None) -> None:
            self.node_id = node_id

        def update_absolute(self, value: int, total: int, preview: Any = None) -> None:
            comfy.bars.append((value, total, preview))
            if comfy.stop:
                comfy.stop = False
                raise Interrupted

    def load_torch_file(path: str, safe_load: bool = False) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        assert safe_load
        return load_file(path)

    utils.ProgressBar, utils.load_torch_file = ProgressBar, load_torch_file
    package.model_management, package.utils, package.samplers = management, utils, samplers
    package.lora = types.ModuleType("comfy.lora")
    package.lora.model_lora_keys_unet = lambda model, keys: {**keys, **model.lora_keys}
    package.lora.model_lora_keys_clip = lambda model, keys: {**keys, **model.lora_keys}
    package.lora.load_lora = load_lora
    found = {"comfy": package, "comfy.model_management": management, "comfy.utils": utils, "comfy.lora": package.lora}
    return {**found, "comfy.cli_args": arguments, "comfy.samplers": samplers}


def load_lora(tensors: dict[str, torch.Tensor], keys: dict[str, str]) -> dict[str, Any]:
    """kohya's plain LoRA alone: weight -> (up, down, alpha)."""
    found = {}
    for name, weight in keys.items():
        parts = [f"{name}.lora_up.weight", f"{name}.lora_down.weight", f"{name}.alpha"]
        if parts[0] in tensors:
            found[weight] = Adapter(tensors[part] for part in parts)
    return found


class Adapter(tuple):
    """(up, down, alpha) as ComfyUI's LoRAAdapter holds them."""

    name = "lora"

    @property
    def weights(self) -> tuple[Any, ...]:
        return (*self, None, None, None)


class Patcher:
    """A MODEL or CLIP: weights by name, patches added to copies."""

    def __init__(self, weights: dict[str, torch.Tensor], lora_keys: dict[str, str], config: str = "SD15") -> None:
        self.weights, self.patches = weights, {}
        inner = types.SimpleNamespace(lora_keys=lora_keys, model_config=type(config, (), {})())
        self.model = self.cond_stage_model = inner

    def clone(self) -> Patcher:
        other = Patcher(self.weights, self.model.lora_keys, type(self.model.model_config).__name__)
        other.patches = dict(self.patches)
        return other

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        return self.weights

    def add_patches(self, patches: dict[str, Any], strength: float) -> list[str]:
        taken = [key for key in patches if key in self.weights]
        for key in taken:
            self.patches[key] = (strength, patches[key])
        return taken


class Input:
    def __init__(self, kind: str, name: str, label: Any, optional: bool, help: Any, extra: Any = None) -> None:
        self.type, self.id, self.optional = kind, name, optional
        self.said = {"display_name": label, "tooltip": help, **(extra or {})}


class Output:
    def __init__(self, kind: Any, name: str, label: str, help: str, many: bool) -> None:
        self.type, self.id, self.label, self.help, self.many = kind, name, label, help, many


def custom(kind: str) -> Any:
    def make_input(name: str, label: Any, optional: bool, help: Any, extra_dict: Any = None) -> Input:
        return Input(kind, name, label, optional, help, extra_dict)

    def make_output(name: str, label: str, help: str, many: bool) -> Output:
        return Output(kind, name, label, help, many)

    return types.SimpleNamespace(Input=make_input, Output=make_output)


def combo_output(name: str, label: str, options: list[str], help: str, many: bool) -> Output:
    return Output(options, name, label, help, many)


def api() -> dict[str, types.ModuleType]:
    package, latest = types.ModuleType("comfy_api"), types.ModuleType("comfy_api.latest")
    latest.ComfyExtension = type("ComfyExtension", (), {})
    latest.io = types.SimpleNamespace(
        ComfyNode=type("ComfyNode", (), {"hidden": None}),
        Custom=custom,
        Combo=types.SimpleNamespace(Output=combo_output),
        Hidden=types.SimpleNamespace(unique_id="UNIQUE_ID", prompt="PROMPT", extra_pnginfo="EXTRA_PNGINFO"),
        Schema=lambda **said: types.SimpleNamespace(**said),
        NodeOutput=lambda *values, ui=None: types.SimpleNamespace(values=values, ui=ui),
    )
    return {"comfy_api": package, "comfy_api.latest": latest}


def server(comfy: Comfy) -> types.ModuleType:
    module = types.ModuleType("server")

    class Routes:
        def __getattr__(self, method: str) -> Any:
            def at(path: str) -> Any:
                return lambda handler: comfy.routes.setdefault((method, path), handler)

            return at

    def send(event: str, data: Any, sid: Any = None) -> None:
        comfy.sent.append((event, data))

    instance = types.SimpleNamespace(
        routes=Routes(), send_sync=send, send_progress_text=lambda text, node: comfy.sent.append(("text", (node, text)))
    )
    module.PromptServer = types.SimpleNamespace(instance=instance)
    return module


@contextlib.contextmanager
def running(base: Path, v3: bool = True) -> Iterator[Comfy]:
    """A ComfyUI whose folders lie in `base`; its modules are in sys.modules meanwhile."""
    comfy = Comfy(base)
    comfy.modules = {"folder_paths": folder_paths(comfy), "server": server(comfy), **comfy_package(comfy)}
    comfy.modules |= api() if v3 else {}
    before = {name: sys.modules.get(name) for name in (*comfy.modules, "comfy_api", "comfy_api.latest")}
    sys.modules.update(comfy.modules)
    try:
        yield comfy
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def load_pack(base: Path) -> Any:
    """Our pack as ComfyUI loads it: by its folder's path, which becomes the module's name."""
    name = str(base / "custom_nodes" / "lora-loom").replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def nodes_of(pack: Any) -> dict[str, type]:
    """Node id -> class, as ComfyUI asks for them."""
    if hasattr(pack, "NODE_CLASS_MAPPINGS"):
        return dict(pack.NODE_CLASS_MAPPINGS)
    extension = asyncio.run(pack.comfy_entrypoint())
    return {node.__name__: node for node in asyncio.run(extension.get_node_list())}


def run_node(node: type, values: dict[str, Any], node_id: str = "1", page: Any = None) -> Any:
    """Execute a v3 class with hidden inputs, as ComfyUI does: on a copy, under inference mode."""
    copy: Any = type(node.__name__, (node,), {})
    copy.hidden = types.SimpleNamespace(
        unique_id=node_id, prompt={"1": {"class_type": node.__name__}}, extra_pnginfo=page
    )
    with torch.inference_mode():
        return copy.execute(**values)


def defaults(node: Any, **given: Any) -> dict[str, Any]:
    """What ComfyUI would send for a fresh node: the defaults of its widgets, and `given`."""
    values = {}
    for port in node.define_schema().inputs:
        if "default" in port.said:
            values[port.id] = port.said["default"]
        elif port.said.get("options"):
            values[port.id] = port.said["options"][0]
    return {**values, **given}
