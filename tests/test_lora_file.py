"""LoRA files: kohya's format to the byte, every spelling read, every fault named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lora_core.errors import FileError, KeyMismatch, NotFinite
from lora_core.families import reference
from lora_core.keys import ModuleKey, lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import inspect_lora, read_lora, write_lora
from lora_core.shapes import Architecture
from lora_core.tensors import read_header

DATA = Path(__file__).parent / "data"
KINDS = {"sd15": "sd1", "sd2": "sd2", "sdxl": "sdxl"}


def module_for(key: ModuleKey, rank: int, seed: int, alpha: float = 2.0) -> LoraModule:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *key.shape[1:], generator=generator)
    up = torch.randn(key.shape[0], rank, *(1 for _ in key.shape[2:]), generator=generator)
    return LoraModule(down, up, alpha)


def lora_for(arch: Architecture, rank: int = 2, conv: bool = True, every: int = 1) -> Lora:
    targets = lora_targets(arch, conv)[::every]
    modules = {k.canonical: module_for(k, rank, i, alpha=1.0 + i % 3) for i, k in enumerate(targets)}
    return Lora(modules, {}, arch.family)


def same(found: Lora, wanted: Lora, tolerance: float = 0.0) -> None:
    assert found.modules.keys() == wanted.modules.keys() and found.family == wanted.family
    for name, module in wanted.modules.items():
        other = found.modules[name]
        assert other.alpha == module.alpha
        for a, b in zip(other.tensors, module.tensors):
            assert a.shape == b.shape and torch.allclose(a.float(), b, rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_round_trip(tmp_path, kind, dtype, tolerance):
    arch = tiny.architecture(kind)
    lora = lora_for(arch, conv=True)
    path = tmp_path / "x.safetensors"
    write_lora(path, lora, arch, dtype, {"ss_v2": "False", "note": "ü"})
    same(read_lora(path, arch), lora, tolerance)
    same(read_lora(path), lora, tolerance)
    assert read_lora(path).metadata["note"] == "ü" and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize(("family", "file"), [("sd1", "kohya_sd15_locon.txt"), ("sdxl", "kohya_sdxl_locon.txt")])
def test_keys_and_shapes_are_those_of_sd_scripts(tmp_path, family, file):
    """The golden lists have rank 16 and 8; this file has rank 1."""
    arch = reference(family)
    lora = Lora(
        {k.canonical: LoraModule(torch.zeros(1, *k.shape[1:]), torch.zeros(k.shape[0], 1, *(1 for _ in k.shape[2:])), 1)
         for k in lora_targets(arch, conv=True)},
        {},
        family,
    )  # fmt: skip
    write_lora(tmp_path / "x.safetensors", lora, arch, torch.float16, {})
    wanted: dict[str, tuple[int, ...]] = {}
    for line in (DATA / file).read_text().splitlines():
        name, down, up = line.split()[:3]
        wanted[f"{name}.alpha"] = ()
        wanted[f"{name}.lora_down.weight"] = (1, *(int(n) for n in down.split("x")[1:]))
        out = [int(n) for n in up.split("x")]
        wanted[f"{name}.lora_up.weight"] = (out[0], 1, *out[2:])
    tensors = load_file(tmp_path / "x.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == wanted
    assert {t.dtype for name, t in tensors.items() if not name.endswith("alpha")} == {torch.float16}


def test_hashes_recomputed_from_the_bytes(tmp_path):
    arch = tiny.architecture("sd15")
    path = tmp_path / "x.safetensors"
    write_lora(path, lora_for(arch, rank=6), arch, torch.float32, {"ss_tag_frequency": '{"ü": 1}', "modelspec.x": "y"})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    assert len(data) > 0x110000
    assert header["__metadata__"]["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
    legacy = header["__metadata__"]["sshs_legacy_hash"]
    header["__metadata__"] = {k: v for k, v in header["__metadata__"].items() if k.startswith("ss_")}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    as_if = len(text).to_bytes(8, "little") + text + data
    assert legacy == hashlib.sha256(as_if[0x100000:0x110000]).hexdigest()[:8] != "e3b0c442"


def test_stale_hashes_are_replaced(tmp_path):
    arch = tiny.architecture("sd15")
    lora = lora_for(arch, every=40)
    write_lora(tmp_path / "a", lora, arch, torch.float16, {"sshs_model_hash": "wrong", "sshs_legacy_hash": "wrong"})
    write_lora(tmp_path / "b", lora, arch, torch.float16, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_delta_is_what_the_factors_do_to_an_input():
    """The change of the weight, applied, equals down then up then scale: linear, convolution, Tucker."""
    torch.manual_seed(0)
    x, pictures = torch.randn(5, 7), torch.randn(2, 7, 9, 9)
    linear = LoraModule(torch.randn(3, 7), torch.randn(4, 3), 1.5)
    assert linear.shape == (4, 7) and linear.scale == 0.5
    assert torch.allclose(F.linear(x, linear.delta()), F.linear(F.linear(x, linear.down), linear.up) * 0.5, atol=1e-5)
    conv = LoraModule(torch.randn(3, 7, 3, 3), torch.randn(4, 3, 1, 1), 6.0)
    through = F.conv2d(F.conv2d(pictures, conv.down, padding=1, stride=2), conv.up) * 2
    assert torch.allclose(F.conv2d(pictures, conv.delta(), padding=1, stride=2), through, atol=1e-3)
    tucker = LoraModule(torch.randn(3, 7, 1, 1), torch.randn(4, 3, 1, 1), 3.0, torch.randn(3, 3, 3, 3))
    through = F.conv2d(F.conv2d(F.conv2d(pictures, tucker.down), tucker.mid, padding=1), tucker.up)
    assert torch.allclose(F.conv2d(pictures, tucker.delta(), padding=1), through, atol=1e-3)
    assert tucker.shape == (4, 7, 3, 3)


ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CANONICAL = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def pair(name: str, down: str, up: str, rank: int = 2) -> dict[str, torch.Tensor]:
    return {f"{name}{down}": torch.ones(rank, 96), f"{name}{up}": torch.ones(96, rank)}


def kohya(name: str = ATTENTION) -> dict[str, torch.Tensor]:
    return pair(name, ".lora_down.weight", ".lora_up.weight")


@pytest.mark.parametrize(
    ("extra", "alpha"),
    [
        ({}, 2.0),
        ({".alpha": torch.tensor(3, dtype=torch.int64)}, 3.0),
        ({".alpha": torch.tensor(0.5, dtype=torch.float16)}, 0.5),
        ({".alpha": torch.tensor([1.0])}, 1.0),
        ({".alpha": torch.tensor(1.0), ".scale": torch.tensor(0.25)}, 0.5),
    ],
)
def test_alpha_missing_integer_and_scale(tmp_path, extra, alpha):
    path = tmp_path / "x.safetensors"
    save_file(kohya() | {ATTENTION + k: v for k, v in extra.items()}, path)
    assert read_lora(path).modules[CANONICAL].alpha == alpha


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [
        (ATTENTION, ".lora_down.weight", ".lora_up.weight"),
        ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", ".lora_down.weight", ".lora_up.weight"),
        (CANONICAL, ".lora_A.weight", ".lora_B.weight"),
        (CANONICAL, ".lora.down.weight", ".lora.up.weight"),
        (CANONICAL.removeprefix("unet."), ".lora_A.default.weight", ".lora_B.default.weight"),
        ("base_model.model." + CANONICAL.removeprefix("unet."), ".lora_A.weight", ".lora_B.weight"),
        (CANONICAL.replace("to_q", "processor.to_q"), "_lora.down.weight", "_lora.up.weight"),
        ("diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q", ".lora_A.weight", ".lora_B.weight"),
    ],
)
def test_spellings_of_other_programs(tmp_path, name, down, up):
    save_file(pair(name, down, up), tmp_path / "x.safetensors", metadata={"ss_base_model_version": "sd_v1"})
    found = read_lora(tmp_path / "x.safetensors", tiny.architecture("sd15"))
    assert list(found.modules) == [CANONICAL] and found.family == "sd1"


def test_sdxl_lora_in_diffusers_names(tmp_path):
    arch = tiny.architecture("sdxl")
    lora = lora_for(arch)
    renamed = [dataclasses.replace(k, kohya="lora_" + k.canonical.replace(".", "_")) for k in lora_targets(arch, True)]
    text = {"text_encoder_2": "te2", "text_encoder": "te1"}
    renamed = [
        dataclasses.replace(k, kohya=k.kohya.replace(f"lora_{k.component}_", f"lora_{text.get(k.component, 'unet')}_"))
        for k in renamed
    ]
    write_lora(tmp_path / "x.safetensors", lora, renamed, torch.float32, {})
    assert any("down_blocks_1_attentions" in name for name in read_header(tmp_path / "x.safetensors").tensors)
    same(read_lora(tmp_path / "x.safetensors"), lora)


def test_one_by_one_factors_in_two_or_four_dimensions(tmp_path):
    arch = tiny.architecture("sd15")
    name = "lora_unet_mid_block_attentions_0_proj_in"
    save_file(kohya(name), tmp_path / "flat.safetensors")
    assert read_lora(tmp_path / "flat.safetensors", arch).modules["unet.mid_block.attentions.0.proj_in"].shape == (
        96,
        96,
        1,
        1,
    )
    save_file({k: v[:, :, None, None].contiguous() for k, v in kohya().items()}, tmp_path / "deep.safetensors")
    assert read_lora(tmp_path / "deep.safetensors", arch).modules[CANONICAL].shape == (96, 96)


BROKEN = {
    "DoRA": (kohya() | {f"{ATTENTION}.dora_scale": torch.ones(96, 1)}, "DoRA"),
    "LoHa": ({f"{ATTENTION}.hada_w1_a": torch.ones(2, 2)}, "LoHa"),
    "full difference": ({f"{ATTENTION}.diff": torch.ones(2, 2)}, "full difference"),
    "LoKr": ({f"{ATTENTION}.lokr_w1": torch.ones(2, 2)}, "LoKr"),
    "base model": ({"model.diffusion_model.out.0.weight": torch.ones(2)}, "base model"),
    "stranger": (kohya() | {"stranger.x.vec": torch.ones(2)}, "stranger.x.vec"),
    "unknown module": (kohya("lora_unet_double_blocks_0_img_attn"), "lora_unet_double_blocks_0_img_attn"),
    "half a module": ({f"{ATTENTION}.lora_down.weight": torch.ones(2, 96)}, "lacks a factor"),
    "alpha alone": ({f"{ATTENTION}.alpha": torch.tensor(1.0)}, "lacks a factor"),
    "ranks differ": (
        {f"{ATTENTION}.lora_down.weight": torch.ones(2, 96), f"{ATTENTION}.lora_up.weight": torch.ones(96, 3)},
        "do not fit together",
    ),
    "the same module twice": (kohya() | pair(CANONICAL, ".lora_A.weight", ".lora_B.weight"), "twice"),
    "other width": (
        {f"{ATTENTION}.lora_down.weight": torch.ones(2, 64), f"{ATTENTION}.lora_up.weight": torch.ones(64, 2)},
        "made for another model",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_faults_are_named(tmp_path, fault):
    tensors, words = BROKEN[fault]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(KeyMismatch) as caught:
        read_lora(tmp_path / "x.safetensors", tiny.architecture("sd15"))
    assert words in str(caught.value)


def test_not_finite_is_neither_read_nor_written(tmp_path):
    bad = kohya()
    bad[f"{ATTENTION}.lora_up.weight"][3, 1] = float("nan")
    save_file(bad, tmp_path / "bad.safetensors")
    with pytest.raises(NotFinite, match=ATTENTION):
        read_lora(tmp_path / "bad.safetensors")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    arch = tiny.architecture("sd15")
    for value, dtype, words in (
        (float("nan"), torch.float32, "NaN"),
        (float("inf"), torch.bfloat16, "infinity"),
        (1e5, torch.float16, "too large for fp16"),
    ):
        lora = lora_for(arch, every=50)
        next(iter(lora.modules.values())).up[0, 0] = value
        with pytest.raises(NotFinite, match=words):
            write_lora(path, lora, arch, dtype, {})
        assert path.read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["bad.safetensors", "x.safetensors"]


def test_a_lora_that_does_not_fit_is_not_written(tmp_path):
    arch = tiny.architecture("sd15")
    lora = lora_for(tiny.architecture("sdxl"), every=60)
    with pytest.raises(KeyMismatch, match="no module"):
        write_lora(tmp_path / "x", lora, arch, torch.float16, {})
    with pytest.raises(KeyMismatch, match="nothing to write"):
        write_lora(tmp_path / "x", Lora({}, {}, "sd1"), arch, torch.float16, {})
    with pytest.raises(FileError, match="does not exist"):
        write_lora(tmp_path / "none" / "x", lora_for(arch, every=60), arch, torch.float16, {})
    assert os.listdir(tmp_path) == []


def test_the_file_is_checked_before_it_gets_its_name(tmp_path, monkeypatch):
    """A disk that flips a bit: the old file stays."""
    arch = tiny.architecture("sd15")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    fsync = os.fsync

    def flip(handle: int) -> None:
        name = next(p for p in tmp_path.iterdir() if p.name.endswith(".tmp"))
        with open(name, "r+b") as file:
            file.seek(-9, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-9, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flip)
    with pytest.raises(KeyMismatch, match="other bytes"):
        write_lora(path, lora_for(arch, every=40), arch, torch.float16, {})
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("base", KINDS)
def test_a_lora_for_another_family_is_refused(tmp_path, made, base):
    if made == base:
        return
    path = tmp_path / "x.safetensors"
    arch = tiny.architecture(made)
    write_lora(path, lora_for(arch, every=3), arch, torch.float16, {})
    with pytest.raises(KeyMismatch, match=r"Stable Diffusion|SDXL|another model"):
        read_lora(path, tiny.architecture(base))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ("unet", "text"))
def test_family_without_metadata(tmp_path, kind, part):
    """Told from names and shapes (SD2's text encoder has more layers than SD1's)."""
    arch = tiny.architecture(kind)
    targets = lora_targets(arch, unet=part == "unet", text_encoders=part == "text")
    lora = Lora({k.canonical: module_for(k, 1, 0) for k in targets}, {}, arch.family)
    write_lora(tmp_path / "x.safetensors", lora, arch, torch.float16, {})
    assert read_lora(tmp_path / "x.safetensors").family == arch.family


def test_inspect_reads_the_header(tmp_path):
    arch = tiny.architecture("sdxl")
    targets = lora_targets(arch, conv=True)
    modules = {k.canonical: module_for(k, 4 if k.is_conv3x3 else 8, 0) for k in targets}
    path = tmp_path / "x.safetensors"
    write_lora(path, Lora(modules, {}, "sdxl"), arch, torch.bfloat16, {"ss_output_name": "x"})
    info = inspect_lora(path)
    assert info.family == "sdxl" and info.modules == {"text_encoder": 72, "text_encoder_2": 192, "unet": 788}
    convs = sum(k.is_conv3x3 for k in targets)
    assert info.ranks == {4: convs, 8: 1052 - convs} and info.size == path.stat().st_size
    assert info.dtypes == {"BF16": 2104, "F32": 1052} and info.metadata["ss_output_name"] == "x"
