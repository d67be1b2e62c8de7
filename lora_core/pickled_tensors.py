"""Tensors from torch's pickle files (.pt, .bin) without running what a pickle may hold."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from lora_core.errors import FileError

LARGEST = 256 * 2**20
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
}


def read_pickled(path: Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers (ParameterDict too). Raises FileError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost any kind of exception for a broken file
        reason = error
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).read()
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, ValueError, TypeError, KeyError, LookupError) as error:
        raise FileError(
            f"{path.name} cannot be read as tensors alone: {error or reason}. Get it as .safetensors instead."
        ) from reason
    except (RuntimeError, AttributeError, EOFError) as error:
        raise FileError(f"{path.name} is broken: {error}.") from reason


class _Bag:
    """Stands in for torch.nn.ParameterDict: keeps the state, runs nothing."""

    def __init__(self, *_: Any) -> None:
        self.parameters: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        self.parameters = {**tensors, **state.get("_parameters", {})}


class _Reader(pickle.Unpickler):
    """An unpickler that knows nothing but tensors and plain containers."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(names) != 1 or sum(info.file_size for info in archive.infolist()) > LARGEST:
            raise zipfile.BadZipFile("it is no file of torch, or too large")
        self.folder = names[0].removesuffix("data.pkl")
        super().__init__(archive.open(names[0]))

    def read(self) -> Any:
        return _plain(self.load())

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch.nn.modules.container", "ParameterDict"): _Bag,
            **{("torch", storage): dtype for storage, dtype in _STORAGES.items()},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it holds a Python object {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, *_ = pid
        data = bytearray(self.archive.read(f"{self.folder}data/{key}"))
        return torch.frombuffer(data, dtype=dtype)


def _tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    return torch.as_strided(storage, size, stride, offset).clone()


def _parameter(data: torch.Tensor, *_: Any) -> torch.Tensor:
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, _Bag):
        return value.parameters
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value
