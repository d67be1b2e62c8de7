"""What a host's card shows of a trained LoRA: a picture, the trigger words, the strength to use it at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lora_core.caption_edit import caption_rows
from lora_core.errors import LoomError
from lora_core.jobs.files import MetadataJob
from lora_core.jobs.train import TrainJob
from lora_core.keep_save import STRENGTH
from lora_core.metadata_edit import edit_metadata
from lora_core.tensors import read_header


def write_card(path: str | Path, job: TrainJob, previews: Sequence[str] = ()) -> None:
    """Give a finished LoRA what its card lacks: `ssmd_cover_images` in the file, A1111's NAME.json beside it.

    The picture is the newest of `previews`, else one of the training's; with minimal metadata there is none. What
    stands in NAME.json already stays, and the weights keep their bits. Raises FileError.
    """
    metadata = read_header(path).metadata
    covered = job.saves.metadata == "minimal" or "ssmd_cover_images" in metadata
    words = "" if metadata.get("modelspec.trigger_phrase") else job.captions.trigger.strip()
    weight = float(metadata.get(STRENGTH) or (0 if has_weight(Path(path)) else 1))
    edit = MetadataJob(
        lora=str(path),
        cover="" if covered else picture_of(job, previews),
        trigger=words or None,
        sidecar=True,
        weight=weight,
    )
    for _ in edit_metadata(edit):
        pass


def has_weight(path: Path) -> bool:
    try:
        return bool(json.loads(path.with_suffix(".json").read_text("utf-8-sig")).get("preferred weight"))
    except (OSError, ValueError, AttributeError):
        return False


def picture_of(job: TrainJob, previews: Sequence[str]) -> str:
    """The newest preview that is still there, else the first picture of the dataset, else ""."""
    shown = next((preview for preview in reversed(previews) if Path(preview).is_file()), "")
    if shown or not job.dataset.folder:
        return shown
    try:
        return next((str(row.path) for row in caption_rows(job.dataset.folder)), "")
    except LoomError:
        return ""
