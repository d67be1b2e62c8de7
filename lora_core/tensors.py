"""Reading checkpoints one tensor at a time: safetensors, pickles through weights_only, diffusers folders.

Files are read with plain reads into fresh memory: nothing stays mapped, so peak memory is the result plus one tensor.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch

from lora_core.errors import FileError, KeyMismatch
from lora_core.keys import TensorKey
from lora_core.tensor_header import TORCH, WIDTH, Header, TensorInfo, open_file, parse_header, read_header
from lora_core.tensor_writer import TensorWriter, data_hash, file_hashes, legacy_hash, tensor_bytes, write_tensors

__all__ = [
    "Header",
    "TensorFile",
    "TensorInfo",
    "TensorSource",
    "TensorWriter",
    "data_hash",
    "file_hashes",
    "legacy_hash",
    "open_tensors",
    "read_header",
    "read_key",
    "write_tensors",
]

COMPONENTS = {
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "vae": "diffusion_pytorch_model",
}
NUMBERS = {"F16": "<e", "F32": "<f", "F64": "<d", "I32": "<i", "I64": "<q"}
BLOCK = 1 << 20  # numbers converted at a time
OLD_ATTENTION = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


class TensorSource:
    """A context manager over named tensors: `shapes`, `metadata`, and `read` for one tensor (or some of its rows)."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    def read(self, name: str, dtype: torch.dtype | None = None, rows: tuple[int, int] | None = None) -> torch.Tensor:
        """The tensor in memory of its own, on the CPU. Raises KeyMismatch for an unknown name."""
        raise NotImplementedError

    def number(self, name: str) -> float:
        """The first value of a small tensor, such as an alpha."""
        return float(self.read(name).reshape(-1)[0])

    def dtype(self, name: str) -> torch.dtype:
        """The number format in which the tensor is stored."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the file back; harmless twice."""

    def __enter__(self) -> TensorSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TensorFile(TensorSource):
    """One safetensors file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: BinaryIO = open_file(self.path)
        try:
            self.header: Header = parse_header(self._file, self.path.name)
        except BaseException:
            self._file.close()
            raise
        self.metadata = self.header.metadata
        self.shapes = {name: info.shape for name, info in self.header.tensors.items()}

    def __enter__(self) -> TensorFile:
        return self

    def dtype(self, name: str) -> torch.dtype:
        return torch_dtype(_lookup(self.header.tensors, name, self.path).dtype, self.path)

    def read(self, name: str, dtype: torch.dtype | None = None, rows: tuple[int, int] | None = None) -> torch.Tensor:
        info = _lookup(self.header.tensors, name, self.path)
        shape, begin = info.shape, info.begin
        if rows is not None:
            row = WIDTH[info.dtype]
            for n in shape[1:]:
                row *= n
            shape, begin = (rows[1] - rows[0], *shape[1:]), begin + rows[0] * row
        stored, place = torch_dtype(info.dtype, self.path), self.header.data_start + begin
        if dtype not in (None, stored):
            return self._converted(torch.empty(shape, dtype=dtype), stored, place, name)
        tensor = torch.empty(shape, dtype=stored)
        self._fill(tensor_bytes(tensor), place, name)
        return tensor

    def number(self, name: str) -> float:
        """The first value of a small tensor, such as an alpha, without making a tensor of it."""
        info = _lookup(self.header.tensors, name, self.path)
        code = NUMBERS.get(info.dtype)
        if code is None or info.begin == info.end:
            return super().number(name)
        self._file.seek(self.header.data_start + info.begin)
        return float(struct.unpack(code, self._file.read(struct.calcsize(code)))[0])

    def _converted(self, result: torch.Tensor, stored: torch.dtype, place: int, name: str) -> torch.Tensor:
        """Fill `result` block by block, so that no second tensor of its size is ever in memory."""
        block = torch.empty(min(BLOCK, result.numel()), dtype=stored)
        for part in result.view(-1).split(BLOCK):
            source = block[: len(part)]
            self._fill(tensor_bytes(source), place, name)
            place += source.numel() * source.element_size()
            # half to bfloat16 is vectorised by way of float32 only, where it is exact
            part.copy_(source.float() if stored == torch.float16 else source)
        return result

    def _fill(self, view: memoryview, place: int, name: str) -> None:
        self._file.seek(place)
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise FileError(f"{self.path.name} became shorter while it was read ({name}). Try again.")
            view = view[count:]

    def close(self) -> None:
        self._file.close()


def torch_dtype(name: str, path: Path) -> torch.dtype:
    """torch's dtype for a safetensors format. Raises FileError where this torch does not have it."""
    if name not in TORCH:
        raise FileError(f"{path.name} holds {name} numbers, which torch {torch.__version__} cannot read.")
    return TORCH[name]


def _lookup(tensors: Mapping[str, TensorInfo], name: str, path: Path) -> TensorInfo:
    if name not in tensors:
        raise KeyMismatch(f"{path.name} has no tensor {name}.")
    return tensors[name]


class PickledTensors(TensorSource):
    """A .ckpt, .pt, .pth or .bin file, read by torch's weights_only unpickler, which runs no code of the file."""

    metadata: Mapping[str, str] = {}

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._tensors = _unpickle(self.path)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, dtype: torch.dtype | None = None, rows: tuple[int, int] | None = None) -> torch.Tensor:
        if name not in self._tensors:
            raise KeyMismatch(f"{self.path.name} has no tensor {name}.")
        tensor = self._tensors[name].detach()
        if rows is not None:
            tensor = tensor[rows[0] : rows[1]]
        return tensor.to(dtype=dtype or tensor.dtype, copy=True).contiguous()

    def close(self) -> None:
        self._tensors = {}


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    with open_file(path) as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, **({"mmap": True} if zipped else {}))
    except pickle.UnpicklingError as error:
        raise FileError(_unsafe(path, error)) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise FileError(
            f"{path.name} cannot be read as a checkpoint: it is damaged or no such file ({error})."
        ) from None
    data = data.get("state_dict", data) if isinstance(data, dict) else None
    tensors = {k: v for k, v in (data or {}).items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not tensors:
        raise FileError(f"{path.name} holds no named tensors, or was refused as unsafe.")
    return tensors


def _unsafe(path: Path, error: pickle.UnpicklingError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "nsupported" in line or "GLOBAL" in line]
    reason = lines[0][:200] if lines else "it is no plain pickle"
    return (
        f"{path.name} is not opened: it holds more than weights and opening it could run code ({reason}). "
        "Convert it to .safetensors with a tool that you trust, or get the .safetensors version."
    )


class FolderTensors(TensorSource):
    """A diffusers folder: tensors are named component + name ("unet.conv_in.weight"), old attention names renewed."""

    metadata: Mapping[str, str] = {}

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._open: list[TensorSource] = []
        self._places: dict[str, tuple[TensorSource, str]] = {}
        try:
            for component, stem in COMPONENTS.items():
                for file in component_files(self.path / component, stem):
                    self._add(component, open_tensors(file))
        except BaseException:
            self.close()
            raise
        if not self._places:
            raise FileError(f"{self.path} is a folder without a model: no unet/diffusion_pytorch_model.safetensors.")
        self.shapes = {name: source.shapes[inner] for name, (source, inner) in self._places.items()}

    def _add(self, component: str, source: TensorSource) -> None:
        self._open.append(source)
        for inner in source.shapes:
            name = f"{component}.{inner}"
            if component == "vae":
                for old, new in OLD_ATTENTION:
                    name = name.replace(old, new)
            self._places[name] = (source, inner)

    def _place(self, name: str) -> tuple[TensorSource, str]:
        if name not in self._places:
            raise KeyMismatch(f"{self.path} has no tensor {name}.")
        return self._places[name]

    def dtype(self, name: str) -> torch.dtype:
        source, inner = self._place(name)
        return source.dtype(inner)

    def read(self, name: str, dtype: torch.dtype | None = None, rows: tuple[int, int] | None = None) -> torch.Tensor:
        source, inner = self._place(name)
        return source.read(inner, dtype, rows)

    def close(self) -> None:
        for source in self._open:
            source.close()


def component_files(folder: Path, stem: str) -> list[Path]:
    """The weight files of one component: whole or in shards, safetensors before pickles, plain before variants."""
    for ending in ("safetensors", "bin"):
        base = "pytorch_model" if ending == "bin" and stem == "model" else stem
        for variant in ("", ".fp16", ".bf16"):
            whole = folder / f"{base}{variant}.{ending}"
            if whole.is_file():
                return [whole]
            for index in (f"{base}.{ending}.index{variant}.json", f"{base}{variant}.{ending}.index.json"):
                if (folder / index).is_file():
                    shards = json.loads((folder / index).read_text("utf-8"))["weight_map"].values()
                    return [folder / Path(name).name for name in sorted(set(shards))]
    return []


def read_key(source: TensorSource, key: TensorKey, dtype: torch.dtype | None = None) -> torch.Tensor:
    """One tensor of a module, contiguous and in the module's shape. Raises KeyMismatch for a wrong shape."""
    tensor = source.read(key.source, dtype, key.slice_rows)
    if key.transform == "transpose":
        tensor = tensor.t()
    if tuple(tensor.shape) not in (key.shape, (*key.shape, 1, 1)):
        raise KeyMismatch(f"{key.source} has shape {list(tensor.shape)} where {list(key.shape)} was expected.")
    return tensor.reshape(key.shape).contiguous()


def open_tensors(path: str | Path) -> TensorSource:
    """Open a checkpoint of any kind. Raises FileError: missing, unreadable, truncated, unsafe, or of no known kind."""
    path = Path(path)
    if path.is_dir():
        return FolderTensors(path)
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin") and not _looks_like_safetensors(path):
        return PickledTensors(path)
    return TensorFile(path)


def _looks_like_safetensors(path: Path) -> bool:
    """A safetensors file under a pickle's ending: a header of JSON begins at byte 8."""
    with open_file(path) as file:
        start = file.read(9)
    return start[8:] == b"{" and start[6:8] == b"\0\0"
