"""Write a checkpoint of the true architecture with random weights: `python tools/random_checkpoint.py {sd15,sdxl} OUT`.

For tests and benchmarks of real size without a download. fp16, LDM/SGM layout with the tensors that the original
releases hold; norms are 1 and 0, matrices N(0, 1 / fan_in), so a forward pass stays finite. Seeded; one tensor at a
time in memory.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lora_core.families import reference
from lora_core.keys import checkpoint_tensors
from lora_core.shapes import Architecture
from lora_core.tensors import TensorWriter

Plan = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def planned(arch: Architecture) -> tuple[Plan, set[str]]:
    """Name -> (dtype, shape in the file) of every tensor of the modules, and the names of norm weights."""
    plan: Plan = {}
    norms: set[str] = set()
    for component in arch.components:
        for key in checkpoint_tensors(arch, component):
            shape = key.shape
            if key.slice_rows:
                shape = (shape[0] * 3, *shape[1:])
            if key.transform == "transpose":
                shape = shape[::-1]
            if key.transform == "squeeze":
                shape = (*shape, 1, 1)
            plan[key.source] = (torch.float16, shape)
            if len(shape) == 1 and key.name.endswith("weight"):
                norms.add(key.source)
    return plan, norms


def extras(arch: Architecture) -> dict[str, torch.Tensor]:
    """What the releases hold besides the modules: schedule buffers, position ids, OpenCLIP's logit scale."""
    text = arch.prefix("text_encoder")
    found = {f"{text}embeddings.position_ids": torch.arange(77)[None]}
    if arch.family == "sdxl":
        found[f"{arch.prefix('text_encoder_2')}logit_scale"] = torch.tensor(math.log(100.0), dtype=torch.float16)
        return found
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    cumulative = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), cumulative[:-1]])
    buffers = {
        "betas": betas,
        "alphas_cumprod": cumulative,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": cumulative.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumulative).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - cumulative).log(),
        "sqrt_recip_alphas_cumprod": cumulative.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / cumulative - 1).sqrt(),
    }
    return found | {name: tensor.float() for name, tensor in buffers.items()}


def random_tensor(name: str, shape: tuple[int, ...], norm: bool, generator: torch.Generator) -> torch.Tensor:
    """fp16 weights: norms 1, biases 0, embeddings N(0, 0.02^2), matrices N(0, 1 / fan_in)."""
    if len(shape) == 1:
        return torch.ones(shape) if norm else torch.zeros(shape)
    embedding = "token_embedding" in name or "position" in name
    scale = 0.02 if embedding else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(scale)


def write(kind: str, path: Path, seed: int = 0, progress: Callable[[str], object] = str) -> None:
    """Write the checkpoint. The same kind and seed give the same bytes."""
    write_architecture(reference({"sd15": "sd1"}.get(kind, kind)), path, seed, f"random {kind}", progress)


def write_architecture(
    arch: Architecture, path: Path, seed: int, title: str, progress: Callable[[str], object] = str
) -> None:
    """Write a checkpoint of any widths."""
    plan, norms = planned(arch)
    fixed = extras(arch)
    plan |= {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in fixed.items()}
    with TensorWriter(path, plan, {"modelspec.title": title}) as writer:
        for place, name in enumerate(writer.tensors):
            if name in fixed:
                writer.put(name, fixed[name])
                continue
            generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
            writer.put(name, random_tensor(name, plan[name][1], name in norms, generator))
            if place % 200 == 0:
                progress(f"{place} of {len(plan)} tensors")


def lines(arguments: list[str] | None = None) -> Iterator[str]:
    """The command: yields what a person reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("sd15", "sdxl"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    write(chosen.kind, chosen.out, chosen.seed, lambda line: sys.stderr.write(f"\r{line}"))
    yield f"\n{chosen.out}: {chosen.out.stat().st_size:,} bytes"


if __name__ == "__main__":
    for text in lines():
        sys.stderr.write(text + "\n")
