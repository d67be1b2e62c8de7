"""What LoRA Loom adds to a host's start: the door and an install.py with nothing to do, beside a bare interpreter.

    python benchmarks/start_up.py [--times 5]

Prints the least seconds of several starts, and what is above `python -c pass`, the yardstick of the same run. The aims:
under 0.05 s for the door's own code, under 0.3 s for install.py once the engine is in place.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOOR = (
    "import importlib.util, sys; "
    f"spec = importlib.util.spec_from_file_location('door', {str(ROOT / '__init__.py')!r}); "
    "door = importlib.util.module_from_spec(spec); sys.modules['door'] = door; spec.loader.exec_module(door)"
)
STARTS = {
    "bare interpreter": ["-c", "pass"],
    "ComfyUI's door": ["-c", DOOR],
    "install.py, nothing to do": [str(ROOT / "install.py")],
}


def least_seconds(arguments: list[str], times: int) -> float:
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    bare = least_seconds(STARTS["bare interpreter"], times)
    for name, arguments in STARTS.items():
        seconds = least_seconds(arguments, times)
        print(f"{name:28} {seconds:.3f} s, {seconds - bare:+.3f} s above the bare interpreter ({seconds / bare:.1f} x)")


if __name__ == "__main__":
    main()
