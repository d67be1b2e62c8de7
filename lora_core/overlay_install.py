"""Install and remove the private engine: pip into a folder of ours, tried in a child, then renamed into place.

Nothing here touches the host's packages. Two starts at once wait for each other; what is half done is never used.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_core.errors import EngineMissing
from lora_core.lock import locked
from lora_core.overlay import (
    ENGINE,
    NEEDS_NO_ENGINE,
    ROOT,
    STAMP,
    Engine,
    Package,
    Plan,
    as_engine,
    find,
    generation,
    host_versions,
    places,
    plan,
)
from lora_core.overlay_pip import ROOM, call, disk_full, download, sentence

TRIAL = """
import sys
sys.path[:0] = [{folder}]
from importlib import import_module, metadata
import json
for module in {modules}:
    found = import_module(module).__file__
    if not found.startswith({folder}):
        raise SystemExit(f"{{module}} came from {{found}}")
print(json.dumps({{name: metadata.version(name) for name in {names}}}))
"""
# What the engine uses of its packages, imported once so that a set that does not fit this torch is refused.
USED = """
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection
"""


@dataclass(frozen=True)
class Installer:
    """How to install.

    `say` gets sentences for a person; `pip_options` go to pip; `patience`: seconds that another start may take;
    `room`: bytes that must be free; `trial`: code that the fresh engine must survive.
    """

    say: Callable[[str], None] = lambda sentence: None
    pip_options: tuple[str, ...] = ()
    patience: float = 900.0
    room: int = ROOM
    trial: str = USED


def prepare(
    root: Path = ROOT, installer: Installer | None = None, versions: Mapping[str, str | None] | None = None
) -> Engine:
    """The engine for this interpreter, installed first where needed; instant when it is there.

    Raises EngineMissing (no network, broken download, no pip, no writable place) or DiskFull; the host is as it was.
    """
    installer = installer or Installer()
    wanted = plan(host_versions() if versions is None else versions)
    if not wanted.install:
        return as_engine(wanted, None)
    folder = find(wanted, places(root)) or install_once(wanted, writable(places(root)), installer)
    return as_engine(wanted, folder)


def install_once(wanted: Plan, place: Path, installer: Installer) -> Path:
    """Install under a lock; whoever waited for it takes what the other has made."""
    told = "Another start is installing the engine just now; waiting for it."
    try:
        with locked(place / "lock", installer.patience, lambda: installer.say(told)):
            return find(wanted, (place,)) or install(wanted, place, installer)
    except TimeoutError as error:
        raise EngineMissing(
            f"Another start has been installing the engine for {installer.patience:g} seconds. Try again when it is "
            f"done. {NEEDS_NO_ENGINE}"
        ) from error


def install(wanted: Plan, place: Path, installer: Installer) -> Path:
    """Fill a temporary folder, try it, and rename it: either the whole engine is there afterwards or nothing."""
    sweep(place)
    if shutil.disk_usage(place).free < installer.room:
        raise disk_full(place)
    installer.say(
        f"Installing the training engine into {place}: {wanted.reason}. The host's packages stay as they are."
    )
    part, final = place / f"part-{os.getpid()}", place / wanted.folder_name
    try:
        (part / "tmp").mkdir(parents=True)
        download([f"{p.name}=={p.pin}" for p in wanted.install], part, installer.pip_options)
        shutil.rmtree(part / "tmp", ignore_errors=True)
        attempt(wanted.install, part, installer.trial)
        stamp(wanted, part)
        shutil.rmtree(final, ignore_errors=True)
        rename(part, final)
    except OSError as error:
        raise sentence(str(error), place) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    installer.say(f"The training engine is ready: {', '.join(f'{p.name} {p.pin}' for p in wanted.install)}.")
    return final


def attempt(packages: Sequence[Package], part: Path, trial: str) -> None:
    """Import the new packages in a child of this interpreter. Raises EngineMissing when they do not work here."""
    names = [p.name for p in packages]
    code = TRIAL.format(folder=ascii(str(part)), names=names, modules=[p.imported_as for p in packages])
    status, output = call(["-u", "-c", code + (trial if ENGINE[0] in packages else "")])
    lines = output.strip().splitlines() or [f"exit code {status}"]
    versions = next((json.loads(line) for line in lines if line.startswith("{")), {})
    wrong = [f"{p.name} is {versions.get(p.name)}" for p in packages if versions.get(p.name) != p.pin]
    if status != 0 or wrong:
        raise EngineMissing(
            f"The downloaded engine does not work with this Python and torch "
            f"({lines[-1] if status != 0 else ', '.join(wrong)}); it was removed again. {NEEDS_NO_ENGINE}"
        )


def stamp(wanted: Plan, part: Path) -> None:
    """The mark of a complete engine, written last."""
    parts = sorted(entry.name for entry in part.iterdir() if entry.name != "bin")
    facts = {"packages": {p.name: p.pin for p in wanted.install}, "reason": wanted.reason, "parts": parts}
    with open(part / STAMP, "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def rename(part: Path, final: Path) -> None:
    """A virus scanner may hold new files for a moment."""
    for pause in (0.5, 1, 2, 4, 0):
        try:
            os.rename(part, final)
            return
        except PermissionError:
            if not pause:
                raise
            time.sleep(pause)


def sweep(place: Path) -> None:
    """Remove what broken installs and, for the same Python, earlier versions of our set left. Called under the lock."""
    ours = generation()
    for entry in place.iterdir():
        earlier = entry.name.startswith(ours.rpartition("-")[0]) and not entry.name.startswith(ours)
        if entry.is_dir() and (earlier or entry.name.startswith("part-")):
            shutil.rmtree(entry, ignore_errors=True)


def remove(root: Path = ROOT) -> list[Path]:
    """Uninstall: delete the engine's folders, and return them. Raises EngineMissing when something still uses them."""
    gone = [place for place in places(root) if place.is_dir()]
    for place in gone:
        shutil.rmtree(place, ignore_errors=True)
    left = [str(place) for place in gone if place.exists()]
    if left:
        raise EngineMissing(f"{' and '.join(left)} could not be deleted whole: end a running training and try again.")
    return gone


def writable(among: Sequence[Path]) -> Path:
    """The first place that can be written to. Raises EngineMissing when there is none."""
    for place in among:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
    tried = " nor ".join(str(place) for place in among)
    raise EngineMissing(
        f"The training engine cannot be installed: neither {tried} can be written to. {NEEDS_NO_ENGINE}"
    )
