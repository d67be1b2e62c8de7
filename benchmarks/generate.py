"""Seconds per step, time to a picture and peak memory of txt2img and inpainting: ours beside ComfyUI's and A1111's.

    COMFYUI_DIR=... COMFYUI_PYTHON=... A1111_DIR=... A1111_PYTHON=... \\
        python benchmarks/generate.py [CHECKPOINT] [--size 512] [--steps 3] [--threads 1] [--only ours comfyui]

CHECKPOINT: SD1.5, for example from tools/random_checkpoint.py; without one, random weights with a UNet of --width
channels instead of 320 (SD1.5's own), for machines with little memory. Euler, CFG 7, fp32; inpainting: the whole
picture at denoising strength 1, so that every step is done. --save keeps each program's figures and takes those of an
earlier run with the same settings from there. Hosts that no variable names are left out. A1111 takes CLIP's tokenizer
from the hub cache that HF_HOME names.
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

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("ours", "comfyui", "a1111")
KINDS = ("txt2img", "inpaint")
COLUMNS = ("CPU s/step", "s/step", "picture, CPU s", "first picture, s", "first, CPU s", "peak GiB")


def figures(program: str, options: argparse.Namespace, dtype: str = "fp32") -> dict[str, list[float]]:
    """Kind -> row of COLUMNS for one program, measured in a process of its own."""
    python = sys.executable if program == "ours" else os.environ.get(f"{program.upper()}_PYTHON", "python3")
    with tempfile.TemporaryDirectory() as data:
        image, mask = drawn_over(Path(data), options.size)
        want = {
            "image": image, "mask": mask,
            "root": str(ROOT), "host": os.environ.get(f"{program.upper()}_DIR", ""), "data": data, "dtype": dtype,
            "checkpoint": str(options.checkpoint.resolve()), "size": options.size, "steps": options.steps,
            "arithmetic": options.arithmetic, "channels": options.width, "kinds": options.kinds,
        }  # fmt: skip
        command = [python, str(Path(__file__).parent / "draw" / f"{program}.py"), json.dumps(want)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("FIGURE ")]
    if done.returncode or len(lines) != 3 * len(options.kinds):
        raise RuntimeError(f"{program} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return {kind: row(lines, kind, options.steps) for kind in options.kinds}


def row(lines: list[dict[str, Any]], kind: str, steps: int) -> list[float]:
    found = {line["name"].partition(" ")[2]: line for line in lines if line["name"].startswith(kind)}
    first, warm, long = found["first"], found["warm"], found["long"]
    step = {k: (long[k] - warm[k]) / (steps - 1) for k in ("cpu", "wall")}
    peak = max(line["peak"] for line in found.values())
    return [step["cpu"], step["wall"], warm["cpu"], first["wall"], first["cpu"], peak]


def drawn_over(folder: Path, size: int) -> tuple[str, str]:
    """A picture of waves and a mask over its middle, as files."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    waves = np.dstack([127 + 100 * np.sin(x / 37), 127 + 100 * np.cos(y / 29), 127 + 90 * np.sin((x - y) / 23)])
    mask = (abs(x - size / 2) < size / 4) & (abs(y - size / 2) < size / 4)
    for name, pixels in (("image", waves), ("mask", mask * 255)):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    return str(folder / "image.png"), str(folder / "mask.png")


def kept_figures(program: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """`figures`, or those that are in the folder --save already."""
    settings = (options.size, options.steps, options.threads, options.width, *options.kinds)
    path = Path(options.save or ".", f"{program}-{'-'.join(map(str, settings))}.json")
    if options.save and path.is_file():
        return json.loads(path.read_text("utf-8"))
    found = figures(program, options)
    if options.save:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found), "utf-8")
    return found


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
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--save", type=Path, help="folder for each program's figures")
    parser.add_argument("--bf16", action="store_true", help="ours once more in bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.checkpoint = options.checkpoint or narrow_checkpoint(Path(folder), options.width)
        report(options)


def report(options: argparse.Namespace) -> None:
    present = [p for p in options.only if p == "ours" or os.environ.get(f"{p.upper()}_DIR")]
    rows = {}
    for program in present:
        rows[program] = kept_figures(program, options)
        print(program, rows[program], file=sys.stderr, flush=True)
    if options.bf16:
        rows["ours, bf16"] = figures("ours", options, "bf16")
    title = "SD1.5" if options.width == 320 else f"SD1.5 with a UNet of width {options.width}"
    for kind in options.kinds:
        print(f"{title}, {options.size} px, fp32, {options.threads} thread(s), {kind}\n")
        print(table({program: found[kind] for program, found in rows.items()}) + "\n")


if __name__ == "__main__":
    main()
