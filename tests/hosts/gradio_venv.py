"""The interpreters with the hosts' gradio: tools/gradio_venvs.py makes them, LORA_LOOM_GRADIO names their folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("a1111", "forge")


def python_of(host):
    """The interpreter, or the reason why there is none."""
    folder = os.environ.get("LORA_LOOM_GRADIO", "")
    path = Path(folder) / host / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not folder:
        return None, "LORA_LOOM_GRADIO is not set: make the environments with tools/gradio_venvs.py"
    return (path, "") if path.exists() else (None, f"{path} is not there: run tools/gradio_venvs.py {folder}")


def run_tests(python, file, *options, seconds=900):
    """Run a file of tests/hosts with pytest in that interpreter; (exit status, output)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "hosts"), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short", *options]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "hosts" / file)],
        capture_output=True, text=True, timeout=seconds, env=environment, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout[-8000:] + done.stderr[-2000:]
