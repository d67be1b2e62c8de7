"""Record what the hosts' own samplers make of the toy UNet, for the tests: tests/data/sampling_hosts.safetensors.

COMFYUI_DIR=... COMFYUI_PYTHON=... A1111_DIR=... A1111_PYTHON=... python tools/record_sampling.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

TESTS = Path(__file__).resolve().parents[1] / "tests"
OUT = TESTS / "data" / "sampling_hosts.safetensors"


def recorded(name: str, folder: Path) -> Path:
    """Run the probe of one host ("comfyui", "a1111") and return the file that it wrote."""
    probes, out = TESTS / "real_hosts" / "probes", folder / f"{name}.safetensors"
    host, python = os.environ[f"{name.upper()}_DIR"], os.environ.get(f"{name.upper()}_PYTHON", sys.executable)
    asked = {"host": host, "data": str(folder), "tests": str(TESTS), "out": str(out)}
    subprocess.run([python, str(probes / f"{name}_sample.py"), json.dumps(asked)], cwd=probes, check=True)
    return out


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("comfyui", "a1111"):
            found |= {f"{name}/{key}": value for key, value in load_file(recorded(name, Path(folder))).items()}
    save_file(found, OUT)


if __name__ == "__main__":
    main()
