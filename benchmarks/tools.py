"""The LoRA tools beside sd-scripts': seconds, CPU seconds, peak memory, and the error of each result (Linux).

    python benchmarks/tools.py sd15.safetensors [sdxl.safetensors] [--only merge resize ...] [--threads 1]

Checkpoints: tools/random_checkpoint.py. SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON name the yardstick; without them only ours
runs. Every tool runs as a process of its own, so its figures include its start; ours once more as a host runs it.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lora_core.architecture import architecture_of
from lora_core.cli import build, parser
from lora_core.factors import Share, concatenated, difference, norm
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import read_lora, write_lora
from lora_core.lora_metadata import Summary, minimal_metadata
from lora_core.run import run
from lora_core.settings import replace_by_name
from lora_core.svd import product_svd, tails

ROOT = Path(__file__).resolve().parent.parent
OURS = [sys.executable, "-m", "lora_core"]


@dataclass(frozen=True)
class Run:
    """Wall seconds, user + system seconds, peak resident memory in GiB; `error` of the result, if it has one."""

    seconds: float
    cpu: float
    memory: float
    error: float | None = None


@dataclass(frozen=True)
class Setting:
    """What a benchmark works on: a checkpoint, a folder for results, the yardstick's command or none, the threads."""

    base: Path
    folder: Path
    yardstick: tuple[str, ...]
    threads: str
    family: str

    def path(self, name: str) -> str:
        return str(self.folder / f"{self.family}_{name}.safetensors")

    def theirs(self, script: str) -> list[str]:
        return [self.yardstick[1], f"{self.yardstick[0]}/networks/{script}"] if self.yardstick else []


def measured(setting: Setting, command: Sequence[str]) -> Run:
    """Run a program to its end. Raises RuntimeError with the end of its output when it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": setting.threads, "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = setting.yardstick[0] if command[0] != OURS[0] and setting.yardstick else str(ROOT)
    log = setting.folder / "log.txt"
    begun = time.monotonic()
    with open(log, "wb") as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        pid = os.posix_spawnp(command[0], list(command), environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command[:4])} failed:\n{log.read_text(errors='replace')[-2000:]}")
    return Run(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def random_lora(setting: Setting, name: str, rank: int, seed: int, spread: float = 0.02) -> str:
    """A LoRA file for all modules of kohya's table, as a training leaves it: small, alpha = rank / 2."""
    arch = architecture_of(setting.base)
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for key in lora_targets(arch):
        down = torch.randn(rank, *key.shape[1:], generator=generator) / rank**0.5
        up = torch.randn(key.shape[0], rank, *(1,) * (len(key.shape) - 2), generator=generator) * spread
        modules[key.canonical] = LoraModule(down, up, rank / 2)
    summary = Summary(arch.family, rank, rank / 2, name, arch.prediction)
    write_lora(setting.path(name), Lora(modules, {}, arch.family), arch, torch.float16, minimal_metadata(summary))
    return setting.path(name)


def whole_error(found: str, wanted: Mapping[str, LoraModule]) -> float:
    """Relative Frobenius error of all layers together, from the factors."""
    modules = read_lora(found).modules
    lost = whole = 0.0
    for name, module in wanted.items():
        size = norm(module)
        lost += (difference(modules[name], module) * size) ** 2
        whole += size**2
    return (lost / whole) ** 0.5


def best_error(wanted: Mapping[str, LoraModule], rank: int) -> float:
    """The least error that any LoRA of this rank has (Eckart and Young)."""
    lost = whole = 0.0
    for module in wanted.values():
        s = product_svd(module.up.float().flatten(1), module.down.float().flatten(1)).s
        size = norm(module) ** 2
        lost += size * float(tails(s)[rank]) ** 2 if rank < len(s) else 0.0
        whole += size
    return (lost / whole) ** 0.5


def copy_with_fsync(setting: Setting) -> Run:
    """The yardstick of merging: the same bytes to the same disk."""
    target = setting.path("copy")
    begun, cpu = time.monotonic(), time.process_time()
    with open(setting.base, "rb") as source, open(target, "wb") as output:
        shutil.copyfileobj(source, output, 1 << 22)
        output.flush()
        os.fsync(output.fileno())
    run = Run(time.monotonic() - begun, time.process_time() - cpu, 0.0)
    os.unlink(target)
    return run


def show(title: str, run: Run, beside: Run | None = None) -> None:
    error = "" if run.error is None else f"  error {run.error:8.4%}"
    ratio = f"  {beside.seconds / run.seconds:6.1f} x faster, {beside.cpu / run.cpu:6.1f} x less CPU" if beside else ""
    print(f"{title:44} {run.seconds:8.2f} s {run.cpu:8.2f} CPU s {run.memory:6.2f} GiB{error}{ratio}", flush=True)


def in_process(command: Sequence[str]) -> Run:
    """Our command in this process, as the hosts run it: without the start of Python and torch."""
    options = parser().parse_args(list(command[len(OURS) :]))
    job = replace_by_name(build(options), {"overwrite": True})
    begun, cpu = time.monotonic(), time.process_time()
    collections.deque(run(job), maxlen=0)
    return Run(time.monotonic() - begun, time.process_time() - cpu, 0.0)


def both(
    setting: Setting, title: str, commands: tuple[Sequence[str], Sequence[str]], error: Callable[[str], float]
) -> None:
    """Run ours and the yardstick's (if any), each writing its result to the path that ends its command."""
    ours, theirs = commands
    found = measured(setting, ours)
    found = Run(found.seconds, found.cpu, found.memory, error(ours[-1]))
    beside = None
    if theirs:
        beside = measured(setting, theirs)
        beside = Run(beside.seconds, beside.cpu, beside.memory, error(theirs[-1]))
        show(f"{setting.family} {title}: sd-scripts", beside)
    show(f"{setting.family} {title}: LoRA Loom", found, beside)
    show(f"{setting.family} {title}: in a running host", in_process(ours), beside)


def merge_checkpoint(setting: Setting) -> None:
    lora = random_lora(setting, "r16", 16, 1)
    output = setting.path("merged")
    copy = min((copy_with_fsync(setting) for _ in range(2)), key=lambda run: run.seconds)
    show(f"{setting.family} copy with fsync", copy)
    command = [
        *OURS,
        "merge-checkpoint",
        "--base",
        str(setting.base),
        "--lora",
        lora,
        "--overwrite",
        "--output",
        output,
    ]
    found = min((measured(setting, command) for _ in range(2)), key=lambda run: run.seconds)
    show(f"{setting.family} merge into checkpoint: LoRA Loom", found)
    print(f"{'':44} {found.seconds / copy.seconds:8.2f} times the copy")
    if setting.yardstick and setting.family == "sd1":
        theirs = [*setting.theirs("merge_lora.py"), "--sd_model", str(setting.base), "--models", lora, "--ratios", "1"]
        theirs += ["--precision", "float", "--save_precision", "fp16", "--save_to", output]
        show(f"{setting.family} merge into checkpoint: sd-scripts", measured(setting, theirs))
    os.unlink(output)


def svd_merge(setting: Setting) -> None:
    a, b = random_lora(setting, "r16", 16, 1), random_lora(setting, "r16b", 16, 2)
    one, two = read_lora(a).modules, read_lora(b).modules
    wanted = {name: concatenated([Share(0.6, one[name]), Share(0.4, two[name])]) for name in one}
    ours = [*OURS, "merge", "--lora", f"{a}:0.6", "--lora", f"{b}:0.4", "--method", "svd", "--rank", "16"]
    ours += ["--output", setting.path("svd_ours")]
    theirs = setting.theirs("svd_merge_lora.py")
    if theirs:
        theirs += ["--models", a, b, "--ratios", "0.6", "0.4", "--new_rank", "16", "--save_precision", "fp16"]
        theirs += ["--precision", "float", "--save_to", setting.path("svd_theirs")]
    both(setting, "merge to rank 16", (ours, theirs), lambda path: whole_error(path, wanted))
    print(f"{'':44} best possible error {best_error(wanted, 16):.4%}")


def resize(setting: Setting) -> None:
    a = random_lora(setting, "r16", 16, 1)
    wanted = read_lora(a).modules
    ours = [*OURS, "resize", "--lora", a, "--rank", "8", "--output", setting.path("resized_ours")]
    theirs = setting.theirs("resize_lora.py")
    if theirs:
        theirs += ["--model", a, "--new_rank", "8", "--save_precision", "fp16"]
        theirs += ["--save_to", setting.path("resized_theirs")]
    both(setting, "resize 16 to 8", (ours, theirs), lambda path: whole_error(path, wanted))
    print(f"{'':44} best possible error {best_error(wanted, 8):.4%}")


def extract(setting: Setting) -> None:
    lora = random_lora(setting, "r8", 8, 3)
    tuned = setting.path("tuned")
    measured(setting, [*OURS, "merge-checkpoint", "--base", str(setting.base), "--lora", lora, "--output", tuned])
    wanted = read_lora(lora).modules
    ours = [*OURS, "extract", "--tuned", tuned, "--base", str(setting.base), "--rank", "16"]
    ours += ["--output", setting.path("extracted_ours")]
    theirs = setting.theirs("extract_lora_from_models.py") if setting.family == "sd1" else []
    if theirs:
        theirs += ["--model_org", str(setting.base), "--model_tuned", tuned, "--dim", "16", "--save_precision", "fp16"]
        theirs += ["--save_to", setting.path("extracted_theirs")]
    both(setting, "extract rank 16", (ours, theirs), lambda path: whole_error(path, wanted))
    os.unlink(tuned)


def inspect(setting: Setting) -> None:
    from lora_core.inspect_file import inspect_network

    path = random_lora(setting, "r16", 16, 1)
    inspect_network(path)
    seconds = []
    for _ in range(9):
        begun, cpu = time.monotonic(), time.process_time()
        inspect_network(path)
        seconds.append((time.monotonic() - begun, time.process_time() - cpu))
    wall, cpu = (statistics.median(one) * 1000 for one in zip(*seconds))
    print(f"{setting.family + ' inspect of a header (in process)':44} {wall:8.1f} ms, {cpu:.1f} CPU ms")


BENCHMARKS = {
    "inspect": inspect,
    "resize": resize,
    "merge": svd_merge,
    "checkpoint": merge_checkpoint,
    "extract": extract,
}


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("bases", nargs="+", type=Path)
    flags.add_argument("--only", nargs="*", choices=tuple(BENCHMARKS), default=tuple(BENCHMARKS))
    flags.add_argument("--threads", default=str(os.cpu_count()))
    flags.add_argument("--folder", type=Path, help="where results go (default: a temporary folder)")
    options = flags.parse_args()
    torch.set_num_threads(int(options.threads))
    directory = os.environ.get("SD_SCRIPTS_DIR", "")
    yardstick = (directory, os.environ.get("SD_SCRIPTS_PYTHON", sys.executable)) if directory else ()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for base in options.bases:
            setting = Setting(base, Path(folder), yardstick, options.threads, architecture_of(base).family)
            for name in options.only:
                BENCHMARKS[name](setting)


if __name__ == "__main__":
    main()
