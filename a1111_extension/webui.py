"""The WebUI as our pages and routes see it: its folders, the desk, and how memory is shared with its own pictures."""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_core.confine import confine_job, with_links
from lora_core.desk import Desk
from lora_core.desk_run import engine_child
from lora_core.events import Event, Finished, Preview, Saved
from lora_core.jobs import TrainJob
from lora_core.remote import Child

from . import host, host_models, host_pages
from .guard import Access
from .host_api import Choice, PasteField
from .settings_page import OPTIONS
from .turns import Turns

if TYPE_CHECKING:
    from .compat import Editor

LOGGER = logging.getLogger("lora_loom")
ROOT = Path(__file__).resolve().parents[1]
MADE_BY = {"train": "lora", "merge": "lora", "extract": "lora", "resize": "lora", "convert": "lora", "repair": "lora"}
PICTURES = ("generate", "img2img", "inpaint")
MORE_FOLDERS = 'To read from another folder, name it in the settings, page "LoRA Loom".'
DEFAULTS = {option.name: option.default for option in OPTIONS}


class WebUI:
    """The host of `host_api.Host`. One for the life of the process: a "Reload UI" finds it again."""

    def __init__(self) -> None:
        self._key = secrets.token_urlsafe(24)
        self._img2img: dict[str, Any] = {}
        self._elsewhere: dict[str, Any] = {}
        self.turns = Turns(self.option)

    # Lists and folders

    name = property(lambda self: host.name())

    def checkpoints(self) -> tuple[Choice, ...]:
        return host.checkpoints()

    def current_checkpoint(self) -> str:
        return host.current_checkpoint()

    def loras(self) -> tuple[Choice, ...]:
        return host.loras()

    def vaes(self) -> tuple[Choice, ...]:
        return host.vaes()

    def lora_folders(self) -> tuple[Path, ...]:
        own = str(self.option("lora_folder") or "").strip()
        return tuple(dict.fromkeys([Path(own), *host.lora_folders()] if os.path.isabs(own) else host.lora_folders()))

    def checkpoint_folders(self) -> tuple[Path, ...]:
        return host.checkpoint_folders()

    def embedding_folders(self) -> tuple[Path, ...]:
        return host.embedding_folders()

    def data_folder(self) -> Path:
        return host.data_folder()

    def picture_folder(self) -> Path:
        return host.picture_folder()

    def work_folder(self) -> Path:
        """States, caches and previews: not below the LoRA folder, where the host would list them as LoRAs."""
        own = str(self.option("work_folder") or "").strip()
        return Path(own) if os.path.isabs(own) else self.data_folder() / "work"

    def refresh(self) -> None:
        host.refresh()

    def option(self, name: str) -> Any:
        return host_pages.option(name, DEFAULTS.get(name))

    def page_key(self) -> str:
        return self._key

    def paste_target(self, tab: str, image: Any, fields: Sequence[PasteField]) -> None:
        host_pages.paste_target(tab, image, fields)

    def send_button(self, button: Any, tab: str, image: Any = None, text: Any = None) -> None:
        host_pages.send_button(button, tab, image, text)

    def mask_editor(self, elem_id: str) -> Editor | None:
        return host_pages.mask_editor(elem_id)

    def component_made(self, component: Any, elem_id: Any) -> None:
        """Called for every component of the host's pages."""
        if elem_id in host_pages.IMG2IMG:
            self._img2img[host_pages.IMG2IMG[elem_id]] = component
        if elem_id in host_pages.ELSEWHERE:
            self._elsewhere[host_pages.ELSEWHERE[elem_id]] = component

    def img2img(self) -> Mapping[str, Any]:
        return host_pages.img2img_parts(self._img2img)

    def elsewhere(self) -> Mapping[str, Any]:
        return self._elsewhere

    def picture_in(self, gallery: Any) -> Any:
        return host_pages.picture_in(gallery)

    # Paths of requests

    def write_roots(self, kind: str) -> tuple[Path, ...]:
        """Where jobs may write: models and what is linked there, pictures, ours.

        A relative path belongs to the first, which depends on what the job makes.
        """
        first = {"lora": self.lora_folders(), "checkpoint": self.checkpoint_folders()}
        made = MADE_BY.get(kind, "checkpoint" if kind == "merge-checkpoint" else "")
        pictures = (self.picture_folder(),) if kind in PICTURES else ()
        every = (*with_links((*first["lora"], *first["checkpoint"])), *host.output_folders())
        return tuple(dict.fromkeys((*first.get(made, pictures), self.data_folder(), self.work_folder(), *every)))

    def read_roots(self) -> tuple[Path, ...]:
        """Where jobs may read besides; links that lie in the model folders are the owner's own."""
        models = (*self.checkpoint_folders(), *self.lora_folders(), *host.vae_folders(), *self.embedding_folders())
        named = str(self.option("picture_folders") or "").splitlines()
        allowed = [Path(line.strip()) for line in named if os.path.isabs(line.strip())]
        return (*with_links(models), *allowed, *host.extra_folders(), ROOT / "lora_core" / "assets")

    def access(self, sessions: Mapping[str, Any]) -> Access:
        """What the routes ask of a caller now. `sessions`: the page's logged-in tokens."""
        return Access(
            self._key,
            host.api_credentials(),
            host.page_credentials(),
            sessions,
            host.allowed_origins(),
            host.is_public(),
        )

    def confined(self, kind: str, job: Any) -> Any:
        """The job of a request, gaps filled in. Raises ConfigError for paths that lead elsewhere."""
        return confine_job(self.filled(kind, job), self.read_roots(), self.write_roots(kind), MORE_FOLDERS)

    def filled(self, kind: str, job: Any) -> Any:
        """The job with the host's folders where it names none. The same job gives the same folders, so it resumes."""
        fields = {f.name for f in dataclasses.fields(job)}
        values: dict[str, Any] = {}
        if "output_dir" in fields and not job.output_dir:
            values["output_dir"] = str(self.write_roots(kind)[0] / ("demo" if kind == "demo" else ""))
        if "work_dir" in fields and not job.work_dir:
            mark = hashlib.sha256(str(values.get("output_dir", job.output_dir)).encode()).hexdigest()[:8]
            values["work_dir"] = str(self.work_folder() / f"{job.name}-{mark}")
        if "lora_dirs" in fields and not job.lora_dirs:
            values["lora_dirs"] = tuple(map(str, self.lora_folders()))
        if "embedding_dirs" in fields and not job.embedding_dirs:
            values["embedding_dirs"] = tuple(map(str, self.embedding_folders()))
        return dataclasses.replace(job, **values)

    # The desk, and what happens around its jobs

    @cached_property
    def desk(self) -> Desk:
        desk = Desk(self.data_folder() / "jobs", self.child, self.turns.around, self.heard)
        atexit.register(desk.close)
        return desk

    def child(self) -> Child:
        minutes = float(self.option("engine_minutes") or 0)
        return dataclasses.replace(engine_child(), idle=max(1.0, 60.0 * minutes))

    def heard(self, id: str, job: Any, event: Event) -> None:
        """A new LoRA or model is in the host's lists at once, and used even under a name that was loaded before."""
        paths: tuple[str, ...] = event.outputs if isinstance(event, Finished) else ()
        if isinstance(event, Saved) and event.kind != "state":
            paths = (event.path,)
        if any(path.lower().endswith((".safetensors", ".ckpt", ".pt")) for path in paths):
            trained = job if isinstance(event, Finished) and isinstance(job, TrainJob) else None
            work = partial(self.take_up, id, trained, paths)
            threading.Thread(target=work, name="lora-loom-lists", daemon=True).start()

    def take_up(self, id: str, trained: TrainJob | None, paths: Sequence[str]) -> None:
        """After the picture that is being made: read the lists again, forget merged LoRAs.

        A finished training's LoRA first gets what its card shows.
        """
        try:
            if trained:
                from lora_core.lora_card import write_card

                previews = [event.path for _, event in self.desk.events(id) if isinstance(event, Preview)]
                write_card(paths[0], trained, previews)
        except Exception:
            LOGGER.exception("The card of the LoRA could not be written")
        try:
            with host_models.between_pictures():
                host_models.forget_loras()
                host.refresh()
        except Exception:
            LOGGER.exception("The host's lists could not be read again")

    def picture_begins(self, p: Any) -> None:
        """Called in the host's thread before each of its own pictures."""
        self.turns.picture_begins(p, self.__dict__.get("desk"))


@lru_cache(maxsize=1)
def webui() -> WebUI:
    """The one WebUI of this process."""
    return WebUI()
