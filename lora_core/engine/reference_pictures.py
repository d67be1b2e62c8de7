"""Pictures to compare with: read from a folder, cut to one size, encoded, with their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lora_core.buckets import BucketRules
from lora_core.engine.models import Models
from lora_core.engine.sampling import encode
from lora_core.errors import DatasetError, FileError
from lora_core.folders import CaptionFiles, Walk
from lora_core.jobs.train import Subset
from lora_core.pictures import fitted, read_pixels

MOST = 64


@dataclass(frozen=True)
class References:
    """`latents` [n,c,h,w] scaled, `captions` and `paths` [n]; `skipped`: files that could not be read."""

    latents: torch.Tensor
    captions: tuple[str, ...]
    paths: tuple[Path, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def read_references(models: Models, folder: str, size: tuple[int, int], caption: str) -> References:
    """Up to 64 pictures below a folder, spread over it, at `size` (width, height). `caption`: for those without one.

    Raises DatasetError for a folder that is not there or has no picture that can be read.
    """
    folders = Walk().folders(Path(folder), Subset(folder=""))
    captions = CaptionFiles(folders)
    found = [path for one in folders for path in one.pictures()]
    rules = BucketRules(size, enabled=False)
    rows: list[torch.Tensor] = []
    kept: list[tuple[Path, str]] = []
    skipped: list[str] = []
    for path in found[:: max(1, -(-len(found) // MOST))]:
        try:
            pixels = read_pixels(path)
            rgb = fitted(pixels, rules.fit(pixels.size)).rgb
        except (FileError, DatasetError) as error:
            skipped.append(f"{path.name} is left out: {error}")
            continue
        said = captions.caption(path)
        kept.append((path, said.text if said and said.text else caption))
        rows.append(encode(models, torch.from_numpy(rgb).permute(2, 0, 1)[None].float().div(255)).cpu())  # [h, w, 3]
    if not rows:
        raise DatasetError(f"No picture in {folder} can be read.")
    return References(torch.cat(rows), tuple(c for _, c in kept), tuple(p for p, _ in kept), tuple(skipped))
