"""kohya's further caption options: separators, wildcards, empty epochs, tag warm-up, weights."""

from collections import Counter

import pytest
import tiny
import torch
from test_dataset import draw, job_of
from test_train import job_for

from lora_core.captions import CaptionRules, fixed_caption, is_fixed, varied_caption
from lora_core.draws import Draws
from lora_core.engine.dataset import open_dataset
from lora_core.engine.models import load_text_encoders
from lora_core.engine.prompt import encode_prompts
from lora_core.engine.tokens import token_ids, tokenize, tokenize_weighted
from lora_core.events import Finished
from lora_core.jobs.train import Captions
from lora_core.run import run


def uses(caption: str, rules: CaptionRules, count: int = 400, warm: float = 1.0) -> Counter[str]:
    return Counter(varied_caption(caption, rules, Draws(1, i), warm) for i in range(count))


def test_what_the_keep_separator_frames_stays_in_place():
    rules = CaptionRules(shuffle=True, keep_separator="|||", tag_dropout=0.3)
    found = uses("1boy, armin ||| a, b, c ||| best, last", rules)
    assert len(found) > 10
    assert all(text.startswith("1boy, armin") and text.endswith("best, last") for text in found)
    assert all("|||" not in text for text in found)
    assert fixed_caption("x ||| y ||| z", rules) == "x, y, z"
    assert uses("x ||| y", CaptionRules(keep_separator="|||")) == {"x, y": 400}


def test_a_caption_without_the_keep_separator_follows_the_number_of_kept_tags():
    found = uses("a, b, c", CaptionRules(shuffle=True, keep_separator="|||", keep_tokens=1))
    assert set(found) == {"a, b, c", "a, c, b"}


def test_joined_tags_are_shuffled_and_dropped_together():
    rules = CaptionRules(shuffle=True, tag_dropout=0.5, secondary_separator=";;;")
    found = uses("a;;;b, c", rules)
    assert set(found) == {"a,b, c", "c, a,b", "a,b", "c", ""}


def test_wildcards():
    rules = CaptionRules(wildcards=True)
    found = uses("{red|blue|green} hat, {{curly}}", rules)
    assert set(found) == {f"{colour} hat, {{curly}}" for colour in ("red", "blue", "green")}
    assert min(found.values()) > 90
    assert set(uses("first line\n\nsecond, line\n", rules)) == {"first line", "second, line"}
    assert fixed_caption("{red|blue} hat\nother", rules) == "red hat"
    assert uses("{red|blue} hat", CaptionRules()) == {"{red|blue} hat": 400}


def test_the_tag_warm_up_gives_the_first_tags_first():
    rules = CaptionRules(keep_tokens=1, warmup_least=1)
    caption = "armin, a, b, c, d, e"
    lengths = {
        warm: {len(text.split(", ")) for text in uses(caption, rules, 5, warm)} for warm in (0, 0.25, 0.5, 0.9, 1)
    }
    assert lengths == {0: {2}, 0.25: {3}, 0.5: {4}, 0.9: {5}, 1: {6}}
    assert uses(caption, rules, 3, 0.25) == {"armin, a, b": 3}


@pytest.mark.parametrize(
    ("caption", "rules", "fixed"),
    [
        ("a, b", CaptionRules(wildcards=True), True),
        ("a {x|y}", CaptionRules(wildcards=True), False),
        ("a {x}", CaptionRules(wildcards=True), True),
        ("a\nb", CaptionRules(wildcards=True), False),
        ("a, b, c", CaptionRules(warmup_least=1), False),
        ("a", CaptionRules(warmup_least=1), True),
        ("a ||| b ||| c", CaptionRules(shuffle=True, keep_separator="|||"), True),
        ("a ||| b, c", CaptionRules(shuffle=True, keep_separator="|||"), False),
    ],
)
def test_is_fixed(caption, rules, fixed):
    assert is_fixed(caption, rules) is fixed
    assert not fixed or len(uses(caption, rules, 50) + uses(caption, rules, 50, 0.2)) == 1


def test_every_nth_epoch_has_empty_captions(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("words")
    found = open_dataset(job_of(tmp_path, Captions(dropout_every_epochs=3, shuffle=False)))
    texts = [found.caption(found.epoch(e)[0].items[0], e) for e in range(6)]
    assert texts == ["words", "words", "", "words", "words", ""] and not found.captions_fixed


def test_lines_stay_apart_for_wildcards_alone(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert open_dataset(job_of(tmp_path)).pictures[0].caption == "one, two"
    (picture,) = open_dataset(job_of(tmp_path, Captions(wildcards=True))).pictures
    assert picture.caption.splitlines() == ["one", "two"]


def test_weighted_tokens():
    ids, weights = tokenize_weighted(["a (red cat:1.5), [dog]"])
    plain = [*token_ids("a"), *token_ids("red cat"), *token_ids(","), *token_ids("dog")]
    assert ids[0, 0, 1 : 1 + len(plain)].tolist() == plain
    assert weights[0, 0, : len(plain) + 2].tolist() == pytest.approx([1, 1, 1.5, 1.5, 1, 1 / 1.1, 1])
    long = "word, " * 60
    assert torch.equal(tokenize_weighted([long], 150, "zero")[0], tokenize([long], 150, "zero"))


def test_weights_multiply_the_context_of_their_tokens():
    base = tiny.checkpoint("sd15")
    encoders, arch = load_text_encoders(base, torch.float32), tiny.architecture("sd15")
    plain = encode_prompts(encoders, arch, ["a cat"]).context
    found = encode_prompts(encoders, arch, ["a (cat:1.5)"], weighted=True).context
    assert torch.equal(found[0, 1], plain[0, 1]) and torch.allclose(found[0, 2], plain[0, 2] * 1.5)
    assert torch.equal(found[0, 3:], plain[0, 3:])


def test_a_training_with_all_of_it(tmp_path):
    for i in range(3):
        draw(tmp_path / "p" / f"{i}.png")
        (tmp_path / "p" / f"{i}.txt").write_text(f"(armin:1.2) ||| {{red|blue}} hat;;;shirt, tag {i}")
        draw(tmp_path / "c" / f"{i}.png", seed=50 + i)
        (tmp_path / "c" / f"{i}.txt").write_text(f"someone {i}")
    values = {
        "keep_separator": "|||", "secondary_separator": ";;;", "wildcards": True, "tag_warmup": 0.5, "weighted": True,
        "class_pictures": str(tmp_path / "c"), "alpha_mask": True, "batch_size": 2,
    }  # fmt: skip
    end = list(run(job_for(tmp_path, tmp_path / "p", **values)))[-1]
    assert isinstance(end, Finished)


def test_captions_of_class_pictures_that_come_later_are_cached_too(tmp_path):
    draw(tmp_path / "p" / "a.png")
    for i in range(4):
        draw(tmp_path / "c" / f"{i}.png", seed=50 + i)
        (tmp_path / "c" / f"{i}.txt").write_text(f"someone {i}")
    job = job_for(
        tmp_path, tmp_path / "p", class_pictures=str(tmp_path / "c"), shuffle=False, train_text_encoder=False, steps=8
    )
    assert isinstance(list(run(job))[-1], Finished)
