"""Tensors that need computing once: latents of pictures and outputs of text encoders, kept on disk by content."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lora_core.augment import Tint
from lora_core.engine.dataset_report import shown
from lora_core.engine.epochs import Batch, Dataset, Picture
from lora_core.errors import DatasetError, FileError, KeyMismatch, NotFinite
from lora_core.events import Event, Note, Progress
from lora_core.tensor_writer import sentence_of, tensor_bytes
from lora_core.tensors import TensorFile, write_tensors

FORMAT = "1"
MEMORY_BYTES = 256 << 20
_SUFFIX = ".safetensors"


class TensorCache:
    """A folder of small safetensors files, one for each key, each with a checksum of its contents.

    A key is any text of letters and digits, usually a SHA-256. What was read or written lately stays in memory, up to
    `memory` bytes.
    """

    def __init__(self, folder: str | Path, memory: int = MEMORY_BYTES) -> None:
        self.folder = Path(folder)
        self._limit = memory
        self._size = 0
        self._recent: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()

    def path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors under a key, not to be written to; None when there are none or they are damaged."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        found = self._read(key)
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Store tensors under a key, atomically. Raises FileError or DiskFull."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise sentence_of(error, self.folder) from error
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_tensors(self.path(key), kept, {"key": key, "format": FORMAT, "checksum": checksum(kept)})
        self._remember(key, kept)

    def _read(self, key: str) -> dict[str, torch.Tensor] | None:
        try:
            with TensorFile(self.path(key)) as file:
                marks = dict(file.metadata)
                tensors = {name: file.read(name) for name in file.header.tensors}
        except (FileError, KeyMismatch, OSError):
            return None
        whole = marks.get("format") == FORMAT and marks.get("key") == key and marks.get("checksum") == checksum(tensors)
        return tensors if whole else None

    def _remember(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        self._size -= _bytes(self._recent.pop(key, {}))
        self._recent[key] = tensors
        self._size += _bytes(tensors)
        while self._size > self._limit and len(self._recent) > 1:
            self._size -= _bytes(self._recent.popitem(last=False)[1])


class LatentCache:
    """VAE latents of a dataset's pictures: posterior mean x scaling factor, fp32, [4, h/8, w/8] each.

    The key is a hash of the picture's bytes, how it is resized and cropped, flip, the VAE's hash and `FORMAT`, so
    that nothing stale can be found; picture files may move or be renamed.
    """

    def __init__(self, folder: str | Path, vae_hash: str) -> None:
        self._tensors = TensorCache(folder)
        self._vae_hash = vae_hash
        self._dataset: Dataset | None = None
        self._masks: dict[tuple[Any, ...], torch.Tensor | None] = {}

    def prepare(self, dataset: Dataset, load_vae: Callable[[], Any]) -> Iterator[Event]:
        """Encode what is missing or damaged; `load_vae` is called only then. Raises NotFinite, DatasetError."""
        self._dataset = dataset
        wanted = {self.key(p, flip): (p, flip) for p, flip in _variants(dataset)}
        missing = [key for key in wanted if self._tensors.get(key) is None]
        damaged = [wanted[key][0].name for key in missing if self._tensors.path(key).exists()]
        if damaged:
            yield Note(f"Damaged latents in the cache are made anew: {shown(damaged)}.", "warning")
        if not missing:
            yield Note("The latents of all pictures were found in the cache; the VAE is not needed.")
            return
        vae = load_vae()
        start = time.monotonic()
        for done, key in enumerate(missing, 1):
            picture, flip = wanted[key]
            self._tensors.put(key, {"latent": encode(vae, picture, flip)})
            seconds = (time.monotonic() - start) / done * (len(missing) - done)
            yield Progress(done, len(missing), seconds, "picture")

    def latents(self, batch: Batch) -> torch.Tensor:
        """fp32 [b, 4, h/8, w/8] of a batch of the prepared dataset."""
        rows = [self._latent(self._of(batch).picture_of(item), item.flip) for item in batch.items]
        return torch.stack(rows)

    def masks(self, batch: Batch) -> torch.Tensor | None:
        """fp32 [b, 1, h/8, w/8], the share of each cell that is learned; None where all is. Raises DatasetError."""
        rows = [self._mask(self._of(batch).picture_of(item), item.flip) for item in batch.items]
        if all(row is None for row in rows):
            return None
        whole = torch.ones(1, batch.size[1] // 8, batch.size[0] // 8)
        return torch.stack([whole if row is None else row for row in rows])

    def sizes(self, batch: Batch) -> list[tuple[int, int, int, int]]:
        """(original width, original height, crop left, crop top) of each item, for SDXL's size conditioning."""
        pictures = [(self._of(batch).picture_of(item), item.flip) for item in batch.items]
        return [(*picture.size, *picture.fit.crop(flip)) for picture, flip in pictures]

    def _mask(self, picture: Picture, flip: bool) -> torch.Tensor | None:
        if picture.mask is None and not picture.subset.alpha_mask:
            return None
        place = (picture.content_hash, picture.mask_hash, picture.fit, flip)
        if place not in self._masks:
            found = picture.coverage(flip)
            self._masks[place] = None if found is None else torch.from_numpy(found)[None]
        return self._masks[place]

    def key(self, picture: Picture, flip: bool) -> str:
        fit = picture.fit
        parts = (FORMAT, self._vae_hash, picture.content_hash, fit.resized, fit.bucket, fit.crop(), flip)
        parts += (fit.filter,) if fit.filter != "auto" else ()
        parts += (picture.tint,) if picture.tint != Tint() else ()
        return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()

    def _of(self, batch: Batch) -> Dataset:
        if self._dataset is None:
            raise RuntimeError(f"prepare() comes before the latents of a batch of {len(batch)}.")
        return self._dataset

    def _latent(self, picture: Picture, flip: bool) -> torch.Tensor:
        found = self._tensors.get(self.key(picture, flip))
        if found is None:
            raise FileError(
                f"The cached latent of {picture.name} vanished from {self._tensors.folder}. Start again; it is resumed."
            )
        return found["latent"]


@torch.no_grad()
def encode(vae: Any, picture: Picture, flip: bool) -> torch.Tensor:
    """fp32 [4, h/8, w/8]: the mean of the posterior times the VAE's scaling factor. Encodes in fp32, alone.

    Raises NotFinite, or DatasetError when the file changed since it was checked.
    """
    if vae.dtype != torch.float32:
        vae = vae.to(dtype=torch.float32)
    try:
        rgb = picture.pixels().rgb
    except FileError as error:
        raise DatasetError(f"{picture.name}: {error}. Start again.") from error
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].to(vae.device, torch.float32) / 127.5 - 1  # hwc -> 1chw
    if flip:
        pixels = pixels.flip(3)
    latent = vae.encode(pixels.contiguous()).latent_dist.mean[0] * vae.config.scaling_factor
    if not torch.isfinite(latent).all():
        raise NotFinite(f"The VAE makes numbers that are not finite of {picture.name}: name another VAE file.")
    return latent.float().cpu()


def checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """CRC-32 over names, dtypes, shapes and bytes, in hexadecimal."""
    value = 0
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor_bytes(tensor), value)
    return f"{value:08x}"


def _variants(dataset: Dataset) -> Iterator[tuple[Picture, bool]]:
    for picture in dataset.held_out:
        yield picture, False
    count = dataset.job.dataset.variants
    for picture in dataset.pictures:
        for variant in range(1, count + 1) if picture.varies else (0,):
            varied = picture.varied(variant)
            yield from ((varied, flip) for flip in ((False, True) if picture.subset.flip else (False,)))


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
