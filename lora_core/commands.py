"""What a person asks of a running job: stop, save now, sample now, pause. Safe to set from any thread."""

from __future__ import annotations

import threading

NAMES = ("stop", "save", "sample", "pause")


class Flag:
    """A boolean attribute of `Commands`, read and written under its lock."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, commands: Commands | None, owner: type) -> bool:
        return commands is not None and self.name in commands.raised

    def __set__(self, commands: Commands, value: bool) -> None:
        with commands.changed:
            (commands.raised.add if value else commands.raised.discard)(self.name)
            commands.changed.notify_all()


class Commands:
    """Flags that a runner polls once a step. A runner takes `save` and `sample` down again by `take`."""

    stop = Flag()
    save = Flag()
    sample = Flag()
    pause = Flag()

    def __init__(self) -> None:
        self.raised: set[str] = set()
        self.changed = threading.Condition()

    def take(self, name: str) -> bool:
        """True once for each time the flag was raised."""
        with self.changed:
            was_raised = name in self.raised
            self.raised.discard(name)
            return was_raised

    def wait_while_paused(self, seconds: float | None = None) -> None:
        """Return when `pause` is down, or `stop` is up, or after `seconds`."""
        with self.changed:
            self.changed.wait_for(lambda: "pause" not in self.raised or "stop" in self.raised, seconds)

    def obey(self, name: str) -> None:
        """One command as it comes over the wire: a flag's name, or "resume" to end a pause. Others raise ValueError."""
        if name == "resume":
            self.pause = False
        elif name in NAMES:
            setattr(self, name, True)
        else:
            raise ValueError(f"Unknown command {name!r}.")
