import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from wheels import build, wheelhouse

from lora_core import overlay, overlay_install, overlay_pip
from lora_core.errors import DiskFull, EngineMissing
from lora_core.lock import locked
from lora_core.overlay import ENGINE, HELPERS, HOST, STAMP, Package, engine, find, numbers, places, plan
from lora_core.overlay_install import Installer, prepare, remove

TORCH = {"torch": "2.1.2+cu121", "numpy": "1.26.2", "Pillow": "9.5.0"}
PINS = {p.name: p.pin for p in (*ENGINE, *HELPERS)}
SUFFICES = {**TORCH, **PINS}
A1111 = {**SUFFICES, "transformers": "4.30.2", "tokenizers": "0.13.3", "accelerate": "0.21.0", "diffusers": None}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return wheelhouse(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(autouse=True)
def data(tmp_path_factory, monkeypatch):
    """Nothing may reach the data folder of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(folder))
    return folder


def installer(wheels, **options):
    heard = []
    values = {"say": heard.append, "pip_options": ("--no-index", "--find-links", str(wheels)), "room": 1, **options}
    return Installer(**values), heard


def leftovers(root):
    return [p.name for place in places(root) if place.is_dir() for p in place.iterdir() if p.name != "lock"]


@pytest.mark.parametrize(
    "version, expected",
    [("2.1.2+cu121", (2, 1, 2)), ("4.48.0.dev0", (4, 48, 0)), ("v1.0", (1, 0)), ("2.0.0rc1", (2, 0, 0)), ("7", (7,))],
)
def test_numbers_of_a_version(version, expected):
    assert numbers(version) == expected


@pytest.mark.parametrize(
    "version, suffices", [("0.31.9", False), ("0.32.0", True), ("0.32.2", True), ("0.33.0", False), (None, False)]
)
def test_a_host_version_suffices_inside_its_range(version, suffices):
    assert Package("diffusers", "0.32.2", "0.32", "0.33").suffices(version) is suffices


def test_our_own_pins_suffice_and_stand_in_pyproject():
    assert all(p.suffices(p.pin) for p in (*ENGINE, *HELPERS))
    text = (Path(overlay.__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    extra = text.partition("engine = [")[2].partition("]")[0]
    assert {line.strip(' ",') for line in extra.splitlines() if "==" in line} == {f"{p.name}=={p.pin}" for p in ENGINE}


def test_a_host_whose_versions_suffice_gets_nothing(tmp_path):
    ready = engine(tmp_path, SUFFICES)
    assert (ready.source, ready.folders) == ("host", ())
    assert prepare(tmp_path, versions=SUFFICES) == ready
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [p.name for p in ENGINE])
def test_one_misfit_brings_the_whole_set(name):
    wanted = plan({**SUFFICES, name: "0.0.1"})
    assert wanted.install == ENGINE
    assert f"{name} 0.0.1" in wanted.reason


def test_helpers_come_one_by_one():
    assert [p.name for p in plan({**SUFFICES, "regex": None}).install] == ["regex"]
    wanted = plan({**A1111, "psutil": None, "PyYAML": "3.1"})
    assert [p.name for p in wanted.install] == [*(p.name for p in ENGINE), "PyYAML", "psutil"]


@pytest.mark.parametrize("name", [p.name for p in HOST])
@pytest.mark.parametrize("version", [None, "0.9"])
def test_torch_numpy_and_pillow_must_be_the_hosts(name, version):
    with pytest.raises(EngineMissing, match=f"{name} .* is needed"):
        plan({**SUFFICES, name: version})


def test_versions_are_read_without_an_import(tmp_path):
    from wheels import plant

    plant(Package("transformers", "", ""), "4.30.2", tmp_path)
    (tmp_path / "transformers" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "peft-1.0.dist-info").mkdir()
    found = overlay.host_versions([str(tmp_path)])
    assert found["transformers"] == "4.30.2"
    assert found["peft"] is None and found["torch"] is None


def test_install_use_and_uninstall(tmp_path, wheels):
    with pytest.raises(EngineMissing, match=r"not installed yet.*install\.py.*without it"):
        engine(tmp_path, A1111)
    settings, heard = installer(wheels)
    ready = prepare(tmp_path, settings, A1111)
    assert ready == engine(tmp_path, A1111)
    assert ready.source == "overlay" and ready.versions == {p.name: p.pin for p in ENGINE}
    assert "transformers 4.30.2" in heard[0] and "ready" in heard[1]
    (folder,) = map(Path, ready.folders)
    assert folder.parent == tmp_path / ".engine"
    for package in ENGINE:
        assert (folder / package.imported_as / "__init__.py").is_file()
    assert not (folder / "tmp").exists() and leftovers(tmp_path) == [folder.name]
    heard.clear()
    assert prepare(tmp_path, settings, A1111) == ready and heard == []
    assert remove(tmp_path) == [tmp_path / ".engine"]
    assert list(tmp_path.iterdir()) == [] and remove(tmp_path) == []


def test_hosts_with_other_needs_share_a_root_without_a_quarrel(tmp_path, wheels):
    settings, heard = installer(wheels)
    one = prepare(tmp_path, settings, A1111)
    two = prepare(tmp_path, settings, {**A1111, "regex": None})
    assert one.folders != two.folders
    heard.clear()
    assert prepare(tmp_path, settings, A1111) == one and heard == []


def test_the_next_version_of_our_set_replaces_the_last_and_leaves_other_pythons(tmp_path, wheels):
    tag, _, _ = overlay.generation().rpartition("-")
    for name in (f"{tag}-000000-111111", "cp39-elsewhere-000000-111111", "part-77"):
        (tmp_path / ".engine" / name).mkdir(parents=True)
    ready = prepare(tmp_path, installer(wheels)[0], A1111)
    assert sorted(leftovers(tmp_path)) == sorted([Path(ready.folders[0]).name, "cp39-elsewhere-000000-111111"])


@pytest.mark.parametrize("damage", ["no stamp", "cut stamp", "package gone", "empty"])
def test_a_half_installed_engine_is_never_used_and_is_replaced(tmp_path, wheels, damage):
    settings, _ = installer(wheels)
    ready = prepare(tmp_path, settings, A1111)
    folder = Path(ready.folders[0])
    if damage == "no stamp":
        (folder / STAMP).unlink()
    elif damage == "cut stamp":
        (folder / STAMP).write_text((folder / STAMP).read_text()[:40])
    elif damage == "package gone":
        os.rename(folder / "peft", tmp_path / "peft")
    else:
        os.rename(folder, tmp_path / "away")
        folder.mkdir()
    assert find(plan(A1111), places(tmp_path)) is None
    with pytest.raises(EngineMissing):
        engine(tmp_path, A1111)
    assert prepare(tmp_path, settings, A1111) == ready
    assert (folder / "peft" / "__init__.py").is_file()


def test_an_unwritable_root_uses_the_users_data_folder(tmp_path, wheels, data):
    root = tmp_path / "root"
    root.mkdir()
    (root / ".engine").write_text("a file where the folder would be")
    ready = prepare(root, installer(wheels)[0], A1111)
    assert Path(ready.folders[0]).is_relative_to(data)
    assert engine(root, A1111) == ready
    assert remove(root) == [places(root)[1]] and (root / ".engine").is_file()


def test_no_writable_place_is_a_sentence(tmp_path, wheels, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    (root / ".engine").touch()
    (tmp_path / "data").touch()
    monkeypatch.setattr(overlay, "user_data_folder", lambda: tmp_path / "data")
    with pytest.raises(EngineMissing, match="can be written to"):
        prepare(root, installer(wheels)[0], A1111)


def failing(tmp_path, settings, fault=EngineMissing):
    """The sentence of an install that fails and leaves nothing behind."""
    with pytest.raises(fault) as caught:
        prepare(tmp_path, settings, A1111)
    assert leftovers(tmp_path) == []
    assert "\n" not in str(caught.value) and overlay.NEEDS_NO_ENGINE in str(caught.value)
    return str(caught.value)


def test_without_network(tmp_path):
    nowhere = Installer(pip_options=("--index-url", "http://127.0.0.1:9/simple", "--retries", "0"), room=1)
    assert "no network" in failing(tmp_path, nowhere)


def test_a_broken_download(tmp_path, wheels):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in wheels.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:-60] if path.name.startswith("peft") else data)
    assert "broken" in failing(tmp_path / "root", installer(broken)[0])


def test_a_full_disk_is_told_before_pip_starts(tmp_path, wheels):
    assert "500 MB" in failing(tmp_path, installer(wheels, room=2**62)[0], DiskFull)


@pytest.mark.parametrize(
    "output, fault, words",
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", DiskFull, "MB"),
        ("OSError: [WinError 112] There is not enough space on the disk", DiskFull, "MB"),
        ("Temporary failure in name resolution\nERROR: No matching distribution found", EngineMissing, "no network"),
        ("Retrying after connection broken by 'NewConnectionError(...)'", EngineMissing, "no network"),
        ("ReadTimeoutError: Read timed out.", EngineMissing, "no network"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", EngineMissing, "broken"),
        ("pip._vendor.urllib3.exceptions.IncompleteRead: 1 bytes read", EngineMissing, "broken"),
        ("some talk\nERROR: a thing nobody foresaw\nnotice", EngineMissing, "pip said: ERROR: a thing nobody foresaw"),
        ("", EngineMissing, "pip said: nothing"),
    ],
)
def test_the_last_words_of_pip_become_one_sentence(output, fault, words):
    error = overlay_pip.sentence(output, Path("/engine"))
    assert type(error) is fault and words in str(error)


def test_an_engine_that_does_not_start_is_not_kept(tmp_path, wheels):
    trial = "raise RuntimeError('needs another torch')"
    assert "needs another torch" in failing(tmp_path, installer(wheels, trial=trial)[0])


def test_a_wrong_version_is_not_kept(tmp_path, wheels, monkeypatch):
    other = tmp_path / "other"
    wheelhouse(other)
    build(ENGINE[0], "9.9", other)
    download = overlay_install.download
    monkeypatch.setattr(overlay_install, "download", lambda pins, *rest: download(["diffusers==9.9", *pins[1:]], *rest))
    assert "diffusers is 9.9" in failing(tmp_path / "root", installer(other)[0])


def test_two_starts_at_once_install_once(tmp_path, wheels):
    talk, results = [], []

    def start():
        settings = Installer(talk.append, ("--no-index", "--find-links", str(wheels)), room=1)
        results.append(prepare(tmp_path, settings, A1111))

    (tmp_path / ".engine").mkdir()
    threads = [threading.Thread(target=start) for _ in range(2)]
    end = time.monotonic() + 60
    with locked(tmp_path / ".engine" / "lock", 5):
        for thread in threads:
            thread.start()
        while sum("waiting" in words for words in talk) < 2 and time.monotonic() < end:
            time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert len(results) == 2 and results[0] == results[1]
    assert sum("Installing" in words for words in talk) == 1


def test_a_start_that_waits_too_long_says_so(tmp_path, wheels):
    (tmp_path / ".engine").mkdir()
    with locked(tmp_path / ".engine" / "lock", 5), pytest.raises(EngineMissing, match="Another start"):
        prepare(tmp_path, installer(wheels, patience=0)[0], A1111)
    assert prepare(tmp_path, installer(wheels)[0], A1111)


def test_settings_of_pip_that_would_touch_the_host_are_not_passed_on(tmp_path, monkeypatch):
    for name, value in {"PIP_TARGET": "/host", "PIP_USER": "1", "PIP_INDEX_URL": "https://mirror.test/simple"}.items():
        monkeypatch.setenv(name, value)
    env = overlay_pip.environment(tmp_path)
    assert "PIP_TARGET" not in env and env["PIP_USER"] == "0"
    assert env["PIP_INDEX_URL"] == "https://mirror.test/simple" and env["TMPDIR"] == str(tmp_path)


def test_a_host_without_pip_uses_the_copy_that_comes_with_python(monkeypatch):
    found = overlay_pip.importlib.util.find_spec
    monkeypatch.setattr(overlay_pip.importlib.util, "find_spec", lambda name: None if name == "pip" else found(name))
    status, output = overlay_pip.call([*overlay_pip.pip(), "--version"])
    assert status == 0 and output.startswith("pip ") and "_bundled" in output
    monkeypatch.setattr(overlay_pip.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineMissing, match="has no pip"):
        overlay_pip.pip()


def test_hidden_packages_count_as_not_installed_in_the_child(tmp_path):
    (tmp_path / "xformers.py").write_text("raise RuntimeError('built for another torch')")
    code = "\n".join(
        (
            f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(overlay.ROOT)!r}]",
            "import importlib.util, json",
            "from lora_core.overlay import hide_unneeded",
            "before = importlib.util.find_spec('xformers') is not None",
            "hide_unneeded()",
            "after = importlib.util.find_spec('xformers')",
            "try:\n    import xformers\nexcept ModuleNotFoundError: told = True",
            "print(json.dumps([before, after, told]))",
        )
    )
    status, output = overlay_pip.call(["-c", code])
    assert status == 0 and json.loads(output) == [True, None, True]


@pytest.mark.parametrize("flag", ["-I", "-s"])
def test_the_child_is_isolated_as_its_host_is(flag):
    path = f"import sys; sys.path.insert(0, {str(overlay.ROOT)!r}); "
    code = path + "from lora_core.overlay import isolation; print(isolation())"
    done = subprocess.run([sys.executable, flag, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([flag])
