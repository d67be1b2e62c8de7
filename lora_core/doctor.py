"""`python -m lora_core doctor`: what works here, and what to do about the rest, one line a finding."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_core.errors import EngineMissing, LoomError
from lora_core.events import Finished, Loss
from lora_core.jobs import TrainJob
from lora_core.overlay import ROOT, Engine, engine, host_versions, places
from lora_core.overlay_pip import call
from lora_core.remote import spawn
from lora_core.settings import replace_by_name

HOSTS = {"custom_nodes": "ComfyUI", "extensions": "AUTOMATIC1111 or Forge"}
STEPS = 2
MB = 1024 * 1024
PROBE = "import sys; sys.path[:0] = {paths}; from lora_core.engine.probe import main; main({folder})"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. `text` says what is, or what is wrong and what to do."""

    name: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok   ' if self.ok else 'WRONG'}  {self.name}: {self.text}"


def main(arguments: list[str] | None = None) -> int:
    """Print the findings; 0 when all are ok, 1 otherwise."""
    parser = argparse.ArgumentParser("python -m lora_core doctor", description="Say what works here.")
    parser.add_argument("--json", action="store_true", help="print one JSON object for programs")
    parser.add_argument("--no-training", action="store_true", help="leave out the two-step training of a tiny model")
    options = parser.parse_args(arguments)
    found = []
    for finding in findings(training=not options.no_training):
        found.append(finding)
        if not options.json:
            print(finding, flush=True)
    healthy = all(finding.ok for finding in found)
    if options.json:
        print(json.dumps({"ok": healthy, "findings": [dataclasses.asdict(f) for f in found]}))
    return 0 if healthy else 1


def findings(root: Path = ROOT, training: bool = True) -> Iterator[Finding]:
    """Look at Python, host, folders and engine; the engine itself is tried in a child, as a training would."""
    yield python()
    yield host(root)
    yield from folders(root)
    try:
        ready = engine(root)
    except EngineMissing as error:
        yield Finding("engine", False, str(error))
        return
    yield told(ready)
    temporary = Path(tempfile.mkdtemp(prefix="lora-loom-doctor-"))
    try:
        probed = list(probe(ready, temporary))
        yield from probed
        if training and all(finding.ok for finding in probed):
            yield trained(ready, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def python() -> Finding:
    version = platform.python_version()
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    wish = "" if fits else " LoRA Loom needs 3.10 to 3.13: run it with the host's Python."
    return Finding("python", fits, f"{version} ({sys.executable}), {platform.platform()}.{wish}")


def host(root: Path) -> Finding:
    """The host is told by the folder that we lie in."""
    name = HOSTS.get(root.parent.name)
    versions = host_versions()
    kept = ", ".join(f"{p} {versions[p] or 'missing'}" for p in ("torch", "numpy", "Pillow"))
    where = f"installed in {name} ({root.parents[1]})" if name else "on its own, in no host's folder"
    return Finding("host", True, f"{where}; its packages: {kept}.")


def folders(root: Path) -> Iterator[Finding]:
    """Whether the engine and temporary files have a place, and the room there."""
    for name, among in (("engine folder", places(root)), ("temporary folder", (Path(tempfile.gettempdir()),))):
        place = next((p for p in among if writable(p)), None)
        if place is None:
            tried = " nor ".join(str(p) for p in among)
            yield Finding(name, False, f"cannot write to {tried}: allow it for this user.")
        else:
            yield Finding(name, True, f"{place}, {shutil.disk_usage(existing(place)).free // MB} MB free.")


def existing(place: Path) -> Path:
    return next(p for p in (place, *place.parents) if p.exists())


def writable(place: Path) -> bool:
    return existing(place).is_dir() and os.access(existing(place), os.W_OK)


def told(ready: Engine) -> Finding:
    versions = ", ".join(f"{name} {version}" for name, version in ready.versions.items())
    where = f"private, in {ready.folders[0]}" if ready.source == "overlay" else "the host's own packages"
    return Finding("engine", True, f"{where}, because {ready.reason}: {versions}.")


def probe(ready: Engine, temporary: Path) -> Iterator[Finding]:
    """Import the engine in a child and try its device; it leaves a tiny base and pictures in `temporary`."""
    code = PROBE.format(paths=ascii([*ready.folders, str(ROOT)]), folder=ascii(str(temporary)))
    status, output = call(["-c", code])
    lines = output.strip().splitlines() or ["no output"]
    for line in lines:
        if line.startswith('{"name"'):
            yield Finding(**json.loads(line))
    if status != 0:
        yield Finding("engine", False, f"it does not start ({lines[-1]}). Run install.py --uninstall, then install.py.")


def tiny_job(temporary: Path) -> TrainJob:
    """Two steps on what the probe has left."""
    values = {
        "base": str(temporary / "base"),
        "folder": str(temporary / "pictures"),
        "output_dir": str(temporary / "out"),
        "name": "doctor",
        "steps": STEPS,
        "rank": 2,
        "width": 64,
        "height": 64,
        "min_bucket": 64,
        "max_bucket": 64,
    }
    return replace_by_name(TrainJob(), values)


def trained(ready: Engine, temporary: Path) -> Finding:
    """Train in a child as the hosts do. Success is the worker's: it re-opens and checks the file that it wrote."""
    losses: list[float] = []
    written: tuple[str, ...] = ()
    try:
        for event in spawn(tiny_job(temporary), overlay=ready.folders):
            if isinstance(event, Loss) and event.loss is not None:
                losses.append(event.loss)
            elif isinstance(event, Finished):
                written = event.outputs
    except LoomError as error:
        return Finding("training", False, f"two steps on a tiny model failed: {error}")
    size = os.path.getsize(written[0]) if written and os.path.exists(written[0]) else 0
    if len(losses) != STEPS or not size:
        return Finding("training", False, f"{len(losses)} of {STEPS} steps were made and {size} bytes written.")
    shown = ", ".join(f"{loss:.4f}" for loss in losses)
    return Finding(
        "training", True, f"{STEPS} steps on a tiny model, losses {shown}, LoRA of {size // 1024} KB checked."
    )
