"""The WebUI as our pages and routes see it: its folders, the desk, and how memory is shared with its own pictures."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_core.confine import confine_job, with_links
from lora_core.desk import Desk
from lora_core.desk_run import engine_child, needs_child
from lora_core.events import Event, Finished, Preview, Saved
from lora_core.jobs import TrainJob
from lora_core.remote import Child

from . import host, host_models, host_pages
from .guard import Access
from .host_api import Choice, PasteField
from .settings_page import OPTIONS

if TYPE_CHECKING:
    from .compat import Editor

LOGGER = logging.getLogger("lora_loom")
ROOT = Path(__file__).resolve().parents[1]
ENOUGH_BYTES = 14 << 30
MADE_BY = {"train": "lora", "merge": "lora", "extract": "lora", "resize": "lora", "convert": "lora", "repair": "lora"}
PICTURES = ("generate", "img2img", "inpaint")
DEFAULTS = {option.name: option.default for option in OPTIONS}


class WebUI:
    """The host of `host_api.Host`. One for the life of the process: a "Reload UI" finds it again."""

    def __init__(self) -> None:
        self._key = secrets.token_urlsafe(24)
        self._img2img: dict[str, Any] = {}
        self._moved: list[Any] | None = None
        self._memory = threading.Lock()
        self._watching = threading.Lock()

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

    def img2img(self) -> Mapping[str, Any]:
        return host_pages.img2img_parts(self._img2img)

    # Paths of requests

    def write_roots(self, kind: str) -> tuple[Path, ...]:
        """Where jobs may write. A relative path belongs to the first, which depends on what the job makes."""
        first = {"lora": self.lora_folders(), "checkpoint": self.checkpoint_folders()}
        made = MADE_BY.get(kind, "checkpoint" if kind == "merge-checkpoint" else "")
        pictures = (self.picture_folder(),) if kind in PICTURES else ()
        every = (*first["lora"], *first["checkpoint"], *host.output_folders())
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
        return confine_job(self.filled(kind, job), self.read_roots(), self.write_roots(kind))

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
        desk = Desk(self.data_folder() / "jobs", self.child, self.around, self.heard)
        atexit.register(desk.close)
        return desk

    def child(self) -> Child:
        minutes = float(self.option("engine_minutes") or 0)
        return dataclasses.replace(engine_child(), idle=max(1.0, 60.0 * minutes))

    @contextlib.contextmanager
    def around(self, job: Any) -> Iterator[bool]:
        """The host's models make room where memory asks for it and come back afterwards, whatever happens."""
        if not self.must_unload(job):
            yield float(self.option("engine_minutes") or 0) > 0
            return
        try:
            with host_models.between_pictures(), self._memory:
                self._moved = host_models.unload_models()
            yield False
        finally:
            with host_models.between_pictures(), self._memory:
                moved, self._moved = self._moved, None
                host_models.restore_models(moved or ())

    def must_unload(self, job: Any) -> bool:
        """By the setting; "auto": where host and job share an accelerator that has not enough free memory."""
        plan = self.option("memory_plan")
        device = host_models.accelerator()
        if plan == "never" or device is None or device_of(job) == "cpu":
            return False
        return plan == "always" or device[1] < ENOUGH_BYTES

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

    # The host's own pictures while a job runs

    def picture_begins(self, p: Any) -> None:
        """Called in the host's thread before each picture: its model comes back, and a training may make way."""
        with self._memory:
            host_models.restore_models(self._moved or ())
        if "desk" not in self.__dict__:
            return
        running = [t.id for t in self.desk.tickets() if t.state == "running" and needs_child(t.kind)]
        if not running or not self.makes_way() or not self._watching.acquire(blocking=False):
            return
        for id in running:
            with contextlib.suppress(Exception):
                self.desk.pause(id)
        host_models.say_below_picture(p, "LoRA Loom: the running job was paused for this picture.")
        threading.Thread(target=self.go_on, args=(running,), name="lora-loom-picture", daemon=True).start()

    def makes_way(self) -> bool:
        plan = self.option("while_drawing")
        return plan == "pause" or (plan == "auto" and host_models.accelerator() is not None)

    def go_on(self, paused: Sequence[str]) -> None:
        """Wait until the host has drawn, take its models away again where they were, resume the jobs."""
        try:
            time.sleep(0.5)
            while host_models.draws():
                time.sleep(0.25)
            with host_models.between_pictures(), self._memory:
                if self._moved is not None:
                    self._moved = [*self._moved, *host_models.unload_models()]
        finally:
            self._watching.release()
            for id in paused:
                with contextlib.suppress(Exception):
                    if self.desk.ticket(id).state == "paused":
                        self.desk.resume(id)


def device_of(job: Any) -> str:
    """The device that a job names, "auto" where it leaves it open."""
    return str(getattr(getattr(job, "memory", job), "device", "auto"))


@lru_cache(maxsize=1)
def webui() -> WebUI:
    """The one WebUI of this process."""
    return WebUI()
