"""pip, run by the host's interpreter into a folder of ours, and its last words as sentences for a person."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_core.errors import DiskFull, EngineMissing, LoomError
from lora_core.overlay import NEEDS_NO_ENGINE, isolation

MB = 1024 * 1024
ROOM = 500 * MB
SENDS_ELSEWHERE = ("TARGET", "PREFIX", "ROOT", "CONSTRAINT", "REQUIREMENT", "EDITABLE", "DRY_RUN", "NO_BINARY")
FULL = ("no space left", "errno 28", "errno 122", "winerror 112", "disk quota")
BROKEN = (
    "do not match the hashes",
    "is invalid",
    "badzipfile",
    "not a zip file",
    "bad magic number",
    "bad crc",
    "incompleteread",
    "incomplete-download",
)
OFFLINE = (
    "connection broken",
    "connection aborted",
    "getaddrinfo failed",
    "name resolution",
    "name or service not known",
    "nodename nor servname",
    "failed to establish",
    "network is unreachable",
    "connection refused",
    "timed out",
    "max retries exceeded",
    "proxyerror",
    "no matching distribution",
    "could not find a version",
)


def download(pins: Sequence[str], target: Path, options: Sequence[str] = ()) -> None:
    """Install "name==version" into `target` and nowhere else. Raises the sentence that fits pip's last words.

    Temporary files lie in `target`/tmp, on the same disk; `options` go to pip.
    """
    fixed = ["--no-deps", "--only-binary=:all:", "--no-input", "--no-color", "--disable-pip-version-check"]
    fixed += ["--no-warn-script-location", "--retries", "2", "--timeout", "20", "--target", str(target)]
    code, output = call([*pip(), "install", *fixed, *options, *pins], environment(target / "tmp"))
    if code != 0:
        raise sentence(output, target.parent)


def call(arguments: Sequence[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run this interpreter without a shell or a window. Returns its exit code and all it said."""
    done = subprocess.run(
        [sys.executable, *isolation(), "-X", "utf8", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    return done.returncode, done.stdout


def pip() -> list[str]:
    """How to run pip with this interpreter: its own, or the copy that comes with Python. Raises EngineMissing."""
    if importlib.util.find_spec("pip") is not None:
        return ["-m", "pip"]
    bundled = importlib.util.find_spec("ensurepip")
    if bundled is not None and bundled.origin:
        wheels = sorted((Path(bundled.origin).parent / "_bundled").glob("pip-*.whl"))
        if wheels:
            first = f"import sys, runpy; sys.path.insert(0, {str(wheels[-1])!a}); "
            return ["-c", first + "runpy.run_module('pip', run_name='__main__')"]
    raise EngineMissing(f"{sys.executable} has no pip, so the training engine cannot be installed. {NEEDS_NO_ENGINE}")


def environment(temporary: Path) -> dict[str, str]:
    """The user's index, proxy and certificates, but nothing that sends packages elsewhere."""
    kept = {k: v for k, v in os.environ.items() if k not in {f"PIP_{name}" for name in SENDS_ELSEWHERE}}
    folders = {name: str(temporary) for name in ("TMPDIR", "TEMP", "TMP")}
    return {**kept, **folders, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


def disk_full(place: Path) -> DiskFull:
    return DiskFull(
        f"The training engine needs {ROOM // MB} MB in {place}, where less is free. Free some space and run install.py "
        f"again. {NEEDS_NO_ENGINE}"
    )


def sentence(output: str, place: Path) -> LoomError:
    """What went wrong, as one error."""
    words = output.lower()
    if any(word in words for word in FULL):
        return disk_full(place)
    if any(word in words for word in BROKEN):
        return EngineMissing(
            "The download of the training engine was broken; nothing of it was kept. Run install.py again. "
            + NEEDS_NO_ENGINE
        )
    if any(word in words for word in OFFLINE):
        return EngineMissing(
            "The training engine could not be downloaded: there is no network, or the package index lacks it. Run "
            f"install.py again when online. {NEEDS_NO_ENGINE}"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "nothing")
    return EngineMissing(f"The training engine could not be installed; pip said: {said} {NEEDS_NO_ENGINE}")
