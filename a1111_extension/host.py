"""AUTOMATIC1111 v1.6.1 to v1.10.1 and Forge: folders, lists, flags. Only host*.py know how they differ."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .guard import is_local
from .host_api import Choice


def the(name: str) -> ModuleType:
    """A module of the WebUI, e.g. `the("shared")`."""
    return importlib.import_module(f"modules.{name}")


def first_of(*names: str) -> ModuleType:
    """A module that was renamed between versions."""
    for name in names[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return the(name)
    return the(names[-1])


def is_forge() -> bool:
    return "modules_forge" in sys.modules


def name() -> str:
    return "Forge" if is_forge() else "AUTOMATIC1111"


def flag(flag_name: str, default: Any = None) -> Any:
    """A command line flag of the WebUI; versions lack some of them."""
    return getattr(the("shared").cmd_opts, flag_name, default)


# Folders and lists


def folders(*flags: str, below_models: str = "") -> tuple[Path, ...]:
    """The folders that flags name, and the one below `models`, each once, without those that do not exist."""
    named = [flag(flag_name) for flag_name in flags]
    named += [os.path.join(the("paths_internal").models_path, below_models)] if below_models else []
    found = [Path(os.path.abspath(folder)) for folder in named if folder]
    return tuple(dict.fromkeys(folder for folder in found if folder.is_dir()))


def lora_folders() -> tuple[Path, ...]:
    own = flag("lora_dir") or os.path.join(the("paths_internal").models_path, "Lora")
    others = folders("lyco_dir_backcompat", "lyco_dir")
    return tuple(dict.fromkeys((Path(os.path.abspath(own)), *others)))


def checkpoint_folders() -> tuple[Path, ...]:
    return folders("ckpt_dir", below_models="Stable-diffusion")


def vae_folders() -> tuple[Path, ...]:
    return folders("vae_dir", below_models="VAE")


def embedding_folders() -> tuple[Path, ...]:
    return folders("embeddings_dir")


def data_folder() -> Path:
    return Path(os.path.abspath(the("paths_internal").data_path)) / "lora-loom"


def output_folders() -> tuple[Path, ...]:
    """Where pictures are written: settings are relative to the WebUI's folder."""
    opts, internal = the("shared").opts, the("paths_internal")
    keys = (
        "outdir_samples",
        "outdir_img2img_samples",
        "outdir_txt2img_samples",
        "outdir_extras_samples",
        "outdir_save",
    )
    named = [getattr(opts, key, "") for key in keys]
    default = os.path.join(internal.data_path, "outputs")
    found = [os.path.abspath(os.path.join(internal.script_path, folder)) for folder in named if folder]
    return tuple(Path(folder) for folder in dict.fromkeys((*found, os.path.abspath(default))))


def picture_folder() -> Path:
    """The folder of pictures made today."""
    opts = the("shared").opts
    daily = getattr(opts, "save_to_dirs", False) and getattr(opts, "directories_filename_pattern", "") == "[date]"
    return output_folders()[0] / (time.strftime("%Y-%m-%d") if daily else "")


def checkpoints() -> tuple[Choice, ...]:
    infos = the("sd_models").checkpoints_list.values()
    return tuple({info.filename: Choice(info.name, info.filename) for info in infos}.values())


def current_checkpoint() -> str:
    """The file of the loaded model, else of the chosen one; nothing is loaded for it."""
    models, opts = the("sd_models"), the("shared").opts
    loaded = getattr(models.model_data.sd_model, "sd_checkpoint_info", None)
    info = loaded or models.checkpoint_aliases.get(getattr(opts, "sd_model_checkpoint", None))
    return getattr(info, "filename", "")


def vaes() -> tuple[Choice, ...]:
    vae = the("sd_vae")
    if not vae.vae_dict:
        vae.refresh_vae_list()
    return tuple(Choice(title, path) for title, path in vae.vae_dict.items())


def loras() -> tuple[Choice, ...]:
    networks = lora_extension()
    entries = networks.available_networks.values() if networks else ()
    return tuple(Choice(title_in(lora_folders(), entry.filename), entry.filename) for entry in list(entries))


def title_in(places: Sequence[Path], path: str) -> str:
    """A file's path relative to the folder it is in, without its suffix."""
    stem = os.path.splitext(path)[0]
    for place in places:
        if stem.startswith(str(place) + os.sep):
            return stem[len(str(place)) + 1 :].replace("\\", "/")
    return os.path.basename(stem)


def lora_extension() -> ModuleType | None:
    """The module `networks` of the built-in Lora extension; None when that is switched off."""
    networks = sys.modules.get("networks")
    return networks if hasattr(networks, "available_networks") else None


def refresh() -> None:
    """Read the folders of LoRAs and base models again."""
    networks = lora_extension()
    if networks is not None:
        networks.list_available_networks()
    the("sd_models").list_models()


# Who may use the API


def api_credentials() -> dict[str, str]:
    """--api-auth: passwords by user."""
    pairs = (pair.partition(":") for pair in (flag("api_auth") or "").split(",") if pair.strip())
    return {user: password for user, _, password in pairs}


def page_credentials() -> dict[str, str]:
    """--gradio-auth and --gradio-auth-path: passwords by user."""
    if flag("nowebui"):
        return {}
    return {pair[0]: pair[1] for pair in the("initialize_util").get_gradio_auth_creds() if len(pair) == 2}


def is_public() -> bool:
    """Whether the server is meant to be reached from other computers."""
    named = flag("server_name")
    return any(flag(one) for one in ("listen", "share", "ngrok", "nowebui")) or bool(named and not is_local(named))


def allowed_origins() -> tuple[str, ...]:
    """--cors-allow-origins, as the host splits it."""
    return tuple(one.strip() for one in (flag("cors_allow_origins") or "").split(",") if one.strip())


def extra_folders() -> tuple[Path, ...]:
    """--gradio-allowed-path, without the WebUI's own folder, which versions put into it."""
    allowed = flag("gradio_allowed_path") or ()
    every = [Path(os.path.abspath(folder)) for folder in ([allowed] if isinstance(allowed, str) else allowed)]
    return tuple(folder for folder in every if folder != data_folder().parent)
