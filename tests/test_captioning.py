"""Captions by a command or a model: only where none exists, and nothing else is touched."""

import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lora_core.captioning import by_command, caption_folder
from lora_core.cli import main
from lora_core.errors import ConfigError, EngineMissing, FileError
from lora_core.tagger import by_model

SCRIPT = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
assert path.exists()
if path.stem == "bad": sys.exit("no idea")
if path.stem != "empty": print("a picture of\\n" + path.stem)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("a b;$(touch x)", "bad", "empty", "has", "below/c"):
        Image.new("RGB", (8, 4), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "has.caption").write_text("mine")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def test_a_command_captions_what_has_no_caption(folder, capsys):
    command = shlex.join([sys.executable, str(folder / "script.py"), "{picture}"])
    assert main(["caption", str(folder), "--command", command, "--trigger", "armin"]) == 1
    assert (folder / "a b;$(touch x).txt").read_text() == "armin, a picture of, a b;$(touch x)\n"
    assert (folder / "below" / "c.txt").read_text() == "armin, a picture of, c\n"
    assert not (folder / "has.txt").exists() and not (folder / "x").exists()
    told = capsys.readouterr().err
    assert "no idea" in told and "bad.png" in told and "empty.png: nothing was said" in told
    assert list(caption_folder(folder / "below", by_command(command))) == []


@pytest.mark.parametrize("command", ["", "tag", "{picture}", "tag 'x {picture}"])
def test_commands_without_a_place_for_the_picture_are_refused(command):
    with pytest.raises(ConfigError):
        by_command(command)


def test_programs_that_hang_or_are_not_there_are_named(folder):
    slow = by_command(shlex.join([sys.executable, "-c", "import time; time.sleep(60)", "{picture}"]), 0.5)
    with pytest.raises(FileError, match="longer"):
        slow(folder / "bad.png")
    with pytest.raises(FileError, match="cannot be started"):
        by_command("/no/such/program {picture}")(folder / "bad.png")


def runtime(shape, output, seen):
    def session(path, providers):
        def run(names, inputs):
            seen.append(inputs["in"])
            return [np.array([output])]

        return SimpleNamespace(get_inputs=lambda: [SimpleNamespace(name="in", shape=shape)], run=run)

    return SimpleNamespace(InferenceSession=session)


def test_a_model_names_its_likely_tags(folder, monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime(["N", 16, 16, 3], [0.9, 0.4, 0.2, 0.8, 0.5], seen))
    tags = folder / "selected_tags.csv"
    tags.write_text("tag_id,name,category,count\n1,general,9,1\n2,red_hat,0,1\n3,dog,0,1\n4,1girl,0,1\n5,^_^,0,1\n")
    assert by_model("m.onnx", tags)(folder / "has.png") == "1girl, ^_^, red hat"
    (given,) = seen
    assert given.shape == (1, 16, 16, 3) and given.dtype == np.float32
    assert given[0, 8, 8].tolist() == [0, 0, 255] and given[0, 0, 0].tolist() == [255, 255, 255]


def test_channels_first_and_raw_numbers(folder, monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime([1, 3, 8, 8], [-3.0, 4.0], seen))
    (folder / "tags.txt").write_text("one\ntwo_x\n")
    assert by_model("m.onnx", folder / "tags.txt")(folder / "has.png") == "two x"
    assert seen[0].shape == (1, 3, 8, 8) and seen[0][0, :, 4, 4].tolist() == [1, 0, 0]
    (folder / "tags.txt").write_text("one\n")
    with pytest.raises(FileError, match="2 tags, the list 1"):
        by_model("m.onnx", folder / "tags.txt")(folder / "has.png")


def test_without_the_runtime_a_sentence_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (folder / "tags.txt").write_text("one\n")
    with pytest.raises(EngineMissing, match="onnxruntime"):
        by_model("m.onnx", folder / "tags.txt")
