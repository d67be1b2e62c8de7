import errno
import threading
import time
from dataclasses import dataclass

import pytest
import toy_runner
from toy_runner import ToyJob

from lora_core import errors
from lora_core import events as events_module
from lora_core.commands import NAMES, Commands
from lora_core.events import Finished, Progress, Saved, Stage
from lora_core.jobs import GenerateJob, InpaintJob, TrainJob
from lora_core.run import RUNNERS, kind_of, load, release, run, translate


def test_events_come_in_order_and_end_with_finished():
    events = list(run(ToyJob(steps=2, path="x")))
    assert [type(e) for e in events[:3]] == [Stage, Progress, Progress]
    assert isinstance(events[-1], Finished) and events[-1].outputs == ("x",)


def test_problems_are_raised_before_the_runner_is_loaded(monkeypatch):
    monkeypatch.setitem(RUNNERS, "toy", RUNNERS["toy"]._replace(function="no_such_module:nothing"))
    with pytest.raises(errors.ConfigError) as fault:
        list(run(ToyJob(steps=-1, seconds=-1.0)))
    assert len(fault.value.problems) == 2
    with pytest.raises(ModuleNotFoundError):
        list(run(ToyJob()))


def test_each_job_class_has_its_own_kind():
    assert [kind_of(job()) for job in (TrainJob, GenerateJob, InpaintJob, ToyJob)] == [
        "train",
        "generate",
        "inpaint",
        "toy",
    ]


def test_a_job_that_no_runner_knows():
    @dataclass(frozen=True)
    class Other:
        def problems(self) -> list[str]:
            return []

    with pytest.raises(errors.ConfigError, match="Other"):
        list(run(Other()))


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which this module must tell without importing torch."""


FAULTS = [
    (MemoryError(), errors.OutOfMemory),
    (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), errors.OutOfMemory),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), errors.OutOfMemory),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), errors.OutOfMemory),
    (OSError(errno.ENOSPC, "No space left on device", "/x/y"), errors.DiskFull),
    (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), errors.DiskFull),
    (ModuleNotFoundError("No module named 'peft.tuners'", name="peft.tuners"), errors.EngineMissing),
    (ModuleNotFoundError("No module named 'other'", name="other"), None),
    (RuntimeError("shapes do not match"), None),
    (OSError(errno.EACCES, "Permission denied"), None),
    (KeyError("x"), None),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[repr(f)[:40] for f, _ in FAULTS])
def test_faults_of_memory_disk_and_packages_become_sentences(fault, expected):
    known = translate(fault)
    assert type(known) is (expected or type(None))
    assert known is None or str(known).endswith((".", "rest."))


@pytest.mark.parametrize(
    ("act", "expected", "words"),
    [
        ("full", errors.DiskFull, "/x/y"),
        ("memory", errors.OutOfMemory, "Not enough memory"),
        ("bug", KeyError, "a bug"),
        ("NotFinite", errors.NotFinite, "/x/y"),
    ],
)
def test_run_raises_what_the_fault_means(act, expected, words):
    with pytest.raises(expected, match=words):
        list(run(ToyJob(act, path="/x/y")))


def test_torch_reports_too_much_memory_in_words_that_are_known():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as fault:
        torch.empty(2**52, dtype=torch.uint8)
    assert isinstance(translate(fault.value), errors.OutOfMemory)


def test_stop_ends_the_run_with_a_finished_event():
    commands = Commands()
    commands.stop = True
    events = list(run(ToyJob(steps=5), commands))
    assert isinstance(events[-1], Finished) and events[-1].stopped


def test_save_is_taken_once():
    commands = Commands()
    commands.save = True
    assert sum(isinstance(e, Saved) for e in run(ToyJob(steps=5), commands)) == 1


def test_flags_are_independent():
    commands = Commands()
    for name in NAMES:
        assert not getattr(commands, name)
        commands.obey(name)
        assert getattr(commands, name)
    assert commands.take("save") and not commands.take("save") and commands.stop
    commands.obey("resume")
    assert not commands.pause
    with pytest.raises(ValueError, match="dance"):
        commands.obey("dance")
    assert not Commands().stop


@pytest.mark.parametrize("name", ["resume", "stop"])
def test_a_pause_lasts_until_resume_or_stop(name):
    commands = Commands()
    commands.pause = True
    begin = time.monotonic()
    commands.wait_while_paused(0.05)
    assert time.monotonic() - begin >= 0.05
    threading.Timer(0.05, commands.obey, [name]).start()
    commands.wait_while_paused(30)
    assert 0.05 < time.monotonic() - begin < 10


def test_release_asks_every_loaded_module(monkeypatch):
    calls = []
    monkeypatch.setattr(events_module, "drop_caches", lambda: calls.append(1), raising=False)
    release()
    assert calls == [1]


def test_load_names_a_function():
    assert load("toy_runner:toy") is toy_runner.toy
