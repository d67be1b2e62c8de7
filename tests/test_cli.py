import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import toy_runner
from toy_runner import ToyJob

from lora_core import cli
from lora_core.child import ROOT
from lora_core.cli_flags import flag, negation
from lora_core.console import Console, duration
from lora_core.events import Finished, Loss, Note, Preview, Progress, Saved, Stage
from lora_core.jobs import GenerateJob, TrainJob
from lora_core.settings import describe, to_json


@pytest.fixture(autouse=True)
def toy_verb(monkeypatch):
    assert toy_runner.RUNNERS["toy"].job is ToyJob
    monkeypatch.setitem(cli.VERBS, "toy", "do as told")


def parse(*arguments):
    return cli.build(cli.parser().parse_args(arguments))


EXAMPLES = {int: ("7", 7), float: ("0.5", 0.5), str: ("text", "text"), float | None: ("0.25", 0.25)}


@pytest.mark.parametrize("cls", [TrainJob, GenerateJob])
def test_every_setting_has_a_flag_that_sets_it_and_nothing_else(cls):
    verb = {TrainJob: "train", GenerateJob: "generate"}[cls]
    for s in describe(cls):
        if s.type is bool:
            words, value = [flag(s.name)], True
            assert getattr(at(parse(verb, negation(s.name)), s), s.name) is False
        elif s.type == tuple[str, ...]:
            words, value = [flag(s.name), "a b", "c", flag(s.name), "d"], ("a b", "c", "d")
        elif s.declaration.choices:
            words, value = [flag(s.name), s.declaration.choices[-1]], s.declaration.choices[-1]
        else:
            text, value = EXAMPLES[s.type]
            words = [flag(s.name), text]
        job = parse(verb, *words)
        assert getattr(at(job, s), s.name) == value
        changed = {t.name for t in describe(cls) if getattr(at(job, t), t.name) != t.default}
        assert changed <= {s.name}


def at(job, s):
    for part in s.path[:-1]:
        job = getattr(job, part)
    return job


def test_none_is_a_value_where_the_setting_has_it(tmp_path):
    config = tmp_path / "job.json"
    config.write_text(json.dumps({"optimization": {"text_encoder_lr": 0.5}}))
    job = parse("train", "--config", str(config), "--text-encoder-lr", "none")
    assert job.optimization.text_encoder_lr is None


def test_flags_override_the_config_file_which_overrides_the_defaults(tmp_path):
    config = tmp_path / "job.json"
    config.write_text(json.dumps({"network": {"rank": 4, "alpha": 2}, "name": "x"}))
    job = parse("train", "--rank", "8", "--config", str(config))
    assert (job.network.rank, job.network.alpha, job.name) == (8, 2.0, "x")


def test_a_job_as_on_the_wire_is_a_config_file_too(tmp_path):
    config = tmp_path / "job.json"
    config.write_text(json.dumps({"job": "train", "settings": {"name": "x"}}), "utf-8-sig")
    assert parse("train", "--config", str(config)).name == "x"
    assert cli.main(["generate", "--config", str(config)]) == 2


def test_what_print_config_prints_is_a_config_file(tmp_path, capsys):
    assert cli.main(["train", "--rank", "5", "--preview-prompts", "ü 中文", "--print-config"]) == 0
    printed = capsys.readouterr().out
    config = tmp_path / "job.json"
    config.write_text(printed, "utf-8")
    job = parse("train", "--config", str(config))
    assert to_json(job) == json.loads(printed) and job.network.rank == 5


def test_kohya_files_are_read_and_their_notes_shown(tmp_path, capsys):
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps({"seed": 1, "network_dim": 32, "fp8_base": True, "max_train_steps": 9}))
    assert cli.main(["train", "--kohya", str(preset), "--rank", "64", "--epochs", "2", "--print-config"]) == 0
    captured = capsys.readouterr()
    job = json.loads(captured.out)
    assert job["network"]["rank"] == 64 and job["length"]["steps"] == 0 and job["length"]["epochs"] == 2
    assert job["optimization"]["schedule"] == "constant" and "fp8_base" in captured.err


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("a.safetensors", {"path": "a.safetensors"}),
        ("a.safetensors:0.8", {"path": "a.safetensors", "strength": 0.8}),
        ("C:\\x\\a:0.8:0", {"path": "C:\\x\\a", "strength": 0.8, "text_encoder_strength": 0.0}),
        ("C:\\x", {"path": "C:\\x"}),
        ("0.5", {"path": "0.5"}),
        ("a:-1", {"path": "a", "strength": -1.0}),
    ],
)
def test_loras_by_flag(text, use):
    assert cli.lora_use(text) == use
    assert to_json(parse("generate", "--lora", text).loras[0]).items() >= use.items()


WRONG = [
    (["train", "--rank", "x"], "a whole number"),
    (["train", "--rnak", "4"], "--rank"),
    (["train", "--ran", "4"], "--rank"),
    (["train", "--schedule", "zigzag"], "cosine"),
    (["dance"], "train"),
    ([], "VERB"),
    (["train"], "base"),
    (["toy", "--steps", "-1"], "least"),
    (["train", "--kohya", "gone.toml", "--config", "gone.json"], "gone.toml"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_wrong_usage_is_sentences_and_code_2(arguments, words, capsys):
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code == (1 if "gone.toml" in arguments else 2)
    assert words in said and "Traceback" not in said and "usage:" not in said


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [("count", 0, "Done: p"), ("FileError", 1, "A sentence about p"), ("full", 1, "disk is full")],
)
def test_a_job_ends_with_its_code_and_sentence(act, code, words, capsys):
    assert cli.main(["toy", "--act", act, "--path", "p", "--steps", "2"]) == code
    said = capsys.readouterr()
    assert words in said.err and "Traceback" not in said.err and said.out == ""


def test_a_job_in_a_child_ends_the_same_way(monkeypatch, capsys):
    from lora_core import child, remote

    monkeypatch.setattr(child, "ROOT", ROOT)
    spawn = remote.spawn
    here = os.path.dirname(__file__)
    monkeypatch.setattr(remote, "spawn", lambda job, overlay: spawn(job, overlay=here, imports=["toy_runner"]))
    assert cli.main(["toy", "--path", "p", "--worker"]) == 0
    assert "Done: p" in capsys.readouterr().err
    assert cli.main(["toy", "--act", "die", "--worker"]) == 1
    assert "the last words" in capsys.readouterr().err


def test_an_error_that_no_one_foresaw_keeps_its_traceback():
    with pytest.raises(KeyError):
        cli.main(["toy", "--act", "bug"])


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
import toy_runner
from lora_core import cli
cli.VERBS["toy"] = "do as told"
sys.exit(cli.main(["toy", "--steps", "100000", "--seconds", "{seconds}", "--path", "kept"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("seconds", "presses", "code", "words"), [("0.01", 1, 0, "kept kept"), ("60", 2, 1, "at once")]
)
def test_ctrl_c_stops_and_keeps_and_the_second_ends(seconds, presses, code, words):
    script = SCRIPT.format(root=str(ROOT), here=os.path.dirname(__file__), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert "Toy" in process.stderr.readline()
    said = ""
    for _ in range(presses):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        while "Stopping" not in said:
            said += process.stderr.readline()
    said += process.stderr.read()
    process.wait(120)
    assert process.returncode == code and words in said and "Traceback" not in said


def test_help_names_every_flag_and_every_bound(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and all(flag(s.name) in text for s in describe(TrainJob))
    assert "least 1, most 1024, default 16" in " ".join(text.split())


class Terminal(io.StringIO):
    encoding = "cp1252"

    def __init__(self, live):
        super().__init__()
        self.live = live

    def isatty(self):
        return self.live


EVENTS = [
    Stage("Training"),
    Loss(1, 0.5, 0.5, 1e-4),
    Progress(1, 4, 125.0),
    Note("careful 中文", "warning"),
    Loss(4, 0.1, 0.25, 1e-4, 0.125),
    Progress(4, 4),
    Saved("x.safetensors", "lora"),
    Preview(4, "p.png"),
    Finished(("x.safetensors",), {"lines": ["one figure"]}),
]


def test_plain_lines_where_no_person_watches():
    stream = Terminal(live=False)
    console = Console(stream)
    for event in EVENTS:
        console.show(event)
    text = stream.getvalue()
    assert "\r" not in text and "1/4 steps" in text and "2 min 05 s left" in text
    assert "Warning: careful \\u4e2d\\u6587" in text and "held-out loss 0.1250" in text
    assert text.rstrip().endswith("one figure\nDone: x.safetensors")


def test_a_bar_where_a_person_watches():
    stream = Terminal(live=True)
    console = Console(stream)
    for event in EVENTS:
        console.show(event)
    text = stream.getvalue()
    assert "[######..................] 1/4 steps, loss 0.5000" in text and "\r" in text
    assert "[########################] 4/4 steps" in text


def test_many_steps_give_few_lines():
    stream = Terminal(live=False)
    console = Console(stream)
    for step in range(10_000):
        console.show(Progress(step + 1, 10_000))
    assert stream.getvalue().count("\n") <= 5


@pytest.mark.parametrize(("seconds", "words"), [(9, "9 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (-1, "0 s")])
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_inspect_tells_a_lora_from_its_header(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    tensors = {
        "lora_unet_a.lora_down.weight": torch.zeros(4, 8),
        "lora_unet_a.lora_up.weight": torch.zeros(8, 4),
        "lora_unet_a.alpha": torch.tensor(4.0),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"ss_output_name": "x"})
    assert cli.main(["inspect", str(tmp_path / "x.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "LoRA, 3 tensors (F32 x 3)" in text and "ranks: 4 x 1" in text and "name: x" in text
    assert cli.main(["inspect", str(tmp_path / "y.safetensors")]) == 1
    assert "no file" in capsys.readouterr().err
