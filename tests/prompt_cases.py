"""Prompts whose conditioning was measured in the real hosts, and the small models that it was measured on.

Weights come from numpy's frozen RandomState, so that they are the same with every version of everything.
"""

from __future__ import annotations

import functools
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tiny
import torch
from safetensors.torch import save_file

from lora_core.embeddings import EmbeddingFolders
from lora_core.engine.guidance import PromptOptions, guidance_of
from lora_core.engine.models import Models, load_text_encoders
from lora_core.engine.new_words import write_embedding
from lora_core.shapes import Architecture

KINDS = ("sd15", "sd2", "sdxl")
STEPS = 8
MARINE = "a ship on a stormy sea, (masterpiece:1.3), best quality, [worst], sharp focus, ((golden hour)), "
LONG = MARINE + "lighthouse, cliffs, gulls, rain, foam, rocks, fog, clouds, moon, stars, dark blue, teal, " * 3
NO_COMMAS = "very detailed photograph of an old wooden house beside a quiet river " * 8


@dataclass(frozen=True)
class Case:
    """A prompt with the options that matter; `kinds` it makes sense for."""

    prompt: str
    clip_skip: int = 1
    emphasis: str = "original"
    negative: bool = False
    kinds: tuple[str, ...] = KINDS


A1111 = {
    "plain": Case("a photo of a cat, solo"),
    "empty": Case(""),
    "empty negative": Case("", negative=True),
    "weights": Case("a (red:1.4) cat, (blue:0.6) sky, ((wide)) angle"),
    "nested": Case("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))."),
    "escapes": Case(r"cat \(animal\), \[x\], a\\b, back\slash, (very \(big\):1.2)"),
    "unbalanced": Case("a ((cat), dog]] :1.2) [bird, (fish:1.3"),
    "long": Case(LONG),
    "long without commas": Case(NO_COMMAS, kinds=("sd15", "sdxl")),
    "comma at the edge": Case("dog " * 70 + "a, b c d e f, g h i (j:1.5) k"),
    "break": Case("a cat BREAK a (dog:1.2) BREAK, (a BREAK b:1.1) BREAK"),
    "clip skip 2": Case("a (red:1.4) cat, 1girl", clip_skip=2),
    "clip skip 5": Case("a cat", clip_skip=5, kinds=("sd15",)),
    "and": Case("a cat :1.2 AND a (dog:1.3) AND bird:-0.5 "),
    "and without AND": Case("poster, ratio 16:9", kinds=("sd15",)),
    "editing": Case("a [cat:dog:0.5] on a [red:3] [sofa::6] bed, [x:[y:z:2]:5] [(a:1.2):1e0]"),
    "editing to a long one": Case(f"(a:1.3) [cat:{LONG}:4]"),
    "alternation": Case("[red|blue|(green:1.3)] ball, [fe|]male"),
    "no norm": Case(LONG, emphasis="no norm"),
    "ignore": Case("a (red:1.4) cat [x]", emphasis="ignore"),
    "none": Case("a (red:1.4) cat [x]", emphasis="none"),
    "comments": Case("a cat # a dog\n# nothing\na bird"),
    "unicode": Case("naïve café “quoted” it’s ＡＢＣ 猫と犬, ﬁne — ½ 🎉 \u00a0 x &amp; <b>"),
    "embeddings": Case("a photo by loomstyle, (badpose-v2:1.3), solo loomstyle2"),
    "embedding at the edge": Case("dog " * 68 + "a, b c LoomStyle d, e"),
    "embedding carried over a comma": Case("dog " * 66 + "a, b loomstyle c d e f g"),
}

BATCH = ("a [cat:dog:3] AND (bird:1.2) :0.5", LONG, "[x|y]")
NEGATIVE = f"bad [fish:{LONG}:4]"
CALLS = (0, 3, 4, 5, 8, 9)

COMFYUI = {
    "plain": Case("a photo of a cat, solo"),
    "empty": Case(""),
    "weights": Case("a (red:1.4) cat, (blue:0.6) sky, ((wide)) angle"),
    "nested": Case("a (((house:1.3)) [on] a (hill:0.5 (small)), sun, (((sky))):0.7)."),
    "escapes": Case(r"cat \(animal\), \[x\], (very \(big\):1.2) \\"),
    "unbalanced": Case("a ((cat), dog)) :1.2) [bird, (fish:1.3"),
    "closing first": Case("a) b (c:1.3) (d:x) (:1.2) () (e:0)"),
    "long": Case(LONG),
    "long without commas": Case(NO_COMMAS),
    "a short word is moved": Case("dog " * 73 + "(one two three:1.4) end"),
    "a long word is cut": Case("dog " * 70 + "(one two three four five six seven eight nine:1.4) end"),
    "clip skip 2": Case("a (red:1.4) cat, 1girl", clip_skip=2),
    "clip skip 3": Case("a (red:1.4) cat, 1girl", clip_skip=3),
    "other languages": Case("a cat BREAK [dog:bird:3] AND [a|b]\n\n(x\ny:1.2)"),
    "unicode": Case("naïve café “quoted” it’s ＡＢＣ 猫と犬, ﬁne — ½ 🎉 \u00a0 x &amp; <b>"),
    "embeddings": Case("a photo by embedding:loomstyle, (embedding:badpose-v2:1.3) solo embedding:loomstyle.pt x"),
    "embedding on a line": Case("embedding:loomstyle\nembedding:sub/loomstyle2 some more words"),
    "embedding at the edge": Case("dog " * 73 + "(embedding:loomstyle:1.2) d"),
    "a long embedding is cut": Case("dog " * 70 + "embedding:longone d"),
}


def encoder_widths(kind: str) -> tuple[int, ...]:
    return tuple(shape.width for shape in architecture(kind).text_encoders)


def architecture(kind: str) -> Architecture:
    """As tiny's, with a projection as wide as the encoder: both hosts know no other."""
    arch = tiny.architecture(kind)
    encoders = tuple(replace(e, projection=e.projection and e.width) for e in arch.text_encoders)
    return replace(arch, text_encoders=encoders)


def _fill(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Numbers that both halves and floats hold: ComfyUI keeps text encoders in half precision."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
    spread = 1.0 if "embedding" in name else 0.3 if tensor.dim() == 1 else tensor.shape[-1] ** -0.5
    shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return torch.from_numpy(draw * spread + shift).half().float()


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="lora_loom_prompts_"))


@functools.cache
def checkpoint(kind: str) -> Path:
    """A checkpoint file whose text encoders are filled with known numbers."""
    arch = architecture(kind)
    made = tiny.modules(arch)
    for name, module in made.items():
        if name.startswith("text_encoder"):
            state = {key: _fill(f"{name}.{key}", value) for key, value in module.state_dict().items()}
            module.load_state_dict(state)
    path = _folder() / f"{kind}.safetensors"
    save_file(tiny.file_tensors(arch, made), path)
    return path


@functools.cache
def embeddings(kind: str) -> Path:
    """A folder with textual inversions of every usual kind for these models."""
    folder = _folder() / f"embeddings-{kind}"
    (folder / "sub").mkdir(parents=True)
    sizes = {"loomstyle": 3, "badpose-v2": 2, "loomstyle2": 1, "longone": 9}
    for name, count in sizes.items():
        keys = ("clip_l", "clip_g") if kind == "sdxl" else ("emb",)
        rows = {
            key: _fill(f"embedding {name} {key}", torch.empty(count, width))
            for key, width in zip(keys, encoder_widths(kind))
        }
        target = folder / "sub" if name == "loomstyle2" else folder
        _write_embedding(target / name, rows)
    return folder


def _write_embedding(path: Path, rows: dict[str, torch.Tensor]) -> None:
    """A1111's pickle, diffusers' pickle or our own file. Pickles in torch's old format: A1111 refuses the newest."""
    data: dict[str, object] = dict(rows)
    if path.name in ("loomstyle", "loomstyle2"):
        if "emb" in rows and path.name == "loomstyle":
            data = {"string_to_token": {"*": 265}, "string_to_param": {"*": rows["emb"]}, "name": "x", "step": 3}
        suffix = ".pt" if path.name == "loomstyle" else ".bin"
        torch.save(data, path.with_name(path.name + suffix), _use_new_zipfile_serialization=False)
    else:
        named = {"emb_params": rows["emb"]} if "emb" in rows else rows
        write_embedding(path.with_name(path.name + ".safetensors"), named, {"ss_output_name": path.name})


@functools.cache
def models(kind: str) -> Models:
    return Models(architecture(kind), None, load_text_encoders(checkpoint(kind), torch.float32), None)


def options(arithmetic: str, kind: str, case: Case) -> PromptOptions:
    return PromptOptions(
        arithmetic=arithmetic,
        clip_skip=case.clip_skip,
        emphasis=case.emphasis,
        steps=STEPS,
        embeddings=EmbeddingFolders([embeddings(kind)]),
    )


def cases(arithmetic: str, kind: str) -> dict[str, Case]:
    table = A1111 if arithmetic == "a1111" else COMFYUI
    return {name: case for name, case in table.items() if kind in case.kinds}


def courses(arithmetic: str, kind: str, case: Case) -> dict[str, tuple[torch.Tensor, int, float]]:
    """Our tensors as the hosts' answers name them, without kind and case, with last step and weight."""
    how = options(arithmetic, kind, case)
    prompts, negative = (["x"], case.prompt) if case.negative else ([case.prompt], "")
    made = guidance_of(models(kind), how, prompts, negative, 7.0)
    parts = ((made.negative or (), 1.0),) if case.negative else made.positive[0]
    found: dict[str, tuple[torch.Tensor, int, float]] = {}
    for i, (course, weight) in enumerate(parts):
        for j, (end, row) in enumerate(course):
            found[f"{i}/{j}/context"] = (row.context, end, weight)
            if row.pooled is not None:
                found[f"{i}/{j}/pooled"] = (row.pooled, end, weight)
    return found


@functools.cache
def direction(width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(width).standard_normal(width)).float() / width**0.5


def reduced(tensor: torch.Tensor) -> torch.Tensor:
    """What is kept of the hosts' tensors: one number for each token, pooled text [1, p] whole."""
    return tensor if tensor.dim() == 2 else tensor.float() @ direction(tensor.shape[-1])
