"""The web packages of each host, made once by pip below out/, for tests in interpreters of their own.

A set is a folder that goes in front of this interpreter's packages. The hosts' sets name every package that they need:
so they share what both pin alike, and what is installed here is not fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("a1111", "forge")
SETS = {
    "shared": (
        *("numpy==1.26.2", "Pillow==9.5.0", "pandas==2.2.3", "python-dateutil==2.9.0.post0", "six==1.17.0"),
        *("pytz==2025.1", "tzdata==2025.1", "matplotlib==3.8.4", "contourpy==1.3.1", "cycler==0.12.1"),
        *("kiwisolver==1.4.8", "pyparsing==3.2.1", "importlib_resources==6.5.2", "aiofiles==23.2.1", "ffmpy==0.5.0"),
        *("orjson==3.10.15", "pydub==0.25.1", "python-multipart==0.0.20", "semantic-version==2.10.0"),
        *("uvicorn==0.34.0", "click==8.1.8", "httpx==0.24.1", "httpcore==0.17.3", "h11==0.14.0", "anyio==3.7.1"),
        *("sniffio==1.3.1", "websockets==11.0.3"),
    ),
    "a1111": (
        *("gradio==3.41.2", "gradio_client==0.5.0", "fastapi==0.94.0", "starlette==0.26.1", "pydantic==1.10.21"),
        *("altair==5.5.0", "narwhals==1.24.0", "jsonschema==4.23.0", "jsonschema-specifications==2024.10.1"),
        *("referencing==0.36.2", "rpds-py==0.22.3", "attrs==25.1.0"),
    ),
    "forge": (
        *("gradio==4.40.0", "gradio_client==1.2.0", "fastapi==0.104.1", "starlette==0.27.0", "pydantic==2.8.2"),
        *("pydantic_core==2.20.1", "annotated-types==0.7.0", "tomlkit==0.12.0", "typer==0.12.5", "rich==13.9.4"),
        *("markdown-it-py==3.0.0", "mdurl==0.1.2", "pygments==2.19.1", "shellingham==1.5.4"),
    ),
    "schemathesis": (
        *("fastapi==0.104.1", "starlette==0.27.0", "httpx==0.24.1"),
        *("schemathesis==3.39.16", "hypothesis==6.115.6", "jsonschema==4.23.0"),
    ),
}


@lru_cache
def folder_of(name: str) -> Path | str:
    """The folder of a set, or the reason why pip cannot make it."""
    mark = hashlib.sha256(f"{sys.version_info[:2]} {SETS[name]}".encode()).hexdigest()[:10]
    folder = Path(os.environ.get("LORA_LOOM_TEST_PACKAGES") or ROOT / "out" / "test-packages") / f"{name}-{mark}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / "complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
        command += ["--retries", "1", "--only-binary", ":all:", "--target", str(folder)]
        command += [] if name == "schemathesis" else ["--no-deps"]
        done = subprocess.run([*command, *SETS[name]], capture_output=True, text=True)
        if done.returncode:
            return f"pip could not install {', '.join(SETS[name][:2])} and so on: {done.stderr[-300:]}"
        (folder / "complete").touch()
    return folder


def cases(name: str, file: str, seconds: float = 1500) -> subprocess.CompletedProcess[str]:
    """Run a file of cases in an interpreter that has the set's packages in front of its own. Skips without them."""
    folders = [folder_of(one) for one in ([name, "shared"] if name in HOSTS else [name])]
    missing = [reason for reason in folders if isinstance(reason, str)]
    if missing:
        pytest.skip(missing[0])
    quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONDONTWRITEBYTECODE": ""}
    environment = {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short"]
    command += [str(Path(__file__).parent / file)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
