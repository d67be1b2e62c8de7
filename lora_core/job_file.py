"""A training's settings from any file that holds some: our own job JSON, kohya's TOML or JSON, a trained LoRA."""

from __future__ import annotations

import json
from pathlib import Path

from lora_core.errors import FileError
from lora_core.jobs.train import TrainJob
from lora_core.kohya_config import read_kohya
from lora_core.settings import from_json
from lora_core.train_like import job_like

OURS = ("dataset", "network", "optimization", "length")
MAX_BYTES = 4 << 20
LORA = ".safetensors"


def read_training(path: str | Path) -> tuple[TrainJob, list[str]]:
    """(job, a sentence for each setting that is not followed to the letter). Raises FileError, ConfigError."""
    path = Path(path)
    if path.suffix.lower() == LORA:
        job, notes = job_like(path)
        return job, list(notes)
    if path.suffix.lower() == ".json":
        data = _read(path)
        data = data.get("job", data) if isinstance(data, dict) else data
        if isinstance(data, dict) and any(isinstance(data.get(name), dict) for name in OURS):
            return from_json(TrainJob, data), []
    return read_kohya(path)


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path.name} is too large for settings.")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise FileError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise FileError(f"{path.name} is not valid JSON ({error}).") from error
