"""A throw-away host with deliberately old packages: install.py, a child of it, and uninstall, seen from outside."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from wheels import plant, wheelhouse

from lora_core.overlay import ENGINE, Package

REPOSITORY = Path(__file__).resolve().parents[1]
OLD = {"transformers": "4.30.2", "tokenizers": "0.13.3", "accelerate": "0.21.0", "safetensors": "0.4.2"}
HOST = {**OLD, "torch": "2.1.2", "numpy": "1.26.2", "Pillow": "9.5.0", "regex": "2023.1.1"}
CHILD = """
import importlib, sys
from collections.abc import Iterator
from dataclasses import dataclass
from lora_core.events import Finished
from lora_core.run import RUNNERS, Runner

@dataclass(frozen=True)
class Look:
    def problems(self): return []

def look(job, commands):
    names = {names}
    yield Finished((), {{name: importlib.import_module(name).__version__ for name in names}})

RUNNERS["look"] = Runner(Look, "looker:look")
"""
PARENT = """
import json, sys
sys.path.append({root!r})
import transformers
from lora_core.overlay import engine
from lora_core.remote import spawn
sys.path.append({tools!r})
from looker import Look
ready = engine()
(finished,) = spawn(Look(), overlay=[*ready.folders, {tools!r}], imports=["looker"])
import tokenizers
print(json.dumps({{
    "source": ready.source,
    "child": finished.report,
    "parent": {{"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}},
    "in path": any(".engine" in entry for entry in sys.path),
}}))
"""
FREEZE = """
import ensurepip, pathlib, runpy, sys
sys.path.insert(0, str(max((pathlib.Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))))
sys.argv = ["pip", "freeze", "--all"]
runpy.run_module("pip", run_name="__main__")
"""


class Host:
    """A venv without pip (as those made by uv), old stand-in packages, and our code in a folder with an odd name."""

    def __init__(self, base: Path) -> None:
        self.home = base / "host"
        venv.create(self.home, with_pip=False, symlinks=os.name != "nt")
        self.python = self.home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = next(self.home.rglob("site-packages"))
        for name, version in HOST.items():
            plant(Package(name, "", "", module={"Pillow": "PIL"}.get(name, "")), version, self.site)
        self.root = base / "Ünï 中文 (x) & y'z"
        skip = shutil.ignore_patterns("__pycache__", "assets", "demo", "engine")
        shutil.copytree(REPOSITORY / "lora_core", self.root / "lora_core", ignore=skip)
        shutil.copy(REPOSITORY / "install.py", self.root)
        self.wheels = wheelhouse(base / "wheels")
        self.data = base / "data"

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the host's interpreter as a host would, far from our folder, with an empty PATH."""
        env = {
            "HOME": str(self.data),
            "PATH": "",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            **({"SYSTEMROOT": os.environ["SYSTEMROOT"]} if os.name == "nt" else {}),
            **variables,
        }
        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", env=env, cwd=self.home)

    def install(self, *arguments: str, **variables: str) -> str:
        done = self.run("-X", "utf8", str(self.root / "install.py"), *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def freeze(self) -> str:
        done = self.run("-I", "-c", FREEZE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tree(self) -> str:
        """A hash of every name and byte of the host."""
        digest = hashlib.sha256()
        for path in sorted(self.home.rglob("*")):
            digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
        return digest.hexdigest()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return Host(tmp_path_factory.mktemp("install"))


def test_the_child_has_our_versions_the_host_keeps_its_own_and_nothing_of_it_changes(host, tmp_path):
    freeze, tree = host.freeze(), host.tree()
    assert "transformers==4.30.2" in freeze.splitlines()
    said = host.install()
    assert "transformers 4.30.2" in said and "ready" in said
    names = [p.imported_as for p in ENGINE]
    (tmp_path / "looker.py").write_text(CHILD.format(names=names), "utf-8")
    done = host.run("-X", "utf8", "-c", PARENT.format(root=str(host.root), tools=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["child"] == {p.imported_as: p.pin for p in ENGINE}
    assert seen["parent"] == {name: OLD[name] for name in ("transformers", "tokenizers")}
    assert seen["source"] == "overlay" and not seen["in path"]
    assert (host.freeze(), host.tree()) == (freeze, tree)
    assert "removed" in host.install("--uninstall")
    assert not (host.root / ".engine").exists()
    assert (host.freeze(), host.tree()) == (freeze, tree)


def test_a_start_with_nothing_to_do_is_silent_and_asks_no_network(host):
    host.install()
    no_network = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    for _ in range(2):
        assert host.install(**no_network) == ""


def test_without_network_one_sentence_and_the_host_starts_anyway(host):
    host.install("--uninstall")
    no_network = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    said = host.install(**no_network).splitlines()
    assert len(said) == 2 and "no network" in said[1] and "Merging" in said[1]
    strict = host.run("-X", "utf8", str(host.root / "install.py"), "--strict", **no_network)
    assert strict.returncode == 1


def test_an_interpreter_that_is_not_the_hosts_is_told_apart(host, tmp_path):
    command = [sys.executable, "-I", "-S", str(host.root / "install.py"), "--strict"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "torch 2.1 or newer is needed" in done.stdout
