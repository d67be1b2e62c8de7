"""Throw-away folders with the web packages of each host, made once by pip below out/, for child interpreters."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "a1111": ("fastapi==0.94.0", "starlette==0.26.1", "pydantic==1.10.21", "httpx==0.24.1"),
    "forge": ("fastapi==0.104.1", "starlette==0.27.0", "pydantic==2.8.2", "httpx==0.24.1"),
    "schemathesis": (
        *("fastapi==0.104.1", "starlette==0.27.0", "httpx==0.24.1"),
        *("schemathesis==3.39.16", "hypothesis==6.115.6", "jsonschema==4.23.0"),
    ),
}


def folder_of(name: str) -> Path:
    """The folder of a set. Skips the test where pip cannot get it."""
    mark = hashlib.sha256(f"{sys.version_info[:2]} {SETS[name]}".encode()).hexdigest()[:10]
    folder = Path(os.environ.get("LORA_LOOM_TEST_PACKAGES") or ROOT / "out" / "test-packages") / f"{name}-{mark}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    done = subprocess.run([*command, *SETS[name]], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip could not install {', '.join(SETS[name])}: {done.stderr[-300:]}")
    (folder / "complete").touch()
    return folder


def cases(name: str, file: str) -> subprocess.CompletedProcess[str]:
    """Run a file of cases in an interpreter that has the set's packages in front of its own."""
    environment = {**os.environ, "PYTHONPATH": str(folder_of(name)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent / file)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
