"""Draws are the same everywhere: the numbers below are SHA-256 by definition."""

import hashlib

from lora_core.draws import Draws


def test_stream_is_sha256_in_counter_mode():
    key = hashlib.sha256(b"7\x1fflip\x1f3").digest()
    words = [int.from_bytes(hashlib.sha256(key + i.to_bytes(8, "little")).digest()[:8], "little") for i in range(3)]
    draws = Draws(7, "flip", 3)
    assert [draws.word() for _ in range(3)] == words
    assert Draws(7, "flip", 3).unit() == (words[0] >> 11) / 2**53


def test_keys_do_not_run_together():
    assert Draws(1, 11).word() != Draws(11, 1).word() != Draws(111).word()


def test_shuffle_is_a_permutation_and_golden():
    assert sorted(Draws(5).shuffled(range(100))) == list(range(100))
    assert Draws(0, "order").shuffled("abcdef") == Draws(0, "order").shuffled("abcdef")
    assert all(0 <= Draws(i).below(7) < 7 for i in range(100))
