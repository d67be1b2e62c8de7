"""Run a training program as a child on a terminal of its own and measure it from outside: time, CPU, memory (Linux).

Both programs draw a bar with "DONE/TOTAL"; the moments when DONE grows are the steps. Memory is what the kernel counts
as resident (VmHWM, the peak between two resets), summed over the child's processes.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import statistics
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
POLL = 0.05


@dataclass
class Measurement:
    """Moments are seconds since the process start; `moments[n]` and `cpu[n]` are taken when step n was done."""

    moments: dict[int, float] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)
    peak: float = 0.0
    peak_training: float = 0.0
    output: str = ""

    @property
    def start(self) -> float:
        """Seconds from the process start to the beginning of the first step."""
        return self.moments[0]

    @property
    def seconds(self) -> float:
        """Wall seconds per step: the median over the steps after the first."""
        return statistics.median(self.moments[n] - self.moments[n - 1] for n in self.later)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds (user + system) per step: the mean over the steps after the first."""
        return (self.cpu[max(self.cpu)] - self.cpu[1]) / (max(self.cpu) - 1)

    def figures(self) -> str:
        """One line for a person."""
        times = f"{self.seconds:.2f} s/step, {self.cpu_seconds:.2f} CPU s/step, start {self.start:.1f} s"
        return f"{times} ({self.cpu[0]:.1f} CPU s), peak {self.peak:.2f} GiB, training {self.peak_training:.2f} GiB"

    @property
    def later(self) -> list[int]:
        return [n for n in self.moments if n > 1 and n - 1 in self.moments]


def tree(pid: int) -> list[int]:
    """A process and all its descendants that still run."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds of the processes, with those of their children that ended."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def high_water(pids: Sequence[int]) -> float:
    """GiB: the sum of the processes' peaks since their last reset."""
    total = 0
    for pid in pids:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total / 2**20


def reset_high_water(pids: Sequence[int]) -> None:
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def note(found: Measurement, pids: Sequence[int], now: float, steps: int) -> None:
    """Take the memory of this moment, and the time if the last lines show a step that was not seen before."""
    peak = high_water(pids)
    found.peak = max(found.peak, peak)
    if 1 in found.moments:
        found.peak_training = max(found.peak_training, peak)
    for done in map(int, re.findall(rf"\b(\d+)/{steps}(?= steps?|\s*\[)", found.output[-400:])):
        if done not in found.moments:
            found.moments[done], found.cpu[done] = now, cpu_of(pids)
            if done == 1:
                reset_high_water(pids)


def measure(command: Sequence[str], environment: Mapping[str, str], folder: Path, steps: int) -> Measurement:
    """Run `command` in `folder` until it ends. Raises RuntimeError with its last lines when it fails."""
    found = Measurement()
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    begun = time.monotonic()
    process = subprocess.Popen(
        command, env=dict(environment), cwd=folder, stdin=child, stdout=child, stderr=child, close_fds=True
    )
    os.close(child)
    for text in shown(parent, process):
        found.output = (found.output + text)[-20000:]
        note(found, tree(process.pid), time.monotonic() - begun, steps)
    os.close(parent)
    if process.wait() or len(found.later) < 1:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{found.output[-3000:]}")
    return found


def shown(terminal: int, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What the child writes, as it comes; "" when it is silent for a moment."""
    while True:
        ready, _, _ = select.select([terminal], [], [], POLL)
        if not ready:
            if process.poll() is not None:
                return
            yield ""
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return
        if not data:
            return
        yield data.decode("utf-8", "replace")
