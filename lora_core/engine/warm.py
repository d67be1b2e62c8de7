"""The models of the last drawing job, kept in this process for the next one that wants the same."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from pathlib import Path

from lora_core.engine.models import Models

_kept: dict[Hashable, Models] = {}


def warm_models(key: Hashable, load: Callable[[], Models]) -> Models:
    """The kept models when they were loaded under the same key; else what `load` gives, after the others are gone."""
    if key not in _kept:
        drop_caches()
        _kept[key] = load()
    return _kept[key]


def drop_caches() -> None:
    """Give the memory back."""
    _kept.clear()
    gc.collect()


def state(path: str | Path) -> tuple[Hashable, ...]:
    """What changes when a model file or folder does: the names, sizes and times of its files."""
    place = Path(path)
    if not str(path):
        return ()
    files = sorted(place.rglob("*")) if place.is_dir() else [place, place.with_suffix(".yaml")]
    found = [(str(file), file.stat()) for file in files if file.is_file()]
    return (str(place), *((name, s.st_size, s.st_mtime_ns) for name, s in found))
