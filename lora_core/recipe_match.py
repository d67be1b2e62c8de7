"""Which files at hand are the ones a picture was made with: by name, checked and else found by hash."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lora_core.errors import FileError, LoomError
from lora_core.infotext import is_hash
from lora_core.jobs.generate import InpaintJob
from lora_core.lora_tags import split_lora_tags
from lora_core.recipe_values import Recipe
from lora_core.settings import replace_by_name
from lora_core.tensors import data_hash, file_hashes, read_header

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_UNET = ("model.diffusion_model.", "diffusion_model.", "unet.")


@dataclass
class Files:
    """The weight and picture files below some folders, and the sentences about what was not found in them."""

    paths: tuple[Path, ...]
    notes: list[str] = field(default_factory=list)

    def named(self, name: str, suffixes: Sequence[str] = WEIGHTS) -> list[Path]:
        """Files of this name, with or without their suffix, those whose folders fit it as well first.

        A1111 writes a model in a folder as folder_model.
        """
        wanted = PurePosixPath(name.replace("\\", "/").partition(" [")[0])
        stem = wanted.name if wanted.suffix.lower() not in suffixes else wanted.stem
        found = [p for p in self.paths if p.suffix.lower() in suffixes and p.stem == stem]
        exact = [p for p in found if p.as_posix().endswith("/" + wanted.as_posix())]
        inner = [
            p for p in self.paths if p.suffix.lower() in suffixes and "_" in stem and _joined(p).endswith(f"_{stem}")
        ]
        return list(dict.fromkeys([*exact, *found, *inner]))

    def base(self, name: str, digest: str, what: str = "model") -> Path | None:
        """The checkpoint (or VAE) of this name whose hash fits, else any whose hash fits, else the named one."""
        named = self.named(name) if name else []
        if not digest:
            found = named[0] if named else None
        else:
            others = (p for p in self.paths if p.suffix.lower() in WEIGHTS and p not in named and _holds(p, what))
            found = next((p for p in (*named, *others) if is_file(p, digest)), None)
        if found is None and named:
            self.notes.append(f"{named[0].name} has the name of the picture's {what}, but not its hash {digest}.")
            return named[0]
        if found is None and (name or digest):
            told = " and ".join(text for text in (name, f"hash {digest}" if digest else "") if text)
            self.notes.append(f"The {what} of the picture ({told}) is not in the folders given.")
        elif found is not None and name and found not in named:
            self.notes.append(f"The {what} {name} is {found.name} here: the hash is the same.")
        return found

    def lora(self, name: str, digest: str) -> Path | None:
        """The LoRA file by name or alias, checked against the hash; else by the hash alone."""
        named = [*self.named(name), *(p for p in self._loras() if alias_of(p) == name)]
        if not digest:
            found = named[0] if named else None
        else:
            found = next((p for p in (*named, *self._loras()) if is_lora(p, digest)), None)
        if found is None and named:
            self.notes.append(f"{named[0].name} has the name of the LoRA {name}, but not its hash {digest}.")
            return named[0]
        if found is None:
            self.notes.append(f"The LoRA {name}{f' ({digest})' if digest else ''} is not in the folders given.")
        return found

    def embedding(self, name: str, digest: str) -> list[Path]:
        """The embedding file of this name, checked against the hash; nothing for one that comes in a LoRA."""
        if digest and not is_hash(digest):
            return []
        named = self.named(name)
        found = [p for p in named if not digest or is_file(p, digest)]
        if named and not found:
            self.notes.append(f"{named[0].name} has the name of the embedding {name}, but not its hash {digest}.")
        elif not named:
            self.notes.append(f"The embedding {name}{f' ({digest})' if digest else ''} is not in the folders given.")
        return (found or named)[:1]

    def _loras(self) -> Iterator[Path]:
        return (p for p in self.paths if p.suffix.lower() == ".safetensors" and _holds(p, "LoRA"))


def match_files(recipe: Recipe, folders: Iterable[str | Path]) -> Recipe:
    """The recipe with the files that lie below `folders` named in its job, and a sentence for each that does not.

    The base and the VAE by AutoV2 (10 hex digits), old 8-digit or whole SHA-256, LoRAs by A1111's hash or AutoV2; a
    LoRA that has another name here gets it in the prompt, as A1111 does on pasting.
    """
    files = Files(tuple(files_below(folders)))
    wanted, job = recipe.wanted, recipe.job
    values: dict[str, Any] = {}
    if base := files.base(*wanted.base):
        values["base"] = str(base)
    if job.vae and (vae := files.base(*wanted.vae, what="VAE")):
        values["vae"] = str(vae)
    for name in ("image", "mask") if recipe.kind != "generate" else ():
        asked = getattr(job, name, "")
        found = files.named(asked, PICTURES) if asked else []
        values |= {name: str(found[0])} if found else {}
    prompt, dirs = _tags(job.prompt, dict(wanted.loras), files)
    embeddings = [p.parent for name, digest in wanted.embeddings for p in files.embedding(name, digest)]
    values |= {"prompt": prompt, "lora_dirs": _added(job.lora_dirs, dirs)}
    values["embedding_dirs"] = _added(job.embedding_dirs, embeddings)
    uses = tuple(replace(use, path=str(files.lora(use.path, "") or use.path)) for use in job.loras)
    job = replace(replace_by_name(job, values), loras=uses)
    settled = {"The picture that was drawn over is not in the file: set image."} if getattr(job, "image", "") else set()
    settled |= {"The mask is not in the file: set mask."} if isinstance(job, InpaintJob) and job.mask else set()
    kept = tuple(sentence for sentence in recipe.unmapped if sentence not in settled)
    return replace(recipe, job=job, unmapped=(*kept, *files.notes))


def _added(before: tuple[str, ...], folders: Iterable[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*before, *map(str, folders))))


def _tags(prompt: str, hashes: dict[str, str], files: Files) -> tuple[str, list[Path]]:
    """The prompt with its LoRA tags renamed to the files found, and the folders of these."""
    try:
        tags = split_lora_tags(prompt)[1]
    except LoomError:
        return prompt, []
    folders: list[Path] = []
    for name in dict.fromkeys(tag.name for tag in tags):
        found = files.lora(name, hashes.get(re.sub("[:,]", "", name), ""))
        if found is not None:
            folders.append(found.parent)
            if found.stem != name and alias_of(found) != name:
                named = re.compile(rf"(<(?:lora|lyco):){re.escape(name)}(?=[:>])")
                prompt = named.sub(lambda tag, stem=found.stem: tag[1] + stem, prompt)
    return prompt, folders


def files_below(folders: Iterable[str | Path]) -> Iterator[Path]:
    """Weight and picture files below the folders, sorted within each. Raises FileError for what is no folder."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileError(f"There is no folder {folder}.")
        for place, inner, names in os.walk(folder):
            inner.sort()
            for name in sorted(names):
                if name.lower().endswith((*WEIGHTS, *PICTURES)) and not name.startswith("."):
                    yield Path(place, name)


def is_file(path: Path, digest: str) -> bool:
    """Whether a file has this AutoV2, SHA-256 or old 8-digit hash."""
    old, whole = _file_hashes(path, *_state(path))
    return whole.startswith(digest.lower()) if len(digest) > 8 else old == digest.lower()


def is_lora(path: Path, digest: str) -> bool:
    """Whether a LoRA has this hash of A1111 (of the bytes behind the header, also as its metadata tell) or AutoV2."""
    told = _metadata(path, *_state(path)).get("sshs_model_hash", "")
    if digest and told.startswith(digest.lower()):
        return True
    return _data_hash(path, *_state(path)).startswith(digest.lower()) or is_file(path, digest)


def alias_of(path: Path) -> str:
    """The name that A1111 shows for a LoRA besides its file name."""
    return _metadata(path, *_state(path)).get("ss_output_name", "")


def _holds(path: Path, what: str) -> bool:
    """Whether a file may be a model, a VAE or a LoRA, told by its header; pickles may be anything but a LoRA."""
    if path.suffix.lower() != ".safetensors":
        return what != "LoRA"
    names = _names(path, *_state(path))
    lora = any("lora" in name or name.endswith(".alpha") for name in names)
    unet = any(name.startswith(_UNET) for name in names)
    return {"LoRA": lora, "model": unet and not lora, "VAE": bool(names) and not lora and not unet}[what]


def _joined(path: Path) -> str:
    return "_".join(path.with_suffix("").parts)


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@functools.lru_cache(4096)
def _file_hashes(path: Path, *_: int) -> tuple[str, str]:
    return file_hashes(path)


@functools.lru_cache(4096)
def _data_hash(path: Path, *_: int) -> str:
    return data_hash(path)


@functools.lru_cache(4096)
def _metadata(path: Path, *_: int) -> dict[str, str]:
    try:
        return dict(read_header(path).metadata)
    except LoomError:
        return {}


@functools.lru_cache(64)
def _names(path: Path, *_: int) -> tuple[str, ...]:
    try:
        return tuple(read_header(path).tensors)
    except LoomError:
        return ()
