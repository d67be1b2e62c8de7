"""Make the environments in which the A1111 pages are tested: python tools/gradio_venvs.py FOLDER.

One for each gradio that the hosts pin, each with its own packages first and those of this interpreter behind them. Then
LORA_LOOM_GRADIO=FOLDER lets the tests find them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS = {
    "a1111": (
        *("gradio==3.41.2", "fastapi==0.94.0", "starlette==0.26.1", "pydantic==1.10.13", "httpx==0.24.1"),
        *("huggingface_hub<0.30", "numpy==1.26.2", "Pillow==9.5.0", "matplotlib<3.9", "websockets>=11,<12"),
    ),
    "forge": (
        *("gradio==4.40.0", "fastapi==0.104.1", "starlette<0.38", "pydantic==2.8.2", "httpx==0.24.1"),
        *("huggingface_hub<0.30", "numpy==1.26.4", "Pillow<11", "matplotlib<3.9", "websockets>=11,<12"),
    ),
}


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make(folder: Path, packages: tuple[str, ...]) -> None:
    """A virtual environment with the packages; nothing is done where it is complete already."""
    mark = folder / "complete"
    if mark.is_file() and mark.read_text("utf-8") == "\n".join(packages):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    python = str(python_of(folder))
    quiet = ["--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    subprocess.run([python, "-m", "pip", "install", *quiet, *packages], check=True)
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    behind = f"{sysconfig.get_paths()['purelib']}\n{ROOT}\n"
    (Path(own) / "zz_lora_loom.pth").write_text(behind, "utf-8")
    mark.write_text("\n".join(packages), "utf-8")


def main(arguments: list[str]) -> int:
    target = Path(arguments[0]).resolve()
    for name, packages in HOSTS.items():
        make(target / name, packages)
        print(python_of(target / name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
