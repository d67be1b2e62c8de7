"""Answers of the real programs that tools/ recorded into tests/data, and the tools' own inputs."""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"


@functools.cache
def recorder(name: str = "record_a1111_functions") -> ModuleType:
    """A recording tool as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def a1111_functions() -> dict[str, Any]:
    """name -> digest or array."""
    known = json.loads((DATA / "a1111_functions.json").read_text())
    return {name: _array(value) if isinstance(value, dict) else value for name, value in known.items()}


def _array(value: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(value["data"]), value["dtype"]).reshape(value["shape"])
