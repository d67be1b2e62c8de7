"""Events as lines and progress bars on a stream; a bar where a person watches, plain lines anywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from lora_core.events import Change, Event, Finished, Loss, Note, Preview, Progress, Saved, Stage

BAR_WIDTH = 24
SECONDS_BETWEEN_DRAWINGS = 0.1
SECONDS_BETWEEN_LINES = 15.0


@dataclass
class Console:
    """Shows the events of one job after another on `stream` (default: stderr)."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    title: str = ""
    loss: str = ""
    bar: str = ""
    drawn_at: float = 0.0

    @property
    def live(self) -> bool:
        return self.stream.isatty()

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Stage):
            self.title, self.loss, self.drawn_at = event.title, "", 0.0
            self.line(f"{event.title} ...")
        elif isinstance(event, Loss):
            values = {"loss": event.average, "held-out loss": event.held_out}
            text = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
            if event.held_out is None or not self.live:
                self.loss = text
            if event.held_out is not None:
                self.line(f"  step {event.step}: {text}")
        elif isinstance(event, Progress):
            self.progress(event)
        elif isinstance(event, Change):
            self.line(f"  step {event.step}: {moved(event)}")
        else:
            self.line(sentence(event))

    def progress(self, event: Progress) -> None:
        """Redraw the bar, or now and then write a line."""
        now, last = time.monotonic(), event.done >= event.total
        wait = SECONDS_BETWEEN_DRAWINGS if self.live else SECONDS_BETWEEN_LINES
        if now - self.drawn_at < wait and not last:
            return
        self.drawn_at = now
        words = [f"{event.done}/{event.total} {event.unit}{'' if event.total == 1 else 's'}", self.loss]
        if event.seconds_left is not None and not last:
            words.append(f"{duration(event.seconds_left)} left")
        text = ", ".join(word for word in words if word)
        if not self.live:
            self.write(f"  {text}\n")
            return
        filled = round(BAR_WIDTH * min(1.0, event.done / event.total)) if event.total else BAR_WIDTH
        bar = f"  [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {text}"
        columns = shutil.get_terminal_size().columns
        self.erase()
        self.bar = bar[: max(20, columns - 1)]
        self.write(self.bar)
        if last:
            self.bar = ""
            self.write("\n")

    def line(self, text: str) -> None:
        """A whole line of its own; the bar comes back with the next progress."""
        self.erase()
        if text:
            self.write(f"{text}\n")

    def erase(self) -> None:
        if self.bar:
            self.write("\r" + " " * len(self.bar) + "\r")
            self.bar = ""

    def write(self, text: str) -> None:
        """Write what the stream's encoding can hold, the rest as escapes."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self.stream.flush()


def sentence(event: Event) -> str:
    """One line for an event that is no progress."""
    if isinstance(event, Note):
        return f"Warning: {event.text}" if event.level == "warning" else event.text
    if isinstance(event, Saved):
        return f"Saved {event.path}"
    if isinstance(event, Preview):
        return f"Preview {event.path}"
    if isinstance(event, Finished):
        verb = "Stopped; kept" if event.stopped else "Done:"
        lines = [str(line) for line in event.report.get("lines", [])]
        return "\n".join([*lines, " ".join([verb, ", ".join(event.outputs)])])
    return ""


def moved(change: Change) -> str:
    """How far the weights have come, and which block the farthest."""
    most = max(change.blocks, key=lambda name: change.blocks[name], default="")
    where = f", most in {most} ({change.blocks[most]:.2%})" if most else ""
    return f"the weights have moved by {change.mean:.2%}{where}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 9 s, 3 min 05 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
