import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny
from PIL import Image
from toy_runner import ToyJob

from lora_core.desk import Desk
from lora_core.desk_run import needs_child
from lora_core.desk_store import MAX_EVENTS, EventLog, thinned
from lora_core.errors import ConfigError, LoomError
from lora_core.events import Finished, Loss, Note, Progress, Saved, Stage
from lora_core.jobs import TrainJob
from lora_core.jobs.files import InspectJob
from lora_core.remote import Child
from lora_core.settings import replace_by_name

HERE = str(Path(__file__).parent)
TOYS = Child(overlay=(HERE,), imports=("toy_runner",))
LONG = ToyJob(steps=1_000_000, seconds=0.01)


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def over(desk, id, seconds=60):
    until(lambda: desk.ticket(id).over, seconds)
    return desk.ticket(id)


def begun(desk, id):
    until(lambda: any(isinstance(event, Progress) for _, event in desk.events(id)))


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path / "jobs", TOYS) as desk:
        yield desk


class Around:
    """Counts entries and exits as a host would free and bring back its models."""

    def __init__(self, keep=False, fails=""):
        self.said, self.keep, self.fails = [], keep, fails

    @contextlib.contextmanager
    def __call__(self, job):
        if self.fails == "enter":
            raise RuntimeError("no room")
        self.said.append("in")
        try:
            yield self.keep
        finally:
            self.said.append("out")
        if self.fails == "exit":
            raise RuntimeError("cannot reload")


def test_jobs_run_one_after_another_and_a_failure_does_not_end_the_queue(desk):
    ids = [desk.submit(ToyJob(act, steps=1, path=act)) for act in ("count", "NotFinite", "die", "bug", "count")]
    tickets = [over(desk, id) for id in ids]
    assert [ticket.state for ticket in tickets] == ["done", "failed", "failed", "failed", "done"]
    assert "A sentence about NotFinite" in tickets[1].error
    assert "the last words" in tickets[2].error and "the last words" in desk.log(ids[2])
    assert "KeyError" in desk.log(ids[3])
    assert tickets[0].outputs == ("count",) and tickets[0].error == ""
    assert [t.id for t in desk.tickets()] == ids
    spans = [(t.started, t.ended) for t in tickets]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_events_are_numbered_and_wait_returns_as_soon_as_there_are_more(desk):
    id = desk.submit(ToyJob(steps=30, seconds=0.02, path="x"), "A title")
    seen, calls = [], 0
    while not desk.ticket(id).over or desk.events(id, seen[-1][0]):
        seen += desk.wait(id, seen[-1][0] if seen else 0, 30)
        calls += 1
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert isinstance(seen[0][1], Stage) and isinstance(seen[-1][1], Finished) and calls > 3
    assert desk.wait(id, seen[-1][0], 30) == []  # over: returns at once
    shown = desk.snapshot(id)
    assert shown["title"] == "A title" and shown["state"] == "done" and shown["progress"]["done"] == 30
    assert shown["losses"] == [[30, 0.1, None, 1e-4]]  # the toy's average is infinite
    assert shown["report"]["steps"] == 30 and json.dumps(shown, allow_nan=False)
    assert desk.files(id) == ("x",) and desk.job(id).steps == 30


def test_stop_pause_resume_save(desk):
    id = desk.submit(LONG)
    second = desk.submit(ToyJob(steps=1))
    begun(desk, id)
    assert desk.snapshot(second)["ahead"] == 1
    desk.pause(id)
    assert desk.ticket(id).state == "paused"
    until(lambda: not desk.wait(id, desk.events(id)[-1][0], 0.3))
    desk.save(id)
    desk.resume(id)
    until(lambda: any(isinstance(event, Saved) for _, event in desk.events(id)))
    assert desk.ticket(id).state == "running"
    desk.stop(id)
    assert over(desk, id).state == "stopped" and desk.ticket(id).outputs == ("",)
    assert over(desk, second).state == "done"
    with pytest.raises(ConfigError, match="not running"):
        desk.pause(id)


def test_a_waiting_job_is_taken_out_and_a_running_one_is_not_removed(desk):
    id, waiting, gone = desk.submit(LONG), desk.submit(LONG), desk.submit(LONG)
    desk.cancel(waiting)
    assert desk.ticket(waiting).state == "stopped"
    desk.remove(gone)
    assert not (desk.folder / gone).exists()
    begun(desk, id)
    for fault in (
        lambda: desk.remove(id),
        lambda: desk.cancel(id),
        lambda: desk.ticket(gone),
        lambda: desk.log("../x"),
    ):
        with pytest.raises(ConfigError):
            fault()
    desk.stop(id)
    over(desk, id)
    desk.remove(id)
    assert [ticket.id for ticket in desk.tickets()] == [waiting]


def test_stopping_now_ends_a_child_that_hears_nothing(desk):
    id = desk.submit(ToyJob("hang", steps=1))
    until(lambda: desk.events(id))
    desk.stop(id)
    desk.stop(id, now=True)
    assert over(desk, id).state == "stopped"
    assert over(desk, desk.submit(ToyJob())).state == "done"


def test_around_is_left_on_every_path(tmp_path):
    around = Around()
    with Desk(tmp_path, TOYS, around) as desk:
        for act, state in (("count", "done"), ("NotFinite", "failed"), ("die", "failed"), ("bug", "failed")):
            assert over(desk, desk.submit(ToyJob(act))).state == state
            assert around.said == ["in", "out"]
            around.said.clear()
        begun(desk, desk.submit(LONG))
    assert around.said == ["in", "out"]  # closed in the middle


@pytest.mark.parametrize(("fails", "state"), [("enter", "failed"), ("exit", "done")])
def test_a_host_that_cannot_make_room_or_come_back(tmp_path, fails, state):
    with Desk(tmp_path, TOYS, Around(fails=fails)) as desk:
        ticket = over(desk, desk.submit(ToyJob()))
        assert ticket.state == state
        notes = [event.text for _, event in desk.events(ticket.id) if isinstance(event, Note)]
        assert "no room" in ticket.error if fails == "enter" else "cannot reload" in notes[0]


def test_memory_is_given_back_before_the_host_takes_it_and_kept_where_it_allows(tmp_path):
    plugin = "import lora_core.events as e\ne.drop_caches = lambda: print('caches dropped', flush=True)\n"
    (tmp_path / "caching_plugin.py").write_text(plugin)
    child = Child(overlay=(HERE, str(tmp_path)), imports=("toy_runner", "caching_plugin"), log=str(tmp_path / "log"))
    dropped, around = [], Around()

    @contextlib.contextmanager
    def watching(job):
        with around(job) as keep:
            yield keep
            dropped.append((tmp_path / "log").read_text().count("caches dropped"))

    with Desk(tmp_path / "jobs", child, watching) as desk:
        over(desk, desk.submit(ToyJob()))
        around.keep = True
        over(desk, desk.submit(ToyJob()))
        around.keep = False
        over(desk, desk.submit(ToyJob()))
    assert dropped == [1, 1, 2]


def test_tools_run_here_and_do_not_wait_for_a_training(desk, tmp_path):
    assert needs_child("train") and needs_child("demo") and not needs_child("merge") and not needs_child("inspect")
    id = desk.submit(LONG)
    begun(desk, id)
    tool = desk.submit(InspectJob(str(tmp_path / "missing.safetensors")))
    ticket = over(desk, tool)
    assert ticket.state == "failed" and "missing.safetensors" in ticket.error
    assert desk.ticket(id).state == "running"


def test_a_faulty_listener_and_bad_jobs_do_no_harm(tmp_path):
    heard = []

    def listener(id, job, event):
        heard.append(event)
        raise ZeroDivisionError

    with Desk(tmp_path, TOYS, heard=listener) as desk:
        with pytest.raises(ConfigError):
            desk.submit(ToyJob(steps=-1))
        assert desk.tickets() == ()
        assert over(desk, desk.submit(ToyJob())).state == "done"
    assert isinstance(heard[-1], Finished)
    with pytest.raises(LoomError, match="closing"):
        desk.submit(ToyJob())


def test_many_threads_use_one_desk(desk):
    ids, faults = [], []

    def use():
        try:
            id = desk.submit(ToyJob(steps=2))
            ids.append(id)
            for _ in range(20):
                desk.snapshot(id), desk.tickets(), desk.wait(id, 0, 0.01)
            desk.stop(id)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not faults and {over(desk, id).state for id in ids} <= {"done", "stopped"}
    assert len({ticket.id for ticket in desk.tickets()}) == 8


HOST = """
import sys, time
sys.path[:0] = [{root!r}, {here!r}]
from pathlib import Path
import toy_runner
from lora_core.desk import Desk
from lora_core.remote import Child
desk = Desk(Path({folder!r}), Child(overlay=({here!r},), imports=("toy_runner",), grace=1.0))
ids = [desk.submit(toy_runner.ToyJob(steps=1_000_000, seconds=0.01, path=str(i))) for i in range(2)]
while not desk.events(ids[0]):
    time.sleep(0.01)
print(desk._bench.worker.process.pid, *ids, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX signal")
def test_a_host_that_is_killed_leaves_an_interrupted_job_that_can_be_run_again(tmp_path):
    root = str(Path(HERE).parent)
    code = HOST.format(root=root, here=HERE, folder=str(tmp_path / "jobs"))
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child, running, waiting = host.stdout.readline().split()
    with Desk(tmp_path / "jobs", TOYS) as second:
        assert second.folder == tmp_path / "jobs-2" and second.tickets() == ()
    host.kill()
    host.wait()
    host.stdout.close()
    until(lambda: not alive(int(child)))
    with Desk(tmp_path / "jobs", TOYS) as desk:
        assert [(t.id, t.state) for t in desk.tickets()] == [(running, "interrupted"), (waiting, "interrupted")]
        assert desk.ticket(running).error and isinstance(desk.events(running)[0][1], Stage)
        assert desk.job(waiting).path == "1"
        (tmp_path / "jobs" / waiting / "job.json").write_text('{"job": "toy", "settings": {"path": "2", "steps": 1}}')
        again = desk.again(waiting)
        assert again != waiting and over(desk, again).state == "done" and desk.job(again).path == "2"


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_closing_keeps_a_stopped_job_and_marks_what_it_had_to_end(tmp_path):
    with Desk(tmp_path / "jobs", TOYS) as desk:
        stopped = desk.submit(LONG)
        begun(desk, stopped)
    with Desk(tmp_path / "jobs", Child(overlay=(HERE,), imports=("toy_runner",), grace=0.5)) as desk:
        assert desk.ticket(stopped).state == "stopped"
        hung = desk.submit(ToyJob("hang", steps=1))
        until(lambda: desk.events(hung))
        desk.close(0.2)
        assert desk.ticket(hung).state == "interrupted"


def test_events_on_disk_and_in_memory_stay_bounded_and_survive_a_cut_line(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append(Stage("Training"))
    for step in range(1, 20_001):
        log.append(Progress(step, 20_000))
        log.append(Loss(step, 1.0 / step, None, 1e-4, 0.5 if step % 5000 == 0 else None))
    assert len(log.rows) <= MAX_EVENTS and log.last == 40_001
    again = EventLog(log.path)
    losses = [event for _, event in again.rows if isinstance(event, Loss)]
    assert losses[-1].step == 20_000 and losses[0].step < 100
    assert [e.step for e in losses if e.held_out is not None] == [5000, 10_000, 15_000, 20_000]
    assert max(b.step - a.step for a, b in itertools.pairwise(losses)) < 50
    assert any(isinstance(event, Stage) for _, event in again.rows)
    assert log.path.stat().st_size < 2_000_000
    with open(log.path, "a") as file:
        file.write('{"n": 40002, "event": "Sta')
    assert EventLog(log.path).last == again.last
    assert log.after(log.last - 2) == log.rows[-2:] and log.after(0) == log.rows


def test_thinned_keeps_the_last_and_spreads_evenly():
    steps = list(range(1, 10_001))
    kept = thinned(steps, steps, 100)
    assert kept[-1] == 10_000 and len(kept) == 100 and kept == sorted(kept)
    assert thinned([1, 2], [1, 2], 100) == [1, 2]


@pytest.fixture
def training(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (80 * i, 40, 200)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text("a, b")
    values = {
        "folder": str(pictures), "width": 64, "height": 64, "rank": 2, "train_text_encoder": False, "dtype": "fp32",
        "state_every_steps": 1, "steps": 400,
    }  # fmt: skip
    job = TrainJob(base=str(tiny.checkpoint("sd15")), name="mine", output_dir=str(tmp_path / "out"))
    return replace_by_name(job, values)


def test_a_real_training_is_stopped_with_its_lora_kept_and_goes_on(tmp_path, training):
    with Desk(tmp_path / "jobs", Child()) as desk:
        id = desk.submit(training)
        until(lambda: len(desk.snapshot(id)["losses"]) > 5 or desk.ticket(id).over, 120)
        desk.stop(id)
        ticket = over(desk, id)
        assert ticket.state == "stopped" and ticket.resumable, ticket.error
        lora = Path(ticket.outputs[0])
        assert lora.name.startswith("mine") and lora.exists()
        reached = desk.snapshot(id)["losses"][-1][0]
        second = desk.again(id)
        until(lambda: len(desk.snapshot(second)["losses"]) > 1 or desk.ticket(second).over, 120)
        assert desk.snapshot(second)["losses"][-1][0] > reached
        desk.stop(second)
        assert over(desk, second).state == "stopped"
