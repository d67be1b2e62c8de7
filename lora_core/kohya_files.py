"""Config files of any kind as plain dicts."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from lora_core.errors import ConfigError, FileError


def read_file(path: Path) -> dict[str, Any]:
    """A TOML or JSON file as a dict. Raises FileError."""
    try:
        content = path.read_text("utf-8-sig")
        data = json.loads(content) if path.suffix.lower() == ".json" else parse_toml(content)
    except OSError as error:
        raise FileError(f"The config {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise FileError(f"The config {path} is not {kind}: {error}.") from error
    if not isinstance(data, dict):
        raise FileError(f"The config {path} must hold named options.")
    return data


def parse_toml(content: str) -> dict[str, Any]:
    """TOML as a dict. Raises ValueError for bad TOML, ConfigError on a Python without a TOML reader."""
    for name in ("tomllib", "tomli"):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return module.loads(content)
    raise ConfigError(
        "Reading TOML needs Python 3.11 or later, or the package tomli. A .json config is read without it."
    )
