"""How a child process is started: the host's own interpreter, isolated where the host is, never through a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lora_core.errors import WorkerCrashed
from lora_core.overlay import isolation

ROOT = Path(__file__).resolve().parent.parent
BOOT = "import sys; sys.path[:] = {paths} + [p for p in sys.path if p]; from lora_core.worker import main; main()"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Child:
    """How a child process is started.

    `overlay`: folders searched before all others; `log`: file that its stderr is appended to (None: a temporary one);
    `imports`: modules imported before the first job; `idle`: seconds without a job until it ends (0 = never);
    `grace`: seconds that it has left once its host died.
    """

    python: str = ""
    overlay: tuple[str, ...] = ()
    log: str | None = None
    imports: tuple[str, ...] = ()
    idle: float = 0.0
    grace: float = 20.0

    def command(self) -> list[str]:
        """The argument list: the host's own interpreter, isolated where the host is, paths by -c, never a shell."""
        paths = ", ".join(ascii(str(path)) for path in (*self.overlay, ROOT))
        start = [self.python or sys.executable, *isolation(), "-X", "utf8", "-c", BOOT.format(paths=f"[{paths}]")]
        options = [f"--idle={self.idle}", f"--grace={self.grace}"]
        return start + options + [f"--import={module}" for module in self.imports]

    def start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the process. Raises WorkerCrashed when there is no such interpreter."""
        windows = os.name == "nt"
        flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
        try:
            return subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **OFFLINE},
                start_new_session=not windows,
                creationflags=sum(getattr(subprocess, flag) for flag in flags) if windows else 0,
            )
        except OSError as error:
            raise WorkerCrashed(
                f"The worker could not be started with {self.python or sys.executable}: {error}."
            ) from error
