import json
import sys

import pytest

from lora_core import doctor, overlay
from lora_core.doctor import Finding, findings, main
from lora_core.engine import probe
from lora_core.errors import EngineMissing


def test_all_is_well_here_and_two_steps_are_trained(capsys):
    assert main(["--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] and all(f["ok"] for f in said["findings"])
    by_name = {f["name"]: f["text"] for f in said["findings"]}
    assert list(by_name) == [
        "python",
        "host",
        "engine folder",
        "temporary folder",
        "engine",
        "packages",
        "device",
        "precision",
        "memory",
        "training",
    ]
    assert by_name["training"].startswith("2 steps") and "losses" in by_name["training"]
    assert sys.executable in by_name["python"]


def without(monkeypatch, **versions):
    before = overlay.host_versions()
    monkeypatch.setattr(overlay, "host_versions", lambda path=None: {**before, **versions})


def test_a_missing_engine_is_one_wrong_line_with_what_to_do(tmp_path, monkeypatch, capsys):
    without(monkeypatch, transformers="4.30.2")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(overlay, "user_data_folder", lambda: tmp_path / "data")
    found = list(findings(tmp_path))
    assert [f.name for f in found if not f.ok] == ["engine"] and found[-1].name == "engine"
    assert "transformers 4.30.2" in found[-1].text and "install.py" in found[-1].text
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_and_the_lines_say_the_same(monkeypatch, capsys):
    lines = [Finding("one", True, "fine"), Finding("two", False, "broken: mend it")]
    monkeypatch.setattr(doctor, "findings", lambda training: iter(lines))
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines() == ["ok     one: fine", "WRONG  two: broken: mend it"]
    del lines[1]
    assert main([]) == 0


def test_an_engine_that_does_not_start_is_told_with_its_last_words(tmp_path):
    (tmp_path / "diffusers.py").write_text("raise ImportError('made for another torch')")
    ready = overlay.Engine((str(tmp_path),), {}, "overlay", "a test")
    (finding,) = doctor.probe(ready, tmp_path)
    assert not finding.ok and "made for another torch" in finding.text and "install.py" in finding.text


def test_a_training_that_fails_is_told_with_its_sentence(tmp_path):
    finding = doctor.trained(overlay.Engine((), {}, "host", "a test"), tmp_path)
    assert not finding.ok and "failed" in finding.text and str(tmp_path) in finding.text


@pytest.mark.parametrize(
    "parent, words", [("custom_nodes", "ComfyUI"), ("extensions", "AUTOMATIC1111"), ("src", "on its own")]
)
def test_the_host_is_told_by_the_folder(tmp_path, parent, words):
    assert words in doctor.host(tmp_path / "host" / parent / "lora-loom").text


def test_a_folder_that_cannot_be_made_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(doctor, "places", lambda root: (tmp_path / "file" / "engine",))
    first, second = doctor.folders(tmp_path)
    assert not first.ok and "cannot write" in first.text and second.ok


def test_the_tiny_base_has_the_topology_of_sd1(tmp_path):
    from lora_core.architecture import architecture_of
    from lora_core.keys import lora_targets

    probe.write_tiny_base(tmp_path)
    arch = architecture_of(tmp_path)
    assert arch.family == "sd1" and len(lora_targets(arch)) == 264


def test_too_old_a_torch_names_the_interpreter(tmp_path, monkeypatch):
    without(monkeypatch, torch="1.13.1")
    with pytest.raises(EngineMissing, match=r"torch 2\.1"):
        overlay.engine(tmp_path)
    wrong = [f for f in findings(tmp_path) if not f.ok]
    assert len(wrong) == 1 and sys.executable in wrong[0].text
