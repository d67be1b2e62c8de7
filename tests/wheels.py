"""Tiny stand-ins for the engine's packages: real wheels that pip installs without a network, and old ones in a host."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from lora_core.overlay import ENGINE, HELPERS, Package

CLASSES = {
    "diffusers": ("AutoencoderKL", "UNet2DConditionModel"),
    "transformers": ("CLIPTextModel", "CLIPTextModelWithProjection"),
}


def source(package: Package, version: str) -> str:
    classes = "".join(f"class {name}: ...\n" for name in CLASSES.get(package.name, ()))
    return f"__version__ = {version!r}\n{classes}"


def files(package: Package, version: str) -> dict[str, str]:
    """The files of an installed package, without its RECORD."""
    info = f"{package.name.replace('-', '_')}-{version}.dist-info"
    return {
        f"{package.imported_as}/__init__.py": source(package, version),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }


def record(contents: dict[str, str]) -> str:
    lines = []
    for name, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text.encode())}")
    return "\n".join(lines)


def build(package: Package, version: str, folder: Path) -> Path:
    """A wheel of `package` in `folder`."""
    contents = files(package, version)
    info = next(iter(name for name in contents if name.endswith("METADATA"))).rpartition("/")[0]
    path = folder / f"{package.name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in contents.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", f"{record(contents)}\n{info}/RECORD,,\n")
    return path


def wheelhouse(folder: Path) -> Path:
    """Wheels of the whole pinned set."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in (*ENGINE, *HELPERS):
        build(package, package.pin, folder)
    return folder


def plant(package: Package, version: str, site: Path) -> None:
    """The package as if a host had installed it."""
    contents = files(package, version)
    info = next(iter(name for name in contents if name.endswith("METADATA"))).rpartition("/")[0]
    for name, text in {**contents, f"{info}/RECORD": record(contents)}.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
