"""Shared by the drivers: draw a picture three times in one process and say what each took (Linux)."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGUN = time.monotonic()


def asked() -> dict[str, Any]:
    return json.loads(sys.argv[-1])


def say(name: str, wall: float, cpu: float) -> None:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = int(found[1]) / 2**20 if found else 0.0
    line = json.dumps({"name": name, "wall": wall, "cpu": cpu, "peak": peak})
    print(f"\nFIGURE {line}", file=sys.__stdout__, flush=True)


def measure(draws: dict[str, Callable[[int], object]], steps: int) -> None:
    """For each kind of picture `draw(steps)`: the first one of one step with everything before it, then warm ones of 1
    and of `steps` steps, each with a seed of its own as nothing may be taken from a cache."""
    for kind, draw in draws.items():
        begun, used = (time.monotonic(), time.process_time()) if kind != next(iter(draws)) else (BEGUN, 0.0)
        draw(1)
        say(f"{kind} first", time.monotonic() - begun, time.process_time() - used)
        for name, count in (("warm", 1), ("long", steps)):
            wall, cpu = time.monotonic(), time.process_time()
            draw(count)
            say(f"{kind} {name}", time.monotonic() - wall, time.process_time() - cpu)
