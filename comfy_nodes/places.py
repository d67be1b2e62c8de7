"""Which folders a graph may read and write, and where our results go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from lora_core.confine import confine_job, confined, with_links
from lora_core.errors import ConfigError, FileError

from . import host

ASSETS = Path(__file__).resolve().parents[1] / "lora_core" / "assets"
DEMO = ASSETS / "demo"
DEMO_BASE = "demo_base (demo)"
DEMO_SETS = {"armin_vicerre (demo)": DEMO / "armin_vicerre", "held_out (demo)": DEMO / "held_out"}
MODEL_KINDS = ("checkpoints", "loras", "vae", "embeddings", "diffusers")
SETTINGS = "settings.json"
NO_FOLDER = "none"
MAX_LISTED, DEPTH = 500, 3
J = TypeVar("J")


def settings_file() -> Path:
    return host.user_folder() / SETTINGS


def allowed_folders() -> tuple[Path, ...]:
    """Further folders that the user's settings file allows: {"allowed_folders": ["D:/pictures"]}."""
    path = settings_file()
    if not path.exists():
        return ()
    try:
        named = json.loads(path.read_text("utf-8")).get("allowed_folders", [])
        return tuple(Path(name) for name in named if isinstance(name, str) and Path(name).is_absolute())
    except (OSError, ValueError, AttributeError) as error:
        raise FileError(f"{path} cannot be read ({error}): mend or delete it.") from None


def write_roots() -> tuple[Path, ...]:
    return (host.output_folder(), *host.folders("loras"), *host.folders("checkpoints")[:1], host.temp_folder())


def read_roots() -> tuple[Path, ...]:
    """ComfyUI's models (and what links in them point to), input, output, temp, our demo, what the user allowed."""
    models = [folder for kind in MODEL_KINDS for folder in host.folders(kind)]
    return (host.input_folder(), *write_roots(), *with_links(models), DEMO, *allowed_folders())


def checked(job: J) -> J:
    """The job with every path confined. Raises ConfigError for paths that lead elsewhere."""
    return confine_job(job, read_roots(), write_roots())


def picture_folders() -> list[str]:
    """Folders that may hold pictures, by the names on the node: of input, of allowed folders, and the demo's."""
    found = [name for root in (host.input_folder(), *allowed_folders()) for name in _below(root)]
    return [*found[:MAX_LISTED], *DEMO_SETS]


def _below(root: Path) -> list[str]:
    own = root == host.input_folder()
    names = [] if own else [root.as_posix()]
    todo = [(root, 0)]
    while todo and len(names) < MAX_LISTED:
        folder, depth = todo.pop(0)
        try:
            children = sorted(c for c in folder.iterdir() if c.is_dir() and not c.name.startswith("."))
        except OSError:
            continue
        names += [c.relative_to(root).as_posix() if own else c.as_posix() for c in children]
        todo += [(c, depth + 1) for c in children if depth + 1 < DEPTH]
    return names


def picture_folder(listed: str, typed: str = "") -> str:
    """The folder chosen from the list, or typed. Raises ConfigError for one that may not be read; "" for none."""
    name = typed.strip() or (listed if listed != NO_FOLDER else "")
    if not name:
        return ""
    if name in DEMO_SETS:
        return str(DEMO_SETS[name])
    try:
        found = confined(name, (host.input_folder(), host.output_folder(), host.temp_folder(), *allowed_folders()))
    except ConfigError as error:
        raise ConfigError(
            f"{error} Put the pictures into a folder of {host.input_folder()}, or allow their folder in "
            f'{settings_file()}: {{"allowed_folders": ["/where/they/are"]}}'
        ) from None
    if not found.is_dir():
        raise ConfigError(f"There is no folder {name!r} in {host.input_folder()}.")
    return str(found)


def lora_folder() -> Path:
    """Where new LoRAs go: ComfyUI's first folder for them."""
    folders = host.folders("loras")
    if not folders:
        raise ConfigError("ComfyUI has no folder for LoRAs.")
    folders[0].mkdir(parents=True, exist_ok=True)
    return folders[0]


def checkpoint_folder() -> Path:
    folders = [folder for folder in host.folders("checkpoints") if folder != DEMO]
    if not folders:
        raise ConfigError("ComfyUI has no folder for checkpoints.")
    folders[0].mkdir(parents=True, exist_ok=True)
    return folders[0]


def work_folder(name: str) -> Path:
    """State, cache and previews of a training: not in the folder for LoRAs, whose list would show them."""
    return host.output_folder() / host.OWN_FOLDER / name


def temp_folder() -> Path:
    folder = host.temp_folder() / host.OWN_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def listed_name(kind: str, path: Path) -> str:
    """The name under which ComfyUI lists a file, or its path where it lists none."""
    for folder in host.folders(kind):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)


def as_json(value: Any) -> str:
    """As ComfyUI writes graphs into pictures."""
    return json.dumps(value)
