"""The private engine: diffusers and its kin for the child process, kept apart from the host's own packages.

The host's versions are used when all of them suffice. Else one pinned set lives in a folder of ours, put in front of
the child's sys.path: never a mixture, since transformers, tokenizers and huggingface_hub fit each other exactly.
torch, numpy and Pillow are always the host's. Uninstalling is deleting the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lora_core.errors import EngineMissing

ROOT = Path(__file__).resolve().parent.parent
STAMP = "engine.json"
NEEDS_NO_ENGINE = "Merging, converting, extracting, resizing, inspecting and masks work without it."


@dataclass(frozen=True)
class Package:
    """A distribution: `pin` is what we install; the host's suffices from `least` up to, not including, `below`."""

    name: str
    pin: str
    least: str
    below: str = ""
    module: str = ""

    def suffices(self, version: str | None) -> bool:
        if version is None:
            return False
        found = numbers(version)
        return numbers(self.least) <= found and not (self.below and found >= numbers(self.below))

    @property
    def imported_as(self) -> str:
        return self.module or self.name


# One set serves torch 2.1.2 to 2.13, numpy 1.26 to 2.4, Pillow 9.5 to 13 and Python 3.10 to 3.13.
ENGINE = (
    Package("diffusers", "0.32.2", "0.32", "0.33"),
    Package("transformers", "4.48.3", "4.48", "4.49"),
    Package("tokenizers", "0.21.0", "0.21", "0.22"),
    Package("huggingface_hub", "0.27.1", "0.24", "1.0"),
    Package("peft", "0.14.0", "0.14", "0.15"),
    Package("accelerate", "1.2.1", "1.0", "2.0"),
    Package("safetensors", "0.5.3", "0.4.2", "1.0"),
)
# What the set imports besides, each independent of the others: installed one by one, only where the host lacks it.
HELPERS = (
    Package("filelock", "3.16.1", "3.0"),
    Package("fsspec", "2024.12.0", "2023.5"),
    Package("packaging", "24.2", "20.0"),
    Package("PyYAML", "6.0.2", "5.1", module="yaml"),
    Package("regex", "2024.11.6", "2020.1"),
    Package("requests", "2.32.3", "2.26"),
    Package("urllib3", "2.2.3", "1.26"),
    Package("idna", "3.10", "2.5"),
    Package("certifi", "2024.12.14", "2017.4"),
    Package("charset-normalizer", "3.4.1", "2.0", module="charset_normalizer"),
    Package("tqdm", "4.67.1", "4.27"),
    Package("psutil", "6.1.1", "5.0"),
    Package("typing_extensions", "4.12.2", "3.7.4"),
)
HOST = (Package("torch", "", "2.1"), Package("numpy", "", "1.26"), Package("Pillow", "", "9.5", module="PIL"))
# Optional parts of the host that the engine would import by itself and that a LoRA never needs.
HIDDEN = (
    "apex",
    "auto_gptq",
    "deepspeed",
    "flash_attn",
    "flax",
    "jax",
    "onnx",
    "onnxruntime",
    "optimum",
    "tensorflow",
    "torch_xla",
    "torchaudio",
    "torchvision",
    "wandb",
    "xformers",
)


@dataclass(frozen=True)
class Plan:
    """What to do for one host. `install` is empty when its own versions suffice; `reason` says why it is as it is."""

    install: tuple[Package, ...]
    reason: str
    host: Mapping[str, str | None]

    @property
    def folder_name(self) -> str:
        """Python and platform, version of our set, what of it goes in: hosts that differ never share a folder."""
        return f"{generation()}-{digest(self.install)}"


@dataclass(frozen=True)
class Engine:
    """An engine that is ready. `folders` go in front of the child's sys.path; `source`: "host" or "overlay"."""

    folders: tuple[str, ...]
    versions: Mapping[str, str]
    source: str
    reason: str


def numbers(version: str) -> tuple[int, ...]:
    """The release part of a version as numbers: "2.1.2+cu121" -> (2, 1, 2)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version.lstrip("vV"))[0]))


def digest(packages: Sequence[Package]) -> str:
    return hashlib.sha256(" ".join(f"{p.name}=={p.pin}" for p in packages).encode()).hexdigest()[:6]


def generation() -> str:
    """Names what compiled packages fit and the version of our set: "cp310-linux-x86_64-b0a3b1"."""
    parts = (
        f"cp{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}",
        sysconfig.get_platform(),
    )
    return re.sub(r"[^A-Za-z0-9_-]", "_", "-".join((*parts, digest((*ENGINE, *HELPERS)))))


def host_versions(path: Sequence[str] | None = None) -> dict[str, str | None]:
    """Installed versions by distribution, None where missing, read from metadata alone: nothing is imported."""
    where = list(sys.path if path is None else path)
    return {p.name: installed_version(p.name, where) for p in (*ENGINE, *HELPERS, *HOST)}


def installed_version(name: str, path: list[str]) -> str | None:
    for distribution in metadata.distributions(name=name, path=path):
        version: Any = distribution.metadata["Version"]
        return version
    return None


def plan(versions: Mapping[str, str | None]) -> Plan:
    """Decide for the whole set at once. Raises EngineMissing when torch, numpy or Pillow are absent or too old."""
    for package in HOST:
        if not package.suffices(versions.get(package.name)):
            found = versions.get(package.name)
            raise EngineMissing(
                f"{package.name} {package.least} or newer is needed, but {sys.executable} has "
                f"{f'version {found}' if found else 'none'}. Run this with the Python of ComfyUI or the WebUI itself."
            )
    helpers = tuple(p for p in HELPERS if not p.suffices(versions.get(p.name)))
    misfits = [p for p in ENGINE if not p.suffices(versions.get(p.name))]
    if not misfits:
        return Plan(helpers, "the host's own versions suffice", versions)
    words = ", ".join(f"{p.name} {versions.get(p.name) or 'missing'}" for p in misfits)
    return Plan((*ENGINE, *helpers), f"the host's own versions do not fit ({words})", versions)


def places(root: Path = ROOT) -> tuple[Path, ...]:
    """Where an engine may live: beside the code, or in the user's data folder when that is not writable."""
    return root / ".engine", user_data_folder() / "lora-loom" / "engine"


def user_data_folder() -> Path:
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def find(wanted: Plan, among: Sequence[Path]) -> Path | None:
    """The folder of a complete engine for this plan. Folders without a stamp, or with parts missing, do not count."""
    for place in among:
        folder = place / wanted.folder_name
        if complete(folder):
            return folder
    return None


def complete(folder: Path) -> bool:
    try:
        stamp = json.loads((folder / STAMP).read_text("utf-8"))
        return all((folder / part).exists() for part in stamp["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def engine(root: Path = ROOT, versions: Mapping[str, str | None] | None = None) -> Engine:
    """The engine that is ready for this interpreter. Raises EngineMissing, with what to do, when there is none."""
    wanted = plan(host_versions() if versions is None else versions)
    folder = find(wanted, places(root)) if wanted.install else None
    if wanted.install and folder is None:
        raise EngineMissing(
            f"The training engine is not installed yet: {wanted.reason}. Run once: "
            f'"{sys.executable}" "{root / "install.py"}". {NEEDS_NO_ENGINE}'
        )
    return as_engine(wanted, folder)


def as_engine(wanted: Plan, folder: Path | None) -> Engine:
    ours = {p.name: p.pin for p in wanted.install}
    versions = {p.name: ours.get(p.name) or str(wanted.host.get(p.name)) for p in ENGINE}
    source = "overlay" if ENGINE[0] in wanted.install else "host"
    return Engine((str(folder),) if folder else (), versions, source, wanted.reason)


def isolation() -> list[str]:
    """Flags for a child of this interpreter: isolated as it is, without the user's packages unless torch is there."""
    if sys.flags.isolated:
        return ["-I"]
    user = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    return [] if user and os.path.isdir(os.path.join(user, "torch")) else ["-s"]


def hide_unneeded() -> None:
    """For the child: packages of the host that often do not fit the engine count as not installed."""
    for name in HIDDEN:
        sys.modules.setdefault(name, None)  # type: ignore[call-overload]
