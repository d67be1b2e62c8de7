"""Seconds per step, time to a picture and peak memory of txt2img: ours beside ComfyUI's and A1111's in the same run.

    COMFYUI_DIR=... COMFYUI_PYTHON=... A1111_DIR=... A1111_PYTHON=... \\
        python benchmarks/generate.py [CHECKPOINT] [--size 512] [--steps 3] [--threads 1] [--only ours comfyui]

CHECKPOINT: SD1.5, for example from tools/random_checkpoint.py; without one, random weights with a UNet of --width
channels instead of 320 (SD1.5's own), for machines with little memory. Euler, CFG 7, fp32. Hosts that no variable names
are left out. A1111 takes CLIP's tokenizer from the hub cache that HF_HOME names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("ours", "comfyui", "a1111")
COLUMNS = ("CPU s/step", "s/step", "picture, CPU s", "first picture, s", "first, CPU s", "peak GiB")


def figures(program: str, options: argparse.Namespace, dtype: str = "fp32") -> list[float]:
    """The row of COLUMNS for one program, measured in a process of its own."""
    python = sys.executable if program == "ours" else os.environ.get(f"{program.upper()}_PYTHON", "python3")
    with tempfile.TemporaryDirectory() as data:
        want = {
            "root": str(ROOT), "host": os.environ.get(f"{program.upper()}_DIR", ""), "data": data, "dtype": dtype,
            "checkpoint": str(options.checkpoint.resolve()), "size": options.size, "steps": options.steps,
            "arithmetic": options.arithmetic, "channels": options.width,
        }  # fmt: skip
        command = [python, str(Path(__file__).parent / "draw" / f"{program}.py"), json.dumps(want)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("FIGURE ")]
    if done.returncode or len(lines) != 3:
        raise RuntimeError(f"{program} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, dict[str, Any]] = {line["name"]: line for line in lines}
    step = {k: (found["long"][k] - found["warm"][k]) / (options.steps - 1) for k in ("cpu", "wall")}
    first, peak = found["first"], max(line["peak"] for line in lines)
    return [step["cpu"], step["wall"], found["warm"]["cpu"], first["wall"], first["cpu"], peak]


def narrow_checkpoint(folder: Path, width: int) -> Path:
    """SD1.5 with random weights and another UNet width, and the config that tells A1111 so."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
    from random_checkpoint import write_architecture

    from lora_core.families import reference

    released = reference("sd1")
    unet = replace(released.unet, block_out_channels=tuple(width * m for m in (1, 2, 4, 4)))
    path = folder / "narrow.safetensors"
    write_architecture(replace(released, unet=unet), path, 0, "narrow")
    if "A1111_DIR" in os.environ:
        config = Path(os.environ["A1111_DIR"], "configs", "v1-inference.yaml").read_text("utf-8")
        path.with_suffix(".yaml").write_text(config.replace("model_channels: 320", f"model_channels: {width}"), "utf-8")
    return path


def table(rows: dict[str, list[float]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |" for name, row in rows.items()]
    for name in rows.keys() - {"ours"}:
        if "ours" in rows:
            ratios = [ours / theirs if theirs else float("nan") for ours, theirs in zip(rows["ours"], rows[name])]
            lines.append(f"| ratio to {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--width", type=int, default=320, help="UNet channels of the checkpoint that is made")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arithmetic", choices=("a1111", "comfyui"), default="comfyui")
    parser.add_argument("--only", nargs="*", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--bf16", action="store_true", help="ours once more in bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.checkpoint = options.checkpoint or narrow_checkpoint(Path(folder), options.width)
        report(options)


def report(options: argparse.Namespace) -> None:
    present = [p for p in options.only if p == "ours" or os.environ.get(f"{p.upper()}_DIR")]
    rows = {}
    for program in present:
        rows[program] = figures(program, options)
        print(program, *(f"{value:.2f}" for value in rows[program]), file=sys.stderr, flush=True)
    if options.bf16:
        rows["ours, bf16"] = figures("ours", options, "bf16")
    title = "SD1.5" if options.width == 320 else f"SD1.5 with a UNet of width {options.width}"
    print(f"{title}, {options.size} px, fp32, {options.threads} thread(s)\n\n{table(rows)}")


if __name__ == "__main__":
    main()
