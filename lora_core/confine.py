"""Paths that come from a page, a request or a shared workflow stay inside the folders that a host allows."""

from __future__ import annotations

import contextlib
import dataclasses
import ntpath
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lora_core.errors import ConfigError
from lora_core.jobs.choose import KeepJob
from lora_core.jobs.files import MetadataJob
from lora_core.settings import describe

READ_WIDGETS = ("folder", "checkpoint", "lora", "file")
WRITE_WIDGETS = ("save_folder",)
WRITTEN_FILES = ("output", "picture")
PATH_LISTS = ("loras", "lora_dirs", "embedding_dirs", "base_loras")
NESTED = ("path", "folder", "masks", "metadata_file")
STRENGTH = re.compile(r"\s*=\s*[-+.\deE]+\s*$")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
MAX_LENGTH = 4096
J = TypeVar("J")


def confined(path: str, roots: Sequence[Path], hint: str = "") -> Path:
    """The absolute path that `path` names, links followed, if it lies in or below one of the roots.

    A relative path is looked for below each root in turn; where it exists nowhere it belongs to the first.
    Raises ConfigError for everything that leads elsewhere: "..", other absolute paths, links, network shares,
    drive-relative and device names, NUL. `hint`: a sentence on how to allow another folder.
    """
    fault = spelling_fault(path)
    if fault:
        raise ConfigError(f"The path {path[:200]!r} {fault}.")
    allowed = [os.path.realpath(root) for root in roots]
    joined = [os.path.join(root, path) for root in allowed]
    chosen = next((place for place in joined if os.path.lexists(place)), joined[0] if joined else "")
    found = os.path.realpath(chosen)
    if not any(below(found, root) for root in allowed):
        where = f"The path {path[:200]!r} is outside the folders that may be used here ({names_of(allowed)})."
        raise ConfigError(f"{where} {hint}".strip())
    return Path(found)


def names_of(roots: Sequence[str]) -> str:
    """The real roots for a sentence, without those that lie in another one."""
    every = list(dict.fromkeys(roots))
    outer = [root for root in every if not any(root != other and below(root, other) for other in every)]
    return ", ".join(outer) or "none is set"


def spelling_fault(path: str) -> str:
    """What is wrong with the path as it is written, on any system; "" when nothing is."""
    if not path.strip() or len(path) > MAX_LENGTH:
        return "is empty or too long"
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return "cannot be the name of a file on this system"
    if any(ord(c) < 32 for c in path):
        return "holds control characters"
    if path.replace("/", "\\").startswith("\\\\"):
        return "names a network share or a device"
    parts = [part for part in re.split(r"[\\/]", path) if part]
    if ".." in (part.strip(" ") for part in parts):
        return 'holds ".."'
    if path.startswith("~"):
        return "begins with ~, which is not expanded here: write the whole path"
    drive, rest = ntpath.splitdrive(path)
    if drive and not (os.name == "nt" and rest.startswith(("\\", "/"))):
        return "names a drive without a folder on it"
    if os.name == "nt":
        return windows_fault(parts[1:] if drive else parts)
    return ""


def windows_fault(parts: Sequence[str]) -> str:
    """Devices, alternate streams, and names that Windows would silently shorten."""
    for part in parts:
        if RESERVED.fullmatch(part):
            return f"holds {part!r}, which is a device and no file"
        if ":" in part:
            return "holds a colon"
        if part != "." and part.rstrip(". ") != part:
            return f"holds {part!r}, which ends with a dot or a space"
    return ""


def below(path: str, root: str) -> bool:
    """Whether a real path is a real root or lies below it."""
    path, root = os.path.normcase(path), os.path.normcase(root)
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def with_links(roots: Sequence[Path], depth: int = 3) -> tuple[Path, ...]:
    """The roots and what links in them point to, down to `depth` folders.

    For folders of models, in which people link files and folders of other disks: the links are the owner's own.
    """
    found = [Path(root) for root in roots]
    todo = [(os.fspath(root), depth) for root in roots]
    while todo:
        folder, left = todo.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() or getattr(entry, "is_junction", bool)():
                    found.append(Path(os.path.realpath(entry.path)))
                elif left and entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, left - 1))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class PathField:
    """One place of a job that holds a path: the way to it by field names and indices, its value, how it is used, and
    what stands behind the path there."""

    way: tuple[str | int, ...]
    value: str
    written: bool
    tail: str = ""

    @property
    def name(self) -> str:
        return ".".join(str(part) for part in self.way)


def path_fields(job: Any) -> Iterator[PathField]:
    """Every path of a job that is not empty: declared ones, lists of them, LoRAs in use, subsets of a dataset."""
    for s in describe(type(job)):
        value = job
        for part in s.path:
            value = getattr(value, part)
        widget = s.declaration.widget
        written = widget in WRITE_WIDGETS or s.name in WRITTEN_FILES or s.name == replaced_in_place(job)
        if isinstance(value, str) and value and (written or widget in READ_WIDGETS):
            yield PathField(s.path, value, written)
        elif isinstance(value, tuple) and s.name in PATH_LISTS:
            yield from (listed((*s.path, i), item) for i, item in enumerate(value) if item)
    if isinstance(job, KeepJob):
        yield from (PathField(("remove", i), item, True) for i, item in enumerate(job.remove))
    yield from nested_fields(job, ())


def listed(way: tuple[str | int, ...], line: str) -> PathField:
    """A line of FILE or FILE = STRENGTH."""
    found = STRENGTH.search(line) if "base_loras" in way else None
    return PathField(way, line[: found.start()], False, found.group(0)) if found else PathField(way, line, False)


def replaced_in_place(job: Any) -> str:
    """The field whose file a job replaces; "" when there is none."""
    return "lora" if isinstance(job, KeepJob) or (isinstance(job, MetadataJob) and not job.output) else ""


def nested_fields(value: Any, way: tuple[str | int, ...]) -> Iterator[PathField]:
    """Paths in the undeclared parts of a job: fields of dataclasses in tuples that name files and folders."""
    for f in dataclasses.fields(value):
        item = getattr(value, f.name)
        if dataclasses.is_dataclass(item):
            yield from nested_fields(item, (*way, f.name))
        elif isinstance(item, tuple):
            for i, part in enumerate(item):
                if dataclasses.is_dataclass(part):
                    named = [(g.name, getattr(part, g.name)) for g in dataclasses.fields(part) if g.name in NESTED]
                    kept = [(n, path) for n, path in named if path or n in ("path", "folder")]
                    yield from (PathField((*way, f.name, i, n), path, False) for n, path in kept)


def confine_job(job: J, read_roots: Sequence[Path], write_roots: Sequence[Path], hint: str = "") -> J:
    """The job with every path confined and absolute. Raises ConfigError that names every path that leads elsewhere.

    What is written must lie in `write_roots`; what is read in either. `hint`: how to allow another folder to read from.
    """
    name = getattr(job, "name", "")
    faults = [f"name: {name[:200]!r} must be a name, not a path."] if re.search(r"[\\/\0]|^\.\.?$", name) else []
    changed = job
    for place in path_fields(job):
        roots, told = (write_roots, "") if place.written else ((*read_roots, *write_roots), hint)
        try:
            changed = replaced(changed, place.way, str(confined(place.value, roots, told)) + place.tail)
        except ConfigError as error:
            faults += [f"{place.name}: {problem}" for problem in error.problems]
    if faults:
        raise ConfigError(faults)
    return changed


def replaced(value: Any, way: tuple[str | int, ...], new: str) -> Any:
    """A copy of nested dataclasses and tuples with one leaf replaced."""
    if not way:
        return new
    head, rest = way[0], way[1:]
    if isinstance(head, int):
        return (*value[:head], replaced(value[head], rest, new), *value[head + 1 :])
    return dataclasses.replace(value, **{head: replaced(getattr(value, head), rest, new)})
