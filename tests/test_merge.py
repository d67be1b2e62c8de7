"""Merging LoRAs: the result changes every weight by the weighted sum, however the files were made."""

from __future__ import annotations

import os

import peft.utils.merge_utils as peft_methods
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core import merge_methods
from lora_core.block_weights import block_names, block_of, parse_blocks, weigher
from lora_core.errors import ConfigError, FileError, Interrupted, KeyMismatch
from lora_core.events import Finished
from lora_core.factors import Share, concatenated, difference, norm, plain, truncated
from lora_core.families import reference
from lora_core.jobs import LoraUse
from lora_core.jobs.tools import MergeJob
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import read_lora, write_lora
from lora_core.run import run
from lora_core.svd import RankRule
from lora_core.tensors import data_hash

SHAPES = ((6, 9), (9, 6), (5, 7, 1, 1), (4, 5, 3, 3))


def module(shape, rank, alpha, seed, dtype=torch.float32, tucker=False):
    g = torch.Generator().manual_seed(seed)
    ones = (1,) * (len(shape) - 2)
    up = torch.randn(shape[0], rank, *ones, generator=g).to(dtype)
    if tucker:
        mid = torch.randn(rank, rank, *shape[2:], generator=g)
        return LoraModule(torch.randn(rank, shape[1], 1, 1, generator=g), up, alpha, mid)
    return LoraModule(torch.randn(rank, *shape[1:], generator=g).to(dtype), up, alpha)


weights = st.floats(-2, 2).map(lambda x: round(x, 3))
alphas = st.sampled_from([0.25, 1.0, 2.0, 7.0, 32.0])
shares = st.lists(
    st.tuples(weights, st.integers(1, 5), alphas, st.integers(0, 99), st.booleans()), min_size=1, max_size=4
)


def made(shape, parts):
    tucker = len(shape) == 4 and shape[2] > 1
    return [Share(w, module(shape, rank, alpha, seed, tucker=tucker and t)) for w, rank, alpha, seed, t in parts]


def wanted_sum(parts):
    return sum((p.weight * p.module.delta() for p in parts), torch.zeros(parts[0].module.shape))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SHAPES), shares)
def test_the_merge_is_the_weighted_sum_in_any_order(shape, parts):
    parts = made(shape, parts)
    wanted, scale = wanted_sum(parts), sum(abs(p.weight) * p.module.delta().norm() for p in parts) + 1e-6
    for order in (parts, parts[::-1]):
        found = concatenated(order)
        assert found.shape == shape and found.rank == sum(p.module.up.shape[1] for p in parts)
        assert (found.delta() - wanted).norm() <= 1e-5 * scale
        assert abs(norm(found) - wanted.norm()) <= 1e-5 * scale


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SHAPES), shares, st.integers(1, 12))
def test_the_truncated_merge_is_the_best_of_its_rank(shape, parts, rank):
    """Eckart and Young: against the full SVD of the summed change, which this never makes."""
    whole = concatenated(made(shape, parts))
    found, error = truncated(whole, RankRule("fixed", 0, rank))
    matrix = whole.delta().flatten(1).double()
    s = torch.linalg.svdvals(matrix)
    best = float(s[rank:].square().sum().sqrt() / matrix.norm().clamp(min=1e-12))
    floor = 1e-5 * sum(m.norm() for m in (whole.up.flatten(1) @ whole.down.flatten(1),)) * abs(whole.scale)
    lost = float((found.delta().flatten(1).double() - matrix).norm())
    assert lost <= best * float(matrix.norm()) * 1.001 + float(floor) + 1e-5
    assert found.rank <= max(rank, 1) and found.shape == shape
    if float(matrix.norm()) > 1e-2:
        assert error == pytest.approx(best, abs=1e-3)


def test_one_lora_of_strength_one_keeps_its_bits():
    for m in (module((6, 9), 3, 2.0, 0, torch.bfloat16), module((4, 5, 3, 3), 2, 1.0, 1, tucker=True)):
        assert concatenated([Share(1.0, m)]) is m
    a, b = module((6, 9), 3, 3.0, 0), module((6, 9), 2, 2.0, 1)
    both = concatenated([Share(1.0, a), Share(0.5, b)])
    assert torch.equal(both.down, torch.cat([a.down, b.down])) and torch.equal(both.up[:, :3], a.up)


def test_tucker_modules_are_unfolded_without_loss():
    m = module((4, 5, 3, 3), 3, 2.0, 0, tucker=True)
    assert torch.allclose(plain(m).delta(), m.delta(), atol=1e-5)
    assert difference(plain(m), m) < 1e-6


def test_difference_is_the_distance_of_the_changes():
    a, b = module((6, 9), 3, 2.0, 0), module((6, 9), 4, 1.0, 1)
    wanted = float((a.delta() - b.delta()).norm() / b.delta().norm())
    assert difference(a, b) == pytest.approx(wanted, rel=1e-5)
    assert difference(a, a) < 1e-6


def test_other_shapes_are_refused():
    with pytest.raises(KeyMismatch, match=r"\[6, 9\] and \[9, 6\]"):
        concatenated([Share(1.0, module((6, 9), 2, 1, 0)), Share(1.0, module((9, 6), 2, 1, 0))])


CHANGES = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(3))
WEIGHTS = torch.tensor([1.0, -0.5, 0.8])


@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("sign", ["total", "frequency"])
def test_published_methods_agree_with_peft(density, sign):
    """PEFT forgets DARE's division by the density, which the paper asks for: it is put in here."""
    parts = list(CHANGES)
    found = merge_methods.ties(CHANGES, WEIGHTS, density, sign)
    assert torch.allclose(found, peft_methods.ties(parts, WEIGHTS, density, sign), atol=1e-6)
    found = merge_methods.magnitude_prune(CHANGES, WEIGHTS, density)
    assert torch.allclose(found, peft_methods.magnitude_prune(parts, WEIGHTS, density), atol=1e-6)
    for ours, theirs in (
        (merge_methods.dare_linear, peft_methods.dare_linear),
        (merge_methods.dare_ties, peft_methods.dare_ties),
    ):
        extra = (sign,) if ours is merge_methods.dare_ties else ()
        torch.manual_seed(5)
        wanted = theirs(parts, WEIGHTS, density, *extra)
        found = ours(CHANGES, WEIGHTS, density, *extra, generator=torch.Generator().manual_seed(5))
        assert torch.allclose(found * density, wanted, atol=1e-6)


def test_density_one_is_the_plain_sum_and_dare_keeps_the_mean():
    plain_sum = (CHANGES * WEIGHTS[:, None, None]).sum(0)
    assert torch.allclose(merge_methods.magnitude_prune(CHANGES, WEIGHTS, 1.0), plain_sum, atol=1e-6)
    assert torch.allclose(merge_methods.dare_linear(CHANGES, WEIGHTS, 1.0), plain_sum, atol=1e-6)
    ones = torch.ones(1, 200, 200)
    mean = merge_methods.dare_linear(ones, torch.ones(1), 0.3, torch.Generator().manual_seed(0)).mean()
    assert float(mean) == pytest.approx(1.0, abs=0.02)


def test_sce_selects_calculates_erases():
    changes = torch.tensor([[[3.0, 1.0]], [[-1.0, 1.0]]])
    assert torch.equal(merge_methods.sce(changes[:1], torch.ones(1), 0.5), changes[0])
    found = merge_methods.sce(changes, torch.ones(2), 0.5)
    assert torch.allclose(found, torch.tensor([[3.0, 0.0]]))  # the varying place, the elected sign alone
    found = merge_methods.sce(changes, torch.ones(2), 1.0)
    assert torch.allclose(found, torch.tensor([[3.0, 1.0]]))


# -- files


def lora_file(path, kind="sd15", rank=2, seed=0, conv=True, dtype=torch.float32, every=7, metadata=None):
    arch = tiny.architecture(kind)
    modules = {}
    for i, key in enumerate(lora_targets(arch, conv)[::every]):
        modules[key.canonical] = module(key.shape, rank + i % 2, 1.0 + i % 3, seed * 1000 + i)
    write_lora(path, Lora(modules, {}, arch.family), arch, dtype, metadata or {})
    return str(path)


def finished(job):
    *_, last = run(job)
    assert isinstance(last, Finished)
    return last


def deltas(path, kind):
    return {name: m.delta() for name, m in read_lora(path, tiny.architecture(kind)).modules.items()}


@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
def test_merged_files(tmp_path, kind):
    a, b = lora_file(tmp_path / "a.safetensors", kind, 2, 0), lora_file(tmp_path / "b.safetensors", kind, 3, 1, every=5)
    output = str(tmp_path / "ab.safetensors")
    uses = (LoraUse(a, 0.6), LoraUse(b, 0.4, -0.3))
    last = finished(MergeJob(uses, output, dtype="fp32"))
    one, two, both = deltas(a, kind), deltas(b, kind), deltas(output, kind)
    assert both.keys() == one.keys() | two.keys() and last.report["modules"] == len(both)
    for name, found in both.items():
        other = 0.4 if name.startswith("unet") else -0.3
        zero = torch.zeros_like(found)
        wanted = 0.6 * one.get(name, zero) + other * two.get(name, zero)
        assert (found - wanted).norm() <= 1e-5 * wanted.norm(), name
    metadata = read_lora(output).metadata
    version = {"sd15": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}[kind]
    assert metadata["ss_base_model_version"] == version and metadata["ss_output_name"] == "ab"
    assert metadata["sshs_model_hash"] == data_hash(output) and metadata["modelspec.merged_from"] == "a, b"
    assert metadata["ss_network_dim"] == "Dynamic"


def test_strength_zero_is_absent(tmp_path):
    a, b = lora_file(tmp_path / "a.safetensors"), lora_file(tmp_path / "b.safetensors", seed=1, every=3)
    finished(MergeJob((LoraUse(a), LoraUse(b, 0.0)), str(tmp_path / "ab.safetensors"), dtype="fp32"))
    found, wanted = read_lora(tmp_path / "ab.safetensors"), read_lora(a)
    assert found.modules.keys() == wanted.modules.keys()
    for name, m in wanted.modules.items():
        assert all(torch.equal(x, y) for x, y in zip(m.tensors, found.modules[name].tensors))
    with pytest.raises(KeyMismatch, match="every strength is 0"):
        finished(MergeJob((LoraUse(a, 0.0),), str(tmp_path / "c.safetensors")))


@pytest.mark.parametrize("method", ["svd", "ties", "dare_linear", "dare_ties", "magnitude_prune", "sce"])
def test_methods_write_files_of_the_wanted_rank_and_say_the_error(tmp_path, method):
    a, b = lora_file(tmp_path / "a.safetensors"), lora_file(tmp_path / "b.safetensors", seed=1)
    output = str(tmp_path / "ab.safetensors")
    job = MergeJob((LoraUse(a, 0.7), LoraUse(b, 0.7)), output, method=method, rank=3, conv_rank=2, dtype="fp32")
    report = finished(job).report
    ranks = {m.rank for n, m in read_lora(output).modules.items() if m.shape[2:] in ((), (1, 1))}
    convs = {m.rank for n, m in read_lora(output).modules.items() if m.shape[2:] == (3, 3)}
    assert ranks == {3} and convs == {2} and 0 < report["error"] < 1
    first = data_hash(output)
    finished(MergeJob(**{**vars(job), "overwrite": True}))
    assert data_hash(output) == first
    if method == "svd":
        one, two, both = deltas(a, "sd15"), deltas(b, "sd15"), deltas(output, "sd15")
        lost = sum(float((0.7 * one[n] + 0.7 * two[n] - both[n]).square().sum()) for n in both)
        whole = sum(float((0.7 * one[n] + 0.7 * two[n]).square().sum()) for n in both)
        assert report["error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-3)


def test_the_error_rule_bounds_every_module(tmp_path):
    a, b = lora_file(tmp_path / "a.safetensors", rank=6), lora_file(tmp_path / "b.safetensors", rank=6, seed=1)
    job = MergeJob((LoraUse(a), LoraUse(b)), str(tmp_path / "ab.safetensors"), "svd", rule="error", value=0.3)
    report = finished(job).report
    assert 0 < report["worst_error"] <= 0.3 and report["largest_rank"] < 13


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_block_weights(tmp_path, kind):
    a = lora_file(tmp_path / "a.safetensors", kind, every=3)
    output = str(tmp_path / "b.safetensors")
    finished(MergeJob((LoraUse(a),), output, blocks=("IN*=0.5,TE=0,*attn2*=2,M00=1",), dtype="fp32"))
    one, found = deltas(a, kind), deltas(output, kind)
    for name, delta in one.items():
        label = block_of(name, "sdxl" if kind == "sdxl" else "sd1")
        weight = 1.0 if label == "M00" else 2.0 if "attn2" in name else {"IN": 0.5, "TE": 0.0}.get(label[:2], 1.0)
        assert (name in found) == (weight != 0)
        if weight:
            assert torch.allclose(found[name], weight * delta, rtol=1e-5, atol=1e-6)


def test_block_weight_lists():
    for family, count, short in (("sd1", 25, 17), ("sd2", 25, 17), ("sdxl", 19, 12)):
        names = block_names(family)
        assert len(names) == count
        numbers = [round(i / 100, 2) for i in range(1, count + 2)]
        text = ",".join(map(str, numbers))
        full = parse_blocks(text, family)
        bare = parse_blocks(text.partition(",")[2], family)
        for key in lora_targets(reference(family), conv=True):
            label = block_of(key.canonical, family)
            place = names.index(label) + 1 if label != "TE" else 0
            assert full.of(key.canonical) == numbers[place]
            assert bare.of(key.canonical) == (numbers[place] if place else 1.0)
        used = {block_of(k.canonical, family) for k in lora_targets(reference(family))}
        assert len(used) == short  # the blocks of a LoRA without convolutions, and the text encoder
        listed = parse_blocks(",".join(str(i) for i in range(1, short + 1)), family)
        assert {listed.of(k.canonical) for k in lora_targets(reference(family))} == {float(i + 1) for i in range(short)}
    sgm = parse_blocks(",".join(["1"] * 9 + ["0.5"] * 3 + ["0"] * 9), "sdxl")
    assert sgm.of("unet.mid_block.attentions.0.proj_in") == 0.5
    for wrong in ("1,2,3", "1,x", "IN04=", ",".join(["1"] * 9 + ["0.5", "0.4", "0.5"] + ["0"] * 9)):
        with pytest.raises(ConfigError):
            parse_blocks(wrong, "sdxl")
    assert weigher(LoraUse("x", 0.5, 0.25), "", "sd1")("text_encoder.x") == 0.25


def test_wrong_inputs_are_sentences_and_leave_nothing(tmp_path):
    a, x = lora_file(tmp_path / "a.safetensors"), lora_file(tmp_path / "x.safetensors", "sdxl", every=40)
    output = str(tmp_path / "out.safetensors")
    before = sorted(os.listdir(tmp_path))
    for job, error, words in (
        (MergeJob((), output), ConfigError, "No LoRA"),
        (MergeJob((LoraUse(a),), ""), ConfigError, "No output"),
        (MergeJob((LoraUse(a),), "x.ckpt"), ConfigError, "must end in"),
        (MergeJob((LoraUse(a),), output, method="svd"), ConfigError, "needs a rank"),
        (MergeJob((LoraUse(a),), output, blocks=("", "1")), ConfigError, "2 lines"),
        (MergeJob((LoraUse(a),), output, blocks=("1,2",)), ConfigError, "25 numbers"),
        (MergeJob((LoraUse(a),), a), ConfigError, "exists"),
        (MergeJob((LoraUse(a),), a, overwrite=True), ConfigError, "one of the inputs"),
        (MergeJob((LoraUse(a),), str(tmp_path / "no" / "x.safetensors")), ConfigError, "does not exist"),
        (MergeJob((LoraUse(a), LoraUse(a + "x")), output), FileError, "There is no file"),
        (MergeJob((LoraUse(a), LoraUse(x)), output), KeyMismatch, "different model families"),
    ):
        with pytest.raises(error, match=words):
            list(run(job))
    assert sorted(os.listdir(tmp_path)) == before


def test_stop(tmp_path):
    from lora_core.commands import Commands

    commands = Commands()
    commands.stop = True
    a = lora_file(tmp_path / "a.safetensors")
    with pytest.raises(Interrupted, match="not written"):
        list(run(MergeJob((LoraUse(a),), str(tmp_path / "b.safetensors")), commands))
    assert os.listdir(tmp_path) == ["a.safetensors"]
