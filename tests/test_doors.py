import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Loads a door as its host does, with every package beyond the standard library absent; prints what it did.
COMFY = """
import importlib.util
name = {root}.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, {root} + "/__init__.py")
door = importlib.util.module_from_spec(spec)
def enter():
    sys.modules[name] = door
    spec.loader.exec_module(door)
"""
A1111 = """
import importlib.util
spec = importlib.util.spec_from_file_location("lora_loom.py", {root} + "/scripts/lora_loom.py")
door = importlib.util.module_from_spec(spec)
callbacks, scripts = types.ModuleType("modules.script_callbacks"), types.ModuleType("modules.scripts")
callbacks.on_ui_tabs = callbacks.on_ui_settings = callbacks.on_app_started = lambda callback: None
scripts.Script, scripts.AlwaysVisible = type("Script", (), dict()), object()
sys.modules.update((m.__name__, m) for m in (types.ModuleType("modules"), callbacks, scripts))
def enter():
    before = sys.path
    sys.path = [{root}] + sys.path
    spec.loader.exec_module(door)
    sys.path = before
"""
FRAME = """
import asyncio, json, sys, types
class Block:
    def find_spec(self, name, path=None, target=None):
        if path is None and name in {blocked}:
            raise AssertionError(f"the door imports {{name}}")
sys.meta_path.insert(0, Block())
{load}
names, path = set(sys.modules), list(sys.path)
import dataclasses, typing, pathlib, types
enter()
{after}
added = sorted(n for n in set(sys.modules) - names if n.partition(".")[0] not in sys.stdlib_module_names)
print(json.dumps({{"added": added, "path": sys.path == path, **globals().get("said", {{}})}}))
"""
HEAVY = [
    "torch",
    "numpy",
    "PIL",
    "safetensors",
    "diffusers",
    "transformers",
    "gradio",
    "modules",
    "comfy",
    "folder_paths",
]
NODES = """
comfy = types.ModuleType("comfy_api"); latest = types.ModuleType("comfy_api.latest")
latest.ComfyExtension = type("ComfyExtension", (), {})
latest.io = types.SimpleNamespace(ComfyNode=type("ComfyNode", (), {}), Custom=str)
sys.modules.update({"comfy_api": comfy, "comfy_api.latest": latest})
extension = asyncio.run(door.comfy_entrypoint())
nodes = asyncio.run(extension.get_node_list())
import lora_core.events
said = {"nodes": len(nodes), "base": isinstance(extension, latest.ComfyExtension), "core": lora_core.events.__file__}
"""
LATER = """
import lora_core.events, lora_loom_a1111
said = {"core": lora_core.events.__file__, "adapter": lora_loom_a1111.__file__}
enter()
"""


def enter(load, after="", root=ROOT):
    code = FRAME.format(load=load.format(root=repr(str(root))), after=after, blocked=HEAVY)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PATH")}
    done = subprocess.run([sys.executable, "-I", "-S", "-X", "utf8", "-c", code], capture_output=True, env=env, cwd="/")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("load", [COMFY, A1111], ids=["comfyui", "a1111"])
def test_a_door_opens_with_no_package_installed_and_leaves_sys_path_alone(load):
    said = enter(load)
    assert said["path"] and len(said["added"]) < 20  # a handful of our own modules; benchmarks/start_up.py times them


def test_comfyui_gets_our_nodes_and_no_generic_names():
    said = enter(COMFY, NODES)
    assert said["base"] and said["core"] == str(ROOT / "lora_core" / "events.py")
    own = str(ROOT).replace(".", "_x_")
    names = [n for n in said["added"] if not n.startswith(own) and n.partition(".")[0] != "comfy_api"]
    assert names and {n.partition(".")[0] for n in names} == {"lora_core"}


def test_a1111_gets_names_of_ours_alone_and_imports_later_and_reloads():
    said = enter(A1111, LATER)
    assert said["core"] == str(ROOT / "lora_core" / "events.py")
    assert said["adapter"] == str(ROOT / "a1111_extension" / "__init__.py")
    assert {n.partition(".")[0] for n in said["added"]} == {"lora_core", "lora_loom_a1111"}


def test_another_package_of_our_name_is_told_apart(tmp_path, monkeypatch):
    from lora_core.doors import load_package

    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "__init__.py").write_text(f"place = {place!r}")
        (tmp_path / place / "sub.py").write_text(f"place = {place!r}")
    name = "lora_loom_test_of_doors"
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]
    module = load_package(name, tmp_path / "one")
    assert load_package(name, tmp_path / "one") is module
    import lora_loom_test_of_doors.sub as sub

    assert sub.place == "one"
    with pytest.raises(ImportError, match=r"already loaded from .*one"):
        load_package(name, tmp_path / "two")


def test_a_package_that_fails_to_load_leaves_no_name(tmp_path):
    from lora_core.doors import load_package

    (tmp_path / "__init__.py").write_text("1/0")
    with pytest.raises(ZeroDivisionError):
        load_package("lora_loom_broken", tmp_path)
    assert "lora_loom_broken" not in sys.modules


def test_the_folders_of_the_doors_hold_nothing_that_a_host_would_run_or_trip_over():
    assert [p.name for p in (ROOT / "scripts").glob("*.py")] == ["lora_loom.py"]
    packages = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert packages == []
