"""The lists that widgets choose from: ComfyUI's files, folders of pictures, and what comes with LoRA Loom."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.errors import FileError

from . import host
from .declare import Port

NONE = "none"
FOLDERS, INPUT_PICTURES = "folders", "input_pictures"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif")
ASSETS = Path(__file__).resolve().parents[1] / "lora_core" / "assets"
DEMO = ASSETS / "demo"
DEMO_BASE = "demo_base (demo)"
DEMO_SETS = {"armin_vicerre (demo)": DEMO / "armin_vicerre", "held_out (demo)": DEMO / "held_out"}
SETTINGS = "settings.json"
MAX_LISTED, DEPTH = 500, 3


def with_choices(port: Port) -> dict[str, Any]:
    """The options of a widget, with the list that it chooses from as it is now."""
    if not port.listed:
        return dict(port.options)
    return {**port.options, "options": [*port.options.get("options", ()), *listed(port.listed)]}


def listed(kind: str) -> list[str]:
    """The names of a list: of checkpoints, loras, ... as ComfyUI lists them, or of our own lists."""
    own: dict[str, Callable[[], list[str]]] = {
        FOLDERS: picture_folders,
        INPUT_PICTURES: input_pictures,
        "checkpoints": checkpoints,
    }
    return own[kind]() if kind in own else host.files(kind)


def checkpoints() -> list[str]:
    """ComfyUI's, and the demo base, which ComfyUI itself cannot load."""
    return [*host.files("checkpoints"), DEMO_BASE]


def input_pictures() -> list[str]:
    return [name for name in host.input_files() if Path(name).suffix.lower() in PICTURES]


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


def picture_folders() -> list[str]:
    """Folders that may hold pictures, by the names on the node: of input, of allowed folders, and the demo's.

    A settings file that cannot be read hides its folders here; the node that is run says why.
    """
    allowed: tuple[Path, ...] = ()
    with contextlib.suppress(FileError):
        allowed = allowed_folders()
    found = [name for root in (host.input_folder(), *allowed) for name in _below(root)]
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
