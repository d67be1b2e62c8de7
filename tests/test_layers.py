"""Imports go downwards only: L0 (standard library) <- L1 (torch, numpy, safetensors, Pillow) <- L2 (engine)."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "lora_core"

L1_PACKAGES = {"torch", "numpy", "safetensors", "PIL"}
ENGINE_PACKAGES = {"diffusers", "transformers", "tokenizers", "peft", "accelerate", "huggingface_hub"}
HOST_PACKAGES = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server", "modules", "gradio"}
OPTIONAL = {"bitsandbytes", "lion_pytorch", "prodigyopt", "tomli", "psutil"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in CORE.rglob("*.py")
}


def is_test_only_l2(name):
    return name.startswith(("lora_core.engine", "lora_core.demo"))


def imports(path, lazy):
    """(module, imported names) for each import; `lazy` also takes those inside functions."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree) if lazy else top_level(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, tuple(alias.name for alias in node.names)


def top_level(tree):
    """The statements that run at import, without `if TYPE_CHECKING` blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from top_level(node)


def core_modules(module, names):
    """The modules of lora_core that an import statement loads."""
    found = {f"{module}.{name}" for name in names if f"{module}.{name}" in MODULES}
    return found | ({module} & MODULES.keys())


def direct(name, lazy=False):
    return {m for module, names in imports(MODULES[name], lazy) for m in core_modules(module, names)}


def third_party(name, lazy=False):
    top = {module.partition(".")[0] for module, _ in imports(MODULES[name], lazy)}
    return top - set(sys.stdlib_module_names) - {"lora_core", "__future__"}


def level(name):
    """0, 1 or 2: by folder for the engine, else by what the module itself imports when it is imported."""
    if is_test_only_l2(name):
        return 2
    return 1 if third_party(name) & L1_PACKAGES else 0


def reach(name):
    """Every module of lora_core that importing one loads."""
    seen, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += direct(current)
    return seen


DECLARED_L0 = [
    *("errors", "events", "settings", "jobs", "jobs.train", "jobs.generate", "jobs.demo", "commands", "run", "wire"),
    *("worker", "remote", "cli", "cli_flags", "console", "__main__", "overlay", "kohya_config", "kohya_options"),
]


def test_the_modules_that_hosts_import_first_are_l0():
    for short in DECLARED_L0:
        loaded = reach(f"lora_core.{short}")
        assert {m for m in loaded if level(m)} == set(), f"{short} loads {sorted(m for m in loaded if level(m))}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_downwards(name):
    above = {m for m in direct(name) if level(m) == 2} if level(name) < 2 else set()
    assert not above, f"{name} imports the engine when it is imported"
    assert not third_party(name, lazy=True) & HOST_PACKAGES, f"{name} knows a host"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_the_packages_of_the_level_are_imported(name):
    allowed = {0: set(), 1: L1_PACKAGES, 2: L1_PACKAGES | ENGINE_PACKAGES}[level(name)]
    assert third_party(name) <= allowed
    assert third_party(name, lazy=True) <= L1_PACKAGES | OPTIONAL | (ENGINE_PACKAGES if level(name) == 2 else set())


BLOCK = """
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"blocked: {{name}}")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {root!r})
for name in {names!r}:
    importlib.import_module(name)
assert not {blocked!r} & {{name.partition(".")[0] for name in sys.modules}}
print(len({names!r}))
"""


def imported_in_a_fresh_interpreter(names, blocked):
    code = BLOCK.format(blocked=blocked, names=sorted(names), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_l0_imports_without_torch_and_everything_else():
    names = {m for m in MODULES if all(level(r) == 0 for r in reach(m)) and m != "lora_core.__main__"}
    assert {f"lora_core.{short}" for short in DECLARED_L0} - names == {"lora_core.__main__"}
    assert imported_in_a_fresh_interpreter(names, L1_PACKAGES | ENGINE_PACKAGES | HOST_PACKAGES | OPTIONAL) == len(
        names
    )


def test_l1_imports_without_the_engine():
    names = {m for m in MODULES if level(m) < 2 and m != "lora_core.__main__"}
    assert imported_in_a_fresh_interpreter(names, ENGINE_PACKAGES | HOST_PACKAGES | OPTIONAL) == len(names)


def test_the_engine_imports_without_a_host():
    names = {m for m in MODULES if m not in ("lora_core.__main__", "lora_core.demo.__main__")}
    assert imported_in_a_fresh_interpreter(names, HOST_PACKAGES) == len(names)


def test_every_module_can_be_the_first_that_is_imported():
    """No module needs, with the packages above what it imports, itself."""
    graph = {}
    for name, path in MODULES.items():
        named = {m for module, names in imports(path, False) for m in (module, *(f"{module}.{n}" for n in names))}
        parts = [m.split(".") for m in named & MODULES.keys()]
        needed = {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)}
        graph[name] = {m for m in needed if name != m and not name.startswith(f"{m}.")}
    graphlib.TopologicalSorter(graph).prepare()


def test_prints_are_in_the_command_line_only():
    tellers = {
        "cli",
        "cli_caption",
        "cli_export",
        "cli_inspect",
        "cli_like",
        "cli_recipe",
        "doctor",
        "__main__",
        "inspect",
    }
    for name, path in MODULES.items():
        calls = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
        prints = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not prints or name.rpartition(".")[2] in tellers, f"{path}:{prints}"


def test_no_globals_and_no_bare_excepts():
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not isinstance(node, ast.Global), f"{path}:{node.lineno}: global"
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{path}:{node.lineno}: bare except"


def test_functions_and_files_stay_small():
    lengths, wide, long_files = [], [], []
    for name, path in MODULES.items():
        text = path.read_text("utf-8")
        long_files += [name] if len(text.splitlines()) > 300 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths.append(node.end_lineno - node.lineno + 1)
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if len(arguments) > 6 and (name, node.name) != ("lora_core.settings", "setting"):
                    wide.append(f"{name}.{node.name}")
    assert sorted(lengths)[int(len(lengths) * 0.9)] <= 25
    assert wide == []
    assert long_files == []
