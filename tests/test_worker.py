import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toy_runner import ToyJob

from lora_core import errors
from lora_core.child import ROOT
from lora_core.events import Finished, Loss, Note, Preview, Progress, Saved, Stage
from lora_core.jobs import TrainJob
from lora_core.remote import Child, Worker, cause, spawn
from lora_core.run import run
from lora_core.settings import replace_by_name

HERE = str(Path(__file__).parent)
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")


def start(job, **options):
    return spawn(job, overlay=HERE, imports=["toy_runner"], **options)


def warm(**options):
    return Worker(Child(overlay=(HERE,), imports=("toy_runner",), **options))


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def gone(pid):
    """True when the process has ended (a zombie that waits for its parent has ended too)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_spawn_gives_the_events_of_run():
    job = ToyJob(steps=3, path="C:\\Ünï 中文 (x) & y'z\\\udc80")
    assert list(start(job)) == list(run(job))


def test_noise_on_stdout_goes_to_the_log_and_not_between_the_events(tmp_path):
    job = ToyJob("print", steps=1)
    log = tmp_path / "new folder" / "log.txt"
    events = list(start(job, log=log))
    assert [type(e) for e in events] == [type(e) for e in run(ToyJob(steps=1))]
    text = log.read_text("utf-8")
    assert all(words in text for words in ("library noise", "中文", "raw noise", "noise of a grandchild"))


@pytest.mark.parametrize("act", [*sorted(errors.BY_NAME), "full", "memory"])
def test_errors_keep_class_and_sentence(act):
    job = ToyJob(act, path="/x/ü")
    with pytest.raises(errors.LoomError) as here:
        list(run(job))
    with pytest.raises(errors.LoomError) as there:
        list(start(job))
    assert type(there.value) is type(here.value) and str(there.value) == str(here.value)


def test_problems_of_the_job_are_raised_with_all_sentences():
    with pytest.raises(errors.ConfigError) as fault:
        list(start(ToyJob(steps=-1, seconds=-1.0)))
    assert len(fault.value.problems) == 2


@pytest.mark.parametrize(("act", "words"), [("bug", "KeyError: 'a bug'"), ("die", "exit code 3(.|\n)*the last words")])
def test_a_crash_is_a_sentence_with_the_tail_of_the_log(act, words):
    with pytest.raises(errors.WorkerCrashed, match=words):
        list(start(ToyJob(act)))


@posix
def test_a_killed_child_is_a_sentence():
    running = start(ToyJob(steps=1000, seconds=0.05))
    assert isinstance(running.poll(30), Stage)
    os.kill(running.process.pid, signal.SIGKILL)
    with pytest.raises(errors.WorkerCrashed, match="killed by the system"):
        list(running)
    assert running.ended and running.poll() is None


def test_no_such_interpreter_is_a_sentence(tmp_path):
    with pytest.raises(errors.WorkerCrashed, match="nowhere"):
        start(ToyJob(), python=str(tmp_path / "nowhere"))


def test_a_module_that_cannot_be_imported_is_a_sentence():
    with pytest.raises(errors.WorkerCrashed, match="no_such_module"):
        list(spawn(ToyJob(), imports=["no_such_module"]))


def test_stop_save_pause_and_resume_reach_the_child():
    running = start(ToyJob(steps=100_000, seconds=0.005, path="p"))
    assert isinstance(running.poll(30), Stage)
    running.save()
    until(lambda: isinstance(running.poll(5), Saved))
    running.pause()
    until(lambda: running.poll(0.4) is None)
    running.resume()
    assert isinstance(running.poll(10), Progress)
    running.stop()
    events = list(running)
    assert isinstance(events[-1], Finished) and events[-1].stopped


def test_poll_gives_up_after_its_time():
    with start(ToyJob(steps=2, seconds=1.0)) as running:
        assert isinstance(running.poll(30), Stage)
        begin = time.monotonic()
        assert running.poll(0.1) is None and not running.ended
        assert time.monotonic() - begin < 0.9
    assert running.ended and not running.worker.alive


def test_a_warm_worker_serves_jobs_one_after_another():
    with warm() as worker:
        first = list(worker.run(ToyJob(steps=1)))
        pid = worker.process.pid
        with pytest.raises(errors.FileError):
            list(worker.run(ToyJob("FileError")))
        worker.release()
        running = worker.run(ToyJob(steps=1000, seconds=0.01))
        with pytest.raises(errors.WorkerCrashed, match="busy"):
            worker.run(ToyJob())
        running.stop()
        assert list(running)[-1].stopped
        running.stop()  # too late: must not touch the next job
        assert list(worker.run(ToyJob(steps=1))) == first
        assert worker.process.pid == pid
        log = worker.log
    assert not worker.alive and not os.path.exists(log)


def test_release_drops_the_caches_of_loaded_modules(tmp_path):
    plugin = "import lora_core.events as e\ne.drop_caches = lambda: print('caches dropped', flush=True)\n"
    (tmp_path / "caching_plugin.py").write_text(plugin)
    log = tmp_path / "log"
    child = Child(overlay=(HERE, str(tmp_path)), imports=("toy_runner", "caching_plugin"), log=str(log))
    with Worker(child) as worker:
        list(worker.run(ToyJob(steps=0)))
        assert "caches dropped" not in log.read_text()
        worker.release()
        until(lambda: "caches dropped" in log.read_text())


def test_a_child_that_dies_the_moment_it_has_its_job_leaves_its_last_words(monkeypatch):
    with warm() as worker:
        list(worker.run(ToyJob()))
        send = worker.send

        def slow(line):
            sent = send(line)
            until(lambda: not worker.alive)
            return sent

        monkeypatch.setattr(worker, "send", slow)
        with pytest.raises(errors.WorkerCrashed, match="the last words"):
            list(worker.run(ToyJob("die")))


def test_a_worker_that_crashed_is_started_again():
    with warm() as worker:
        with pytest.raises(errors.WorkerCrashed, match="the last words"):
            list(worker.run(ToyJob("die")))
        assert isinstance(list(worker.run(ToyJob(steps=1)))[-1], Finished)


def test_an_idle_worker_ends_and_the_next_job_starts_another():
    with warm(idle=0.3) as worker:
        list(worker.run(ToyJob(steps=1)))
        until(lambda: not worker.alive)
        assert worker.process.returncode == 0
        assert isinstance(list(worker.run(ToyJob(steps=1)))[-1], Finished)


def test_a_job_sent_while_the_worker_was_ending_is_not_lost():
    with warm(idle=0.3) as worker:
        list(worker.run(ToyJob(steps=1)))
        process = worker.process
        until(lambda: process.poll() is not None)
        worker.send = lambda line, send=worker.send: True if worker.process is process else send(line)
        type(worker).alive, alive = property(lambda self: True), type(worker).alive
        try:
            running = worker.run(ToyJob(steps=1))
        finally:
            type(worker).alive = alive
        assert isinstance(list(running)[-1], Finished)


@pytest.mark.parametrize("act", ["count", "hang"])
def test_a_closed_stdin_ends_the_child_even_inside_a_long_call_into_c(act):
    with warm(grace=1.0) as worker:
        running = worker.run(ToyJob(act, steps=1_000_000, seconds=0.01))
        assert isinstance(running.poll(30), Stage)
        process = worker.process
        process.stdin.close()
        if act == "count":
            assert list(running)[-1].stopped
        process.wait(20)


HOST = """
import sys, time
sys.path[:0] = [{root!r}, {here!r}]
from toy_runner import ToyJob
from lora_core.remote import Child, Worker
worker = Worker(Child(overlay=({here!r},), imports=("toy_runner",), grace=1.0))
running = worker.run(ToyJob({act!r}, steps=1_000_000, seconds=0.01))
running.poll(30)
{extra}
print(worker.process.pid, flush=True)
time.sleep(600)
"""


@posix
@pytest.mark.parametrize("act", ["count", "hang"])
@pytest.mark.parametrize(
    "extra", ["", "import os; os.fork() or time.sleep(600)"], ids=["plain", "pipe inherited by a fork"]
)
def test_kill_9_of_the_host_ends_the_child(act, extra):
    code = HOST.format(root=str(ROOT), here=HERE, act=act, extra=extra)
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        child = int(host.stdout.readline())
        assert not gone(child)
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
        until(lambda: gone(child))
    finally:
        os.killpg(host.pid, signal.SIGKILL) if extra else None


@posix
@pytest.mark.parametrize(
    "extra", ["", "import os; os.fork() or time.sleep(600)"], ids=["plain", "pipe inherited by a fork"]
)
def test_a_job_whose_host_was_killed_keeps_its_work(tmp_path, extra):
    kept = tmp_path / "kept.txt"
    code = HOST.format(root=str(ROOT), here=HERE, act="keep", extra=extra)
    code = code.replace("steps=1_000_000", f"path={str(kept)!r}, steps=1_000_000").replace("grace=1.0", "grace=20.0")
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        child = int(host.stdout.readline())
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
        until(lambda: gone(child))
        assert kept.read_text().endswith(" steps")
    finally:
        os.killpg(host.pid, signal.SIGKILL) if extra else None


@posix
def test_a_host_that_ends_by_itself_leaves_no_child():
    code = HOST.format(root=str(ROOT), here=HERE, act="count", extra="").replace("time.sleep(600)", "sys.exit()")
    child = int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60).stdout)
    until(lambda: gone(child))


def test_a_forgotten_run_leaves_no_child():
    running = start(ToyJob(steps=1_000_000, seconds=0.01))
    running.poll(30)
    process = running.process
    process.stdin.close()
    del running
    process.wait(20)


ANYWHERE = """
import os, sys
sys.path[:0] = [{root!r}, {here!r}]
from toy_runner import ToyJob
from lora_core.remote import spawn
events = list(spawn(ToyJob("print", steps=2, path={root!r}), overlay={here!r}, imports=["toy_runner"]))
print(ascii(events[-1]))
"""


@pytest.fixture(scope="module")
def odd_root(tmp_path_factory):
    """A copy of the code under a path with everything that breaks shells and code pages."""
    root = tmp_path_factory.mktemp("roots") / "Ünï 中文 (x) & y'z {0} %PATH%"
    for package in ("lora_core/jobs",):
        (root / package).mkdir(parents=True)
    for path in [*ROOT.glob("lora_core/*.py"), *ROOT.glob("lora_core/jobs/*.py")]:
        shutil.copy(path, root / path.relative_to(ROOT))
    shutil.copy(Path(HERE) / "toy_runner.py", root / "toy_runner.py")
    return root


@pytest.mark.parametrize("flags", [[], ["-s"], ["-I"]], ids=["plain", "-s", "-I"])
def test_any_root_any_folder_no_path_and_a_narrow_console(odd_root, tmp_path, flags):
    for module in ("json", "lora_core", "threading", "numpy"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('a module of the current folder was imported')")
    environment = {"PYTHONIOENCODING": "cp1252", "LC_ALL": "C", "SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}
    code = ANYWHERE.format(root=str(odd_root), here=str(odd_root))
    code = code.replace("import os, sys", "import sys; sys.path[:] = [p for p in sys.path if p]; import os")
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    last = eval(done.stdout.strip(), {"Finished": Finished})
    assert last.outputs == (str(odd_root),) and last.report["cwd"] == str(tmp_path)
    assert os.path.samefile(last.report["executable"], sys.executable)


def test_the_child_is_started_without_a_shell_and_with_ascii_arguments():
    command = Child(overlay=("/Ünï 中文 & y'z",)).command()
    assert command[0] == sys.executable and command[1] == "-s" and all(part.isascii() for part in command)
    assert all(os.path.isabs(part) for part in command[:1])


def test_folders_of_the_overlay_come_before_all_others(tmp_path):
    (tmp_path / "wave.py").write_text("raise ImportError('the overlay was first')")
    with pytest.raises(errors.WorkerCrashed, match="the overlay was first"):
        list(spawn(ToyJob(), overlay=tmp_path, imports=["wave"]))


@pytest.mark.parametrize(
    ("code", "words"), [(3, "exit code 3"), (-11, "signal 11"), (-9, "memory"), (0xC0000005, "0xc0000005")]
)
def test_exit_codes_in_words(code, words):
    assert words in cause(code)


def test_events_of_a_long_stream_arrive_complete():
    events = list(start(ToyJob(steps=3000)))
    assert [e.done for e in events if isinstance(e, Progress)] == list(range(1, 3001))
    assert sum(isinstance(e, Preview) for e in events) == 1


def test_two_workers_at_once_do_not_mix():
    results = {}

    def work(name):
        results[name] = list(start(ToyJob(steps=5, seconds=0.01, path=name)))[-1].outputs

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert results == {"a": ("a",), "b": ("b",)}


def test_a_training_gives_the_same_events_and_losses_in_a_child(tmp_path):
    tiny = pytest.importorskip("tiny", reason="needs the engine")
    image = pytest.importorskip("PIL.Image")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(2):
        image.new("RGB", (64, 64), (40 * n, 80, 120)).save(pictures / f"{n}.png")
    values = {
        **{"base": str(tiny.checkpoint()), "name": "tiny", "folder": str(pictures), "width": 64, "height": 64},
        **{"buckets": False, "steps": 2, "rank": 2, "dtype": "fp32", "device": "cpu", "threads": 1, "min_bucket": 64},
    }
    jobs = [replace_by_name(TrainJob(), {**values, "output_dir": str(tmp_path / place)}) for place in ("here", "there")]
    here, there = list(run(jobs[0])), list(spawn(jobs[1]))
    kinds = [[type(e) for e in events if not isinstance(e, (Progress, Note))] for events in (here, there)]
    assert kinds[0] == kinds[1]
    losses = [[(e.step, e.loss, e.average) for e in events if isinstance(e, Loss)] for events in (here, there)]
    assert len(losses[0]) == 2 and losses[0] == losses[1]
    assert [Path(path).is_file() for events in (here, there) for path in events[-1].outputs[:1]] == [True, True]
