"""Editing what a LoRA says about itself: a new header before the very same data section."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lora_core.commands import Commands
from lora_core.errors import FileError, KeyMismatch
from lora_core.events import Event, Finished, Note, Saved, Stage
from lora_core.jobs.files import MetadataJob
from lora_core.lora_names import family_by_metadata
from lora_core.picture_read import read_picture
from lora_core.tensor_header import Header, build_header
from lora_core.tensor_writer import CHUNK, data_hash, sentence_of
from lora_core.tensors import read_header
from lora_core.tool_files import check_inputs, check_output
from lora_core.whole_files import write_text

COVER_SIDE = 512
FIELDS = {
    "title": "modelspec.title",
    "description": "modelspec.description",
    "author": "modelspec.author",
    "license": "modelspec.license",
    "tags": "modelspec.tags",
    "trigger": "modelspec.trigger_phrase",
    "usage_hint": "modelspec.usage_hint",
}
SHOWN = 400
VERSIONS = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}


def edit_metadata(job: MetadataJob, commands: Commands | None = None) -> Iterator[Event]:
    """Run a MetadataJob. Raises ConfigError, FileError, KeyMismatch or DiskFull; then the file is as it was."""
    check_inputs(job.lora)
    source = Path(job.lora)
    output = check_output(job.output, job.overwrite) if job.output else source
    yield Stage("Reading the header")
    header = read_header(source)
    wanted = edited(header.metadata, job)
    if wanted == header.metadata and not job.output and not job.sidecar:
        for key, value in sorted(header.metadata.items()):
            yield Note(f"{key}: {value if len(value) <= SHOWN else value[:SHOWN] + ' ...'}")
        yield Finished((), {"metadata": header.metadata})
        return
    yield Stage("Saving")
    written = rewrite(source, output, header, wanted)
    yield Saved(str(output), "lora")
    outputs = (str(output),)
    if job.sidecar:
        sidecar = write_sidecar(output, written, job.weight)
        outputs += (str(sidecar),)
        yield Saved(str(sidecar), "report")
    changed = sorted(
        key for key in header.metadata.keys() | written.keys() if header.metadata.get(key) != written.get(key)
    )
    yield Note(f"Changed: {', '.join(changed) or 'nothing'}. The weights and their hash are as they were.")
    yield Finished(outputs, {"metadata": written, "changed": changed})


def edited(metadata: Mapping[str, str], job: MetadataJob) -> dict[str, str]:
    """The metadata with the job's changes; an empty text removes a field. Raises FileError for a bad picture."""
    found = {key: value for key, value in metadata.items() if not any(fnmatch.fnmatch(key, p) for p in job.remove)}
    for name, key in FIELDS.items():
        value = getattr(job, name)
        if value == "":
            found.pop(key, None)
        elif value is not None:
            found[key] = value
    for text in job.assign:
        key, _, value = text.partition("=")
        found[key.strip()] = value
    if job.cover:
        check_inputs(job.cover)
        picture = cover(job.cover)
        found["modelspec.thumbnail"] = f"data:image/jpeg;base64,{picture}"
        found["ssmd_cover_images"] = json.dumps([picture])
    return found


def cover(path: str) -> str:
    """A picture as base64 of a JPEG of at most 512 x 512 pixels. Raises FileError."""
    image = read_picture(path).convert("RGB")
    image.thumbnail((COVER_SIDE, COVER_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return base64.b64encode(data.getvalue()).decode("ascii")


def rewrite(source: Path, output: Path, header: Header, metadata: Mapping[str, str]) -> dict[str, str]:
    """Copy the data section behind a new header, atomically; both hashes are made from the bytes. The new metadata.

    Raises KeyMismatch when the copy reads back differently; FileError or DiskFull.
    """
    before = data_hash(source)
    found = {**metadata, "sshs_model_hash": before, "sshs_legacy_hash": legacy(source, header, metadata)}
    output = Path(os.path.realpath(output))
    temporary = output.with_name(f".{output.name[:80]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(source, "rb") as old, open(temporary, "xb") as new:
            new.write(build_header(header.tensors, found))
            old.seek(header.data_start)
            shutil.copyfileobj(old, new, CHUNK)
            new.flush()
            os.fsync(new.fileno())
        if data_hash(temporary) != before or read_header(temporary).metadata != found:
            raise KeyMismatch(f"{output.name} reads back with other bytes than were written; the disk may be faulty.")
        os.replace(temporary, output)
    except OSError as error:
        raise sentence_of(error, output) from None
    finally:
        temporary.unlink(missing_ok=True)
    return found


def legacy(path: Path, header: Header, metadata: Mapping[str, str]) -> str:
    """kohya's sshs_legacy_hash for the file with these metadata."""
    kept = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    offset = 0x100000 - len(build_header(header.tensors, kept))
    with open(path, "rb") as file:
        file.seek(header.data_start + max(offset, 0))
        return hashlib.sha256(file.read(0x10000 + min(offset, 0))).hexdigest()[:8]


def write_sidecar(path: Path, metadata: Mapping[str, str], weight: float) -> Path:
    """A1111's NAME.json beside the file; keys that others wrote there are kept. Raises FileError."""
    sidecar = path.with_suffix(".json")
    values: dict[str, Any] = {}
    if sidecar.is_file():
        try:
            values = dict(json.loads(sidecar.read_text("utf-8-sig")))
        except (ValueError, OSError) as error:
            raise FileError(f"{sidecar.name} is not JSON and is not replaced: {error}.") from None
    values["activation text"] = metadata.get("modelspec.trigger_phrase", values.get("activation text", ""))
    values["description"] = metadata.get("modelspec.description", values.get("description", ""))
    family = family_by_metadata(metadata)
    if family:
        values["sd version"] = VERSIONS[family]
    if weight:
        values["preferred weight"] = weight
    try:
        write_text(sidecar, json.dumps(values, indent=4, ensure_ascii=False))
    except OSError as error:
        raise sentence_of(error, sidecar) from None
    return sidecar
