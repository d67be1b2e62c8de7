"""Every fault that a person may see: one sentence that says what happened, where, and what to do."""

from __future__ import annotations


class LoomError(Exception):
    """Base of all errors that carry a sentence for a person. `str(error)` is that sentence."""


class ConfigError(LoomError):
    """A job that cannot run as written. `problems` lists every fault found, not just the first."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class FileError(LoomError):
    """A file that is missing, unreadable, truncated, unsafe or not what it claims to be."""


class KeyMismatch(LoomError):
    """Tensors of a file that fit no module, or modules that the file does not fill."""


class DatasetError(LoomError):
    """A dataset that cannot be trained on."""


class DiskFull(LoomError):
    """No room left for a file; nothing half-written was left behind."""


class OutOfMemory(LoomError):
    """The device or the machine has too little memory for the job."""


class NotFinite(LoomError):
    """NaN or infinity where a number was needed, after every remedy was tried."""


class EngineMissing(LoomError):
    """diffusers, transformers or peft is not installed in a version that suffices."""


class WorkerCrashed(LoomError):
    """The child process ended without a result; the sentence holds the tail of its log."""


class Interrupted(LoomError):
    """A command asked a job to end that has no partial result to keep."""


BY_NAME: dict[str, type[LoomError]] = {
    cls.__name__: cls
    for cls in (
        LoomError,
        ConfigError,
        FileError,
        KeyMismatch,
        DatasetError,
        DiskFull,
        OutOfMemory,
        NotFinite,
        EngineMissing,
        WorkerCrashed,
        Interrupted,
    )
}
