"""Seconds per training step, time to the first step and peak memory, ours beside sd-scripts' in the same run.

    SD_SCRIPTS_DIR=... SD_SCRIPTS_PYTHON=... python benchmarks/train_step.py CHECKPOINT [--resolution 256] [--threads 1]

CHECKPOINT: SD1.5 or SDXL, for example from tools/random_checkpoint.py. Both train a LoRA for the UNet (rank 16,
alpha 8, batch 1, AdamW, latents and captions cached where the program can) on the same eight pictures. Without
SD_SCRIPTS_DIR only ours runs. sd-scripts takes CLIP's tokenizer from the hub cache that HF_HOME names.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measured import Measurement, measure
from sample_pictures import write_pictures

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("s/step", "CPU s/step", "start, s", "start cached, s", "CPU s", "peak GiB", "training GiB")


@dataclass(frozen=True)
class Case:
    """What both programs train."""

    base: Path
    pictures: Path
    resolution: int
    steps: int
    dtype: str
    sdxl: bool
    checkpointing: bool
    threads: int
    runs: int

    @property
    def title(self) -> str:
        extra = ", gradient checkpointing" if self.checkpointing else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{'SDXL' if self.sdxl else 'SD1.5'}, {self.resolution} px, {self.dtype}{extra}, {threads}"


def our_command(case: Case, out: Path) -> list[str]:
    job = {
        "base": str(case.base),
        "name": "ours",
        "output_dir": str(out),
        "resume": False,
        "dataset": {"folder": str(case.pictures), "width": case.resolution, "height": case.resolution},
        "captions": {"shuffle": False},
        "network": {"rank": 16, "alpha": 8.0, "train_text_encoder": False},
        "optimization": {"optimizer": "adamw", "learning_rate": 1e-4, "schedule": "constant", "warmup": 0.0},
        "length": {"steps": case.steps},
        "noise": {"min_snr_gamma": 0.0},
        "saves": {"state_every_steps": 0, "validate_every_steps": 0},
        "memory": {"device": "cpu", "dtype": case.dtype, "gradient_checkpointing": case.checkpointing},
    }
    config = out / "job.json"
    config.write_text(json.dumps(job), "utf-8")
    return [sys.executable, "-m", "lora_core", "train", "--config", str(config)]


def their_command(case: Case, out: Path) -> list[str]:
    """sd-scripts, with its own attention in torch's fused form and its caches on disk."""
    values = {
        "pretrained_model_name_or_path": case.base,
        "train_data_dir": case.pictures.parent,
        "output_dir": out,
        "output_name": "theirs",
        "resolution": case.resolution,
        "network_module": "networks.lora",
        "network_dim": 16,
        "network_alpha": 8,
        "optimizer_type": "AdamW",
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "train_batch_size": 1,
        "max_train_steps": case.steps,
        "max_data_loader_n_workers": 0,
        "caption_extension": ".txt",
        "mixed_precision": "bf16" if case.dtype == "bf16" else "no",
        "save_precision": "fp16",
        "save_model_as": "safetensors",
        "seed": 1,
    }
    flags = ["network_train_unet_only", "sdpa", "cache_latents_to_disk", "cache_latents"]
    flags += ["gradient_checkpointing"] * case.checkpointing
    if case.sdxl:
        flags += ["cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk", "no_half_vae"]
        flags += ["full_bf16"] * (case.dtype == "bf16")
    script = "sdxl_train_network.py" if case.sdxl else "train_network.py"
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    return [os.environ.get("SD_SCRIPTS_PYTHON", "python3"), script, *options, *(f"--{flag}" for flag in flags)]


def measured_runs(command: list[str], folder: Path, case: Case) -> list[Measurement]:
    """The same training once or twice: the second run finds the caches of the first."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads), "HF_HUB_OFFLINE": "1"}
    runs = []
    for title in ("first", "second")[: case.runs]:
        runs.append(measure(command, environment, folder, case.steps))
        print(
            f"{'ours' if 'lora_core' in command else 'sd-scripts'}, {title} run: {runs[-1].figures()}",
            file=sys.stderr,
            flush=True,
        )
    return runs


def figures(runs: list[Measurement]) -> list[float]:
    """The row of COLUMNS: the fastest run for steps, the largest for memory; nan for a cached start not measured."""
    cached = runs[1] if len(runs) > 1 else None
    return [
        min(run.seconds for run in runs),
        min(run.cpu_seconds for run in runs),
        runs[0].start,
        cached.start if cached else math.nan,
        cached.cpu[0] if cached else math.nan,
        max(run.peak for run in runs),
        max(run.peak_training for run in runs),
    ]


def compared(case: Case) -> dict[str, list[float]]:
    """Rows of one table: ours, sd-scripts', and the ratio ours / sd-scripts."""
    theirs = os.environ.get("SD_SCRIPTS_DIR")
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        rows["ours"] = figures(measured_runs(our_command(case, out), ROOT, case))
        if theirs:
            rows["sd-scripts"] = figures(measured_runs(their_command(case, out), Path(theirs), case))
            rows["ratio"] = [a / b for a, b in zip(rows["ours"], rows["sd-scripts"])]
    return rows


def table(title: str, rows: dict[str, list[float]]) -> str:
    lines = [f"| {title} | {' | '.join(COLUMNS)} |", f"|---{'|---:' * len(COLUMNS)}|"]
    lines += [f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |" for name, values in rows.items()]
    return "\n".join(lines)


def is_sdxl(path: Path) -> bool:
    with path.open("rb") as file:
        return b"conditioner.embedders.1" in file.read(int.from_bytes(file.read(8), "little"))


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=int, default=2, choices=[1, 2], help="1: no start with caches")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in both")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = parsed()
    base = chosen.checkpoint.resolve()
    if not os.environ.get("SD_SCRIPTS_DIR"):
        print("SD_SCRIPTS_DIR is not set: ours only, without a yardstick.\n")
    for dtype in chosen.dtypes:
        with tempfile.TemporaryDirectory() as name:
            pictures = Path(name) / "1_pictures"
            write_pictures(pictures, max(512, chosen.resolution))
            case = Case(
                base, pictures, chosen.resolution, chosen.steps, dtype,
                is_sdxl(base), chosen.checkpointing, chosen.threads, chosen.runs,
            )  # fmt: skip
            print(table(case.title, compared(case)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
