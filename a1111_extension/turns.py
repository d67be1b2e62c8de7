"""The host's models and our jobs taking turns on an accelerator that may not hold both."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from lora_core.desk import Desk
from lora_core.desk_run import needs_child
from lora_core.errors import LoomError
from lora_core.events import HELD

from . import host_models

LOGGER = logging.getLogger("lora_loom")
ENOUGH_BYTES = 14 << 30
STEP_SECONDS = 20.0
PAUSED = "LoRA Loom: the running job was paused for this picture."
NO_ROOM = (
    "LoRA Loom: the model does not fit beside the job, so nothing was drawn. "
    "Stop the job, which can go on later, then draw again."
)


class Turns:
    """`option` gives a setting of our settings page by its name."""

    def __init__(self, option: Callable[[str], Any]) -> None:
        self._option = option
        self._memory = threading.Lock()
        self._moved: list[Any] | None = None  # the host's models that a job has driven out
        self._held: list[str] = []  # jobs that wait for the host's picture
        self._watched = False

    @contextlib.contextmanager
    def around(self, job: Any) -> Iterator[bool]:
        """The host's models make room where memory asks for it and come back afterwards, whatever happens."""
        if not self._must_unload(job):
            yield float(self._option("engine_minutes") or 0) > 0
            return
        try:
            with host_models.between_pictures(), self._memory:
                self._moved = host_models.unload_models()
            yield False
        finally:
            with host_models.between_pictures(), self._memory:
                moved, self._moved = self._moved, None
                host_models.restore_models(moved or ())

    def _must_unload(self, job: Any) -> bool:
        """By the setting; "auto": where host and job share an accelerator that has not enough free memory."""
        plan = self._option("memory_plan")
        device = host_models.accelerator()
        if plan == "never" or device is None or device_of(job) == "cpu":
            return False
        return plan == "always" or device[1] < ENOUGH_BYTES

    def picture_begins(self, p: Any, desk: Desk | None) -> None:
        """Called in the host's thread before each picture: a job makes way, then the host's model comes back."""
        if desk is not None and self._makes_way():
            self._hold(p, desk)
        with self._memory:
            self._bring_back(p)
            watch = desk is not None and not self._watched and bool(self._held or self._moved is not None)
            self._watched = self._watched or watch
        if watch:
            threading.Thread(target=self._go_on, args=(desk,), name="lora-loom-picture", daemon=True).start()

    def _makes_way(self) -> bool:
        plan = self._option("while_drawing")
        return plan == "pause" or (plan == "auto" and host_models.accelerator() is not None)

    def _hold(self, p: Any, desk: Desk) -> None:
        """Pause what runs, between two of its steps, so that its memory is free."""
        for ticket in desk.tickets():
            if ticket.state == "running" and needs_child(ticket.kind):
                with contextlib.suppress(LoomError):
                    self._held.append(ticket.id)
                    hold(desk, ticket.id, STEP_SECONDS)
                    host_models.say_below_picture(p, PAUSED)

    def _bring_back(self, p: Any) -> None:
        """The host's models on the accelerator again; without room for them the picture is given up, and says so."""
        try:
            host_models.restore_models(self._moved or ())
        except RuntimeError:  # torch's OutOfMemoryError is one
            LOGGER.exception("The host's model could not be brought back for a picture")
            host_models.unload_models()
            host_models.say_below_picture(p, NO_ROOM)
            host_models.give_up_picture()

    def _go_on(self, desk: Desk) -> None:
        """Wait until the host has drawn, take its models away again where they were, resume the jobs."""
        time.sleep(0.5)
        while host_models.draws():
            time.sleep(0.25)
        with host_models.between_pictures():
            try:
                with self._memory:
                    self._watched = False
                    if self._moved is not None:
                        self._moved = [*self._moved, *host_models.unload_models()]
            finally:
                held, self._held = self._held, []
                for id in held:
                    with contextlib.suppress(LoomError):
                        if desk.ticket(id).state == "paused":
                            desk.resume(id)


def hold(desk: Desk, id: str, seconds: float) -> None:
    """Pause a job and wait until it has stopped between two steps, or is over, for `seconds` at most."""
    last = max((number for number, _ in desk.events(id)), default=0)
    desk.pause(id)
    end = time.monotonic() + seconds
    while not desk.ticket(id).over and time.monotonic() < end:
        rows = desk.wait(id, last, end - time.monotonic())
        if any(event == HELD for _, event in rows):
            return
        last = max([last, *(number for number, _ in rows)])


def device_of(job: Any) -> str:
    """The device that a job names, "auto" where it leaves it open."""
    return str(getattr(getattr(job, "memory", job), "device", "auto"))
