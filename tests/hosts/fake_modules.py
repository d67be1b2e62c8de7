"""A stand-in for the WebUI's package `modules`, with the names that host.py uses, as v1.10.1 has them."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from types import SimpleNamespace

CALLBACKS = ("after_component", "ui_tabs", "ui_train_tabs", "ui_settings", "app_started", "script_unloaded")


class OptionInfo:
    def __init__(self, default=None, label="", component=None, component_args=None, section=None):
        self.default, self.label, self.component, self.section = default, label, component, section
        self.component_args, self.restrict_api, self.help = component_args or {}, False, ""

    def info(self, text):
        self.help = text
        return self


class Opts:
    def __init__(self, folder):
        self.data = {"outdir_samples": "", "outdir_img2img_samples": "outputs/img2img-images", "save_to_dirs": True}
        self.data |= {"directories_filename_pattern": "[date]", "sd_model_checkpoint": "two.safetensors [abc]"}
        self.added = {}

    def __getattr__(self, name):
        if name not in self.__dict__.get("data", {}):
            raise AttributeError(name)
        return self.data[name]

    def add_option(self, key, info):
        self.added[key] = info
        self.data.setdefault(key, info.default)


class Model:
    """A host's model: where it is, and layers that remember which LoRAs are merged in."""

    def __init__(self, name, device="cuda", lowvram=False):
        self.sd_checkpoint_info = SimpleNamespace(name=name, filename=f"/models/{name}", title=f"{name} [abc]")
        self.device, self.lowvram = SimpleNamespace(type=device), lowvram
        self.network_layer_mapping = {"a": SimpleNamespace(), "b": SimpleNamespace(network_current_names=())}
        self.network_layer_mapping["c"] = SimpleNamespace(network_current_names=(("mine", 1.0, 1.0, None),))

    def parameters(self):
        return iter([SimpleNamespace(device=self.device)])


class Modules:
    """The fake modules by name; `install` puts them into sys.modules for the length of a test."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.said = []
        for sub in ("models/Lora/sub", "models/LyCORIS", "models/Stable-diffusion", "models/VAE", "embeddings"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        self.model = Model("one.safetensors")
        self.scripts = SimpleNamespace(Script=type("Script", (), {}), AlwaysVisible=object())
        self.paths_internal = SimpleNamespace(
            models_path=str(self.folder / "models"), data_path=str(self.folder), script_path=str(self.folder)
        )
        self.shared = SimpleNamespace(
            cmd_opts=self.flags(), opts=Opts(folder), OptionInfo=OptionInfo, state=SimpleNamespace(job="", job_count=0)
        )
        self.call_queue = SimpleNamespace(queue_lock=threading.Lock())
        self.devices = SimpleNamespace(device=SimpleNamespace(type="cpu"), torch_gc=lambda: self.said.append("gc"))
        self.script_callbacks = SimpleNamespace(registered=[])
        for name in CALLBACKS:
            add = self.script_callbacks.registered.append
            setattr(self.script_callbacks, f"on_{name}", lambda callback, name=name, add=add: add((name, callback)))
        self.sd_models = self.model_functions()
        self.sd_vae = SimpleNamespace(vae_dict={}, refresh_vae_list=self.find_vaes)
        self.infotext_utils = SimpleNamespace(
            add_paste_fields=lambda *a: self.said.append(("fields", *a)),
            ParamBinding=lambda *a, **k: (a, k),
            register_paste_params_button=lambda binding: self.said.append(("button", binding)),
        )
        self.initialize_util = SimpleNamespace(get_gradio_auth_creds=lambda: iter([("me", "secret"), ("broken",)]))
        self.processing = SimpleNamespace(
            StableDiffusionProcessing=type("P", (), {"cached_c": ["words", 1], "cached_uc": ["", 2, 3]}),
            StableDiffusionProcessingTxt2Img=type("T", (), {"cached_hr_c": ["words", 1]}),
        )
        self.localization = SimpleNamespace(localizations={})
        self.scripts.list_scripts = lambda folder, ending: []
        self.networks = self.lora_extension()

    def flags(self):
        return SimpleNamespace(
            lora_dir=str(self.folder / "models/Lora"), lyco_dir_backcompat=str(self.folder / "models/LyCORIS"),
            ckpt_dir=None, vae_dir=None, embeddings_dir=str(self.folder / "embeddings"), api_auth=None,
            cors_allow_origins=None, gradio_allowed_path=[str(self.folder)], listen=False, nowebui=False,
        )  # fmt: skip

    def model_functions(self):
        data = SimpleNamespace(sd_model=self.model, loaded_sd_models=[self.model])
        infos = {name: Model(name).sd_checkpoint_info for name in ("one.safetensors", "two.safetensors")}

        def move(model, device):
            model.device.type = device
            self.said.append((device, model.sd_checkpoint_info.name))

        return SimpleNamespace(
            model_data=data,
            checkpoints_list={info.title: info for info in infos.values()},
            checkpoint_aliases={info.title: info for info in infos.values()},
            list_models=lambda: self.said.append("list models"),
            send_model_to_cpu=lambda model: move(model, "cpu"),
            send_model_to_device=lambda model: move(model, "cuda"),
        )

    def find_vaes(self):
        self.sd_vae.vae_dict["a.vae.pt"] = str(self.folder / "models/VAE/a.vae.pt")

    def lora_extension(self):
        entry = SimpleNamespace(filename=str(self.folder / "models" / "Lora" / "sub" / "mine.safetensors"))
        return SimpleNamespace(
            available_networks={"mine": entry},
            networks_in_memory={"mine": object()},
            list_available_networks=lambda: self.said.append("list loras"),
        )

    def install(self, monkeypatch):
        package = types.ModuleType("modules")
        package.__path__ = []
        monkeypatch.setitem(sys.modules, "modules", package)
        monkeypatch.setitem(sys.modules, "networks", self.networks)
        names = (
            *("shared", "paths_internal", "call_queue", "devices", "script_callbacks", "scripts"),
            *("sd_models", "sd_vae", "infotext_utils", "initialize_util", "processing", "localization"),
        )
        for name in names:
            monkeypatch.setitem(sys.modules, f"modules.{name}", getattr(self, name))
        return self
