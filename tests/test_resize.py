"""Resizing: the best approximation of a rank, told from an SVD of the full matrix that the product never makes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_merge import SHAPES, finished, lora_file, module

from lora_core import cli
from lora_core.factors import Share, balanced, concatenated, difference, shaped, truncated
from lora_core.jobs.tools import ResizeJob
from lora_core.lora_file import read_lora
from lora_core.svd import RankRule, approximate, product_svd, random_svd, relative_error, tails
from lora_core.tensors import data_hash


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SHAPES), st.integers(1, 8), st.sampled_from([0.5, 1.0, 16.0]), st.integers(0, 99))
def test_the_same_rank_is_the_same_bits_and_the_factors_rebuilt_the_same_change(shape, rank, alpha, seed):
    m = module(shape, rank, alpha, seed)
    assert truncated(m, RankRule("fixed", 0, rank)) == (m, 0.0)
    found = product_svd(m.up.flatten(1), m.down.flatten(1))
    again = balanced(found, shape, m.scale, m.scale)
    assert (again.delta() - m.delta()).norm() <= 1e-5 * m.delta().norm()
    assert again.scale == pytest.approx(m.scale)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
def test_product_svd(m, n, r, seed):
    g = torch.Generator().manual_seed(seed)
    up, down = torch.randn(m, r, generator=g), torch.randn(r, n, generator=g)
    found = product_svd(up, down)
    assert torch.allclose((found.u * found.s) @ found.vh, up @ down, atol=1e-4)
    k = min(m, n, r)
    assert torch.allclose(found.s[:k], torch.linalg.svdvals(up @ down)[:k], rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.u.T @ found.u, torch.eye(len(found.s)), atol=1e-5)


S = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("method", "value", "limit", "kept"),
    [
        ("fixed", 0, 3, 3),
        ("fixed", 0, 9, 5),
        ("sv_ratio", 5, 0, 3),
        ("sv_ratio", 1, 0, 1),
        ("sv_ratio", 100, 2, 2),
        ("sv_cumulative", 0.5, 0, 1),
        ("sv_cumulative", 0.8, 0, 3),
        ("sv_cumulative", 1.0, 0, 5),
        ("sv_fro", 0.9, 0, 2),
        ("sv_fro", 0.99, 0, 3),
        ("error", 0.5, 0, 1),
        ("error", 0.2, 0, 3),
        ("error", 0.05, 0, 5),
    ],
)
def test_rank_rules(method, value, limit, kept):
    """By hand: norm 9.233 (squares 64, 16, 4, 1, 0.25), sum 15.5."""
    assert RankRule(method, value, limit).kept(S) == kept
    assert RankRule(method, value, limit).kept(torch.zeros(4)) == (min(limit, 4) if method == "fixed" else 1)


def test_tails_are_the_errors_of_truncation():
    assert float(tails(S)[0]) == pytest.approx(1)
    assert float(tails(S)[2]) == pytest.approx(math.sqrt(5.25 / 85.25))


@settings(deadline=None, max_examples=30)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(1, 12), st.integers(0, 99))
def test_random_svd_is_nearly_the_best(m, n, rank, seed):
    """A slowly decaying spectrum, the hard case."""
    g = torch.Generator().manual_seed(seed)
    u, _ = torch.linalg.qr(torch.randn(m, min(m, n), generator=g))
    v, _ = torch.linalg.qr(torch.randn(n, min(m, n), generator=g))
    s = 1 / torch.arange(1, min(m, n) + 1).float()
    matrix = (u * s) @ v.T
    found = random_svd(matrix, rank, generator=g)
    assert found.u.shape == (m, rank) and found.vh.shape == (rank, n)
    assert relative_error(matrix, found) <= 1.01 * float(tails(s)[rank])
    kept, error = approximate(matrix, RankRule("error", 0.25), generator=g)
    assert error <= 0.2501 and float(tails(s)[len(kept.s) - 1]) > 0.24
    for rule in (RankRule("sv_fro", 0.9), RankRule("sv_ratio", 7.5), RankRule("sv_cumulative", 0.7)):
        assert len(approximate(matrix, rule, generator=g)[0].s) == pytest.approx(rule.kept(s), abs=1)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_resized_files(tmp_path, kind):
    metadata = {"ss_training_comment": "mine", "ss_tag_frequency": "{}", "ss_network_dim": "6", "sshs_model_hash": "x"}
    a = lora_file(tmp_path / "a.safetensors", kind, rank=6, dtype=torch.float16, metadata=metadata)
    output = tmp_path / "b.safetensors"
    report = finished(ResizeJob(a, str(output), rank=4, conv_rank=2)).report
    one, two = read_lora(a), read_lora(output)
    assert one.modules.keys() == two.modules.keys()
    lost = whole = 0.0
    for name, m in two.modules.items():
        conv = m.shape[2:] == (3, 3)
        assert m.rank == (2 if conv else 4) and m.up.dtype == torch.float16
        assert m.scale == pytest.approx(one.modules[name].scale)
        matrix = one.modules[name].delta()
        s = torch.linalg.svdvals(matrix.flatten(1))
        best = float(s[m.rank :].norm() / s.norm())
        assert float((m.delta() - matrix).norm() / matrix.norm()) <= best * 1.001 + 2e-3
        assert report["errors"][name] == pytest.approx(best, rel=1e-3)
        lost, whole = lost + float(s[m.rank :].square().sum()), whole + float(s.square().sum())
    assert report["error"] == pytest.approx(math.sqrt(lost / whole), rel=1e-3)
    assert two.metadata["ss_training_comment"].endswith("; mine") and two.metadata["ss_tag_frequency"] == "{}"
    assert two.metadata["ss_network_dim"] == "4" and two.metadata["sshs_model_hash"] == data_hash(output)


def test_resizing_to_the_rank_it_has_keeps_every_bit(tmp_path):
    a = lora_file(tmp_path / "a.safetensors", rank=3, dtype=torch.bfloat16)
    finished(ResizeJob(a, str(tmp_path / "b.safetensors"), rank=64))
    assert data_hash(a) == data_hash(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("rule", "value"), [("sv_ratio", 2.0), ("sv_fro", 0.9), ("sv_cumulative", 0.8), ("error", 0.4)]
)
def test_dynamic_rules_write_mixed_ranks(tmp_path, rule, value):
    a = lora_file(tmp_path / "a.safetensors", rank=8)
    report = finished(ResizeJob(a, str(tmp_path / "b.safetensors"), rank=7, rule=rule, value=value)).report
    assert 1 <= report["smallest_rank"] < report["largest_rank"] <= 7
    assert read_lora(tmp_path / "b.safetensors").metadata["ss_network_dim"] == "Dynamic"


@pytest.mark.parametrize("shape", [(1280, 1280), (10240, 1280), (320, 768), (640, 320, 3, 3), (320, 4, 3, 3)])
def test_true_shapes(shape):
    """A change built from known singular values; the merge of it with another is told by random vectors."""
    g = torch.Generator().manual_seed(0)
    rows, columns = shape[0], math.prod(shape[1:])
    s = torch.tensor([9.0, 5.0, 3.0, 1.0, 0.5, 0.25])
    u, _ = torch.linalg.qr(torch.randn(rows, 6, generator=g))
    v, _ = torch.linalg.qr(torch.randn(columns, 6, generator=g))
    m = shaped(u * s, v.T, shape, 6.0)
    for rank in (1, 3, 5):
        found, error = truncated(m, RankRule("fixed", 0, rank))
        best = float(s[rank:].norm() / s.norm())
        assert error == pytest.approx(best, rel=1e-4)
        assert difference(found, m) == pytest.approx(best, rel=1e-4)
    other = module(shape, 4, 2.0, 1)
    both = concatenated([Share(0.6, m), Share(-0.4, other)])
    x = torch.randn(columns, 3, generator=g)
    wanted = 0.6 * (m.delta().flatten(1) @ x) - 0.4 * (other.delta().flatten(1) @ x)
    assert (both.delta().flatten(1) @ x - wanted).norm() <= 1e-5 * wanted.norm()
    assert relative_error(m.delta().flatten(1), random_svd(m.delta().flatten(1), 6, generator=g)) < 1e-5


def test_the_command_line(tmp_path, capsys):
    """--lora is one file here, and a list of FILE:STRENGTH where a job takes several."""
    a, output = lora_file(tmp_path / "a.safetensors", every=60), str(tmp_path / "b.safetensors")
    assert cli.main(["resize", "--lora", a, "--rank", "1", "--output", output]) == 0
    assert {m.rank for m in read_lora(output).modules.values()} == {1}
    merged = str(tmp_path / "c.safetensors")
    assert cli.main(["merge", "--lora", f"{a}:0.5", "--lora", a, "--output", merged, "--dtype", "fp32"]) == 0
    one, both = read_lora(a).modules, read_lora(merged).modules
    assert all(torch.allclose(both[n].delta(), 1.5 * m.delta(), rtol=1e-4, atol=1e-5) for n, m in one.items())
    assert cli.main(["resize", "--lora", a, "--output", output]) == 2
    assert "Set a rank" in capsys.readouterr().err
