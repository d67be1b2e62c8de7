"""Datasets from folders of every layout; epochs and captions as pure functions; one report on all that was found."""

import json
import os
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lora_core.buckets import BucketRules
from lora_core.engine.dataset import open_dataset
from lora_core.engine.epochs import Picture, epoch_batches
from lora_core.errors import ConfigError, DatasetError
from lora_core.jobs.train import Captions, Dataset, Length, Memory, Optimization, Subset, TrainJob


def draw(path: Path, size=(64, 64), seed=None) -> Path:
    """A picture file of noise; the same seed gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def job_of(folder: Path, captions: Captions | None = None, seed: int = 0, **dataset) -> TrainJob:
    values = {"width": 128, "height": 128, "min_bucket": 64, "max_bucket": 256} | dataset
    return TrainJob(
        seed=seed, dataset=Dataset(folder=str(folder), **values), captions=captions or Captions(shuffle=False)
    )


def names(pictures) -> list[str]:
    return [picture.name for picture in pictures]


def test_flat_and_nested_folders(tmp_path):
    for name in ("b.png", "a.png", "deep/down/c.jpg", ".hidden/d.png", "__MACOSX/._a.png", "run.loom/preview.png"):
        draw(tmp_path / name)
    (tmp_path / "a.txt").write_text("a cat")
    found = open_dataset(job_of(tmp_path))
    assert names(found.pictures) == ["a.png", "b.png", "deep/down/c.jpg"]
    assert [p.caption for p in found.pictures] == ["a cat", "", ""]
    assert found.report.captioned == 1 and found.report.uncaptioned == ("b.png", "deep/down/c.jpg")


def test_kohya_folders_give_repeats_and_class_words(tmp_path):
    draw(tmp_path / "3_armin boy" / "a.png")
    draw(tmp_path / "3_armin boy" / "more" / "b.png")
    draw(tmp_path / "0_skipped" / "c.png")
    draw(tmp_path / "20240101_holiday" / "d.png")
    draw(tmp_path / "e.png")
    (tmp_path / "3_armin boy" / "a.txt").write_text("own words")
    found = open_dataset(job_of(tmp_path, repeats=2))
    assert {p.name: (p.subset.repeats, p.caption) for p in found.pictures} == {
        "3_armin boy/a.png": (3, "own words"),
        "3_armin boy/more/b.png": (3, "armin boy"),
        "20240101_holiday/d.png": (2, ""),
        "e.png": (2, ""),
    }
    assert len(found.epoch(0)) == 3 + 3 + 2 + 2
    assert any("0_skipped" in note for note in found.report.notes)


def test_a_kohya_folder_named_directly(tmp_path):
    draw(tmp_path / "5_cat" / "a.png")
    (picture,) = open_dataset(job_of(tmp_path / "5_cat")).pictures
    assert (picture.subset.repeats, picture.caption) == (5, "cat")


def test_kohya_ss_layout_leaves_out_samples_and_regularisation(tmp_path):
    for name in ("img/2_cat/a.png", "model/sample/s.png", "reg/1_cat/r.png", "log/l.png"):
        draw(tmp_path / name)
    assert names(open_dataset(job_of(tmp_path)).pictures) == ["img/2_cat/a.png"]


def test_subsets_have_rules_of_their_own(tmp_path):
    draw(tmp_path / "one" / "a.png")
    draw(tmp_path / "two" / "b.png")
    (tmp_path / "one" / "a.txt").write_text("x, y")
    subsets = (
        Subset(str(tmp_path / "one"), repeats=2, flip=True, caption_prefix="pre,"),
        Subset(str(tmp_path / "two"), class_words="thing", keep_tokens=3),
        Subset(str(tmp_path / "one"), repeats=9),
    )
    job = TrainJob(dataset=Dataset(subsets=subsets), captions=Captions(trigger="t", shuffle=False, keep_tokens=1))
    found = open_dataset(job)
    assert names(found.pictures) == ["one/a.png", "two/b.png"]
    assert [(p.subset.repeats, p.subset.flip, p.subset.keep_tokens) for p in found.pictures] == [
        (2, True, 1),
        (1, False, 3),
    ]
    captions = {found.caption(item, 0) for batch in found.epoch(0) for item in batch.items}
    assert captions == {"pre, t, x, y", "t, thing"}


def test_a_subset_inside_the_folder_counts_once_with_its_own_rules(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "close" / "b.png")
    job = TrainJob(dataset=Dataset(folder=str(tmp_path), subsets=(Subset(str(tmp_path / "close"), repeats=4),)))
    assert sorted((p.path.name, p.subset.repeats) for p in open_dataset(job).pictures) == [("a.png", 1), ("b.png", 4)]


@pytest.mark.parametrize(
    "file, content, caption",
    [
        ("a.txt", "one, two", "one, two"),
        ("a.caption", "one", "one"),
        ("a.png.txt", "one", "one"),
        ("A.TXT", "one", "one"),
        ("a.json", '{"caption": "one", "tags": ["two"]}', "one, two"),
        ("metadata.jsonl", '{"file_name": "sub/a.png", "text": "one"}', None),
        ("../metadata.jsonl", '{"file_name": "sub/a.png", "text": "one"}', "one"),
    ],
)
def test_caption_files(tmp_path, file, content, caption):
    draw(tmp_path / "sub" / "a.png")
    (tmp_path / "sub" / file).write_text(content)
    (picture,) = open_dataset(job_of(tmp_path)).pictures
    assert picture.caption == (caption or "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp932"])
def test_captions_and_folders_in_any_script(tmp_path, encoding):
    folder = tmp_path / "Ünï 中文 (x) & y'z" / "2_アルミン"
    draw(folder / "süß 画像.png")
    (folder / "süß 画像.txt").write_bytes("青髪, 笑顔".encode(encoding))
    (picture,) = open_dataset(job_of(folder.parent)).pictures
    assert (picture.caption, picture.subset.class_words) == ("青髪, 笑顔", "アルミン")


def test_names_in_composed_and_decomposed_unicode_meet(tmp_path):
    draw(tmp_path / "u\u0308ber.png")
    (tmp_path / "\u00fcber.txt").write_text("met")
    assert open_dataset(job_of(tmp_path)).pictures[0].caption == "met"


@pytest.mark.parametrize("extension", [".caption", "caption", "CAPTION"])
def test_an_explicit_extension_with_and_without_a_dot(tmp_path, extension):
    draw(tmp_path / "a.png")
    (tmp_path / "a.caption").write_text("right")
    (tmp_path / "a.txt").write_text("wrong")
    captions = Captions(caption_extension=extension, shuffle=False)
    assert open_dataset(job_of(tmp_path, captions)).pictures[0].caption == "right"


def test_an_explicit_extension_without_any_caption_is_refused(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("there")
    with pytest.raises(DatasetError, match=r'Not one of 1 pictures .*"\.caption".*1 \.txt'):
        open_dataset(job_of(tmp_path, Captions(caption_extension="caption")))


def test_all_faults_are_in_one_report_and_the_rest_is_used(tmp_path):
    good = draw(tmp_path / "good.png", (100, 60))
    (tmp_path / "cut.png").write_bytes(draw(tmp_path / "x" / "y.png").read_bytes()[:4000])
    (tmp_path / "x" / "y.png").unlink()
    (tmp_path / "text.jpg").write_text("I am no picture")
    (tmp_path / "empty.webp").touch()
    (tmp_path / "notes.docx").write_text("?")
    (tmp_path / "good.json").write_text("{broken")
    (tmp_path / "twin.png").write_bytes(good.read_bytes())
    report = open_dataset(job_of(tmp_path)).report
    assert {fault.name for fault in report.faults} == {"cut.png", "text.jpg", "empty.webp"}
    text = "\n".join(report.text())
    for word in ("3 files left out", "cut off", "not a picture", "empty", "notes.docx", "good.json", "twin.png"):
        assert word in text
    assert report.duplicates == (("good.png", "twin.png"),)
    assert json.loads(json.dumps(report.to_json()))["pictures"] == 2


def test_nothing_usable_is_one_error_that_names_every_file(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset(job_of(tmp_path / "missing"))
    with pytest.raises(DatasetError, match="No pictures were found"):
        open_dataset(job_of(tmp_path))
    (tmp_path / "a.png").write_text("x")
    (tmp_path / "b.jpg").write_text("y")
    with pytest.raises(DatasetError, match=r"(?s)None of 2 files.*a\.png.*b\.jpg"):
        open_dataset(job_of(tmp_path))
    with pytest.raises(DatasetError, match="is a file"):
        open_dataset(job_of(tmp_path / "a.png"))
    with pytest.raises(ConfigError, match="multiple of 8"):
        open_dataset(job_of(tmp_path, bucket_step=20))


def test_report_figures(tmp_path):
    for i in range(5):
        draw(tmp_path / "2_cat" / f"{i}.png", (64, 64) if i < 3 else (180, 60))
        (tmp_path / "2_cat" / f"{i}.txt").write_text("word " * (5 + i))
    job = TrainJob(
        dataset=Dataset(folder=str(tmp_path), width=128, height=128, min_bucket=64, max_bucket=256, batch_size=4),
        captions=Captions(trigger="armin", max_tokens=75),
        optimization=Optimization(accumulation=2),
        length=Length(epochs=3),
    )
    report = open_dataset(job, count_tokens=lambda text: 10 * len(text.replace(",", " ,").split())).report
    assert [(b.size, b.count) for b in report.buckets] == [((128, 128), 6), ((192, 64), 4)]
    assert (report.batches_per_epoch, report.steps_per_epoch, report.steps) == (3, 2, 6)
    assert report.longest is not None and (report.longest.name, report.longest.tokens) == ("2_cat/4.png", 110)
    assert len(report.longest.over) == 4
    assert report.previews[0].text.startswith("armin, word") and len(report.previews) == 3
    assert report.previews[2].cut == "word word"
    text = "\n".join(report.text())
    assert "5 of 5 captioned" in text and "3 batches and 2 steps per epoch, 6 steps in all" in text


def test_held_out_pictures_are_never_trained_on(tmp_path):
    for i in range(8):
        draw(tmp_path / "train" / f"{i}.png", seed=i)
    draw(tmp_path / "train" / "held" / "copy.png", seed=3)
    draw(tmp_path / "train" / "held" / "new.png", seed=99)
    (tmp_path / "train" / "held" / "new.txt").write_text("b, c, d")
    captions = Captions(trigger="t", shuffle=True, caption_dropout=0.9)
    found = open_dataset(job_of(tmp_path / "train", captions, held_out=str(tmp_path / "train" / "held"), flip=True))
    assert names(found.pictures) == [f"{i}.png" for i in range(8) if i != 3]
    assert names(found.held_out) == ["copy.png", "new.png"]
    batches = found.held_out_batches()
    items = [item for batch in batches for item in batch.items]
    assert all(batch.held_out for batch in batches) and not any(item.flip for item in items)
    assert [found.caption(item, epoch) for epoch in (0, 7) for item in items] == ["t", "t, b, c, d"] * 2


@pytest.mark.parametrize("share, expected", [(0.0, 0), (0.01, 1), (0.3, 3), (0.9, 9)])
def test_validation_share(tmp_path, share, expected):
    for i in range(10):
        draw(tmp_path / f"{i}.png", seed=i)
    (tmp_path / "twin.png").write_bytes((tmp_path / "0.png").read_bytes())
    found = open_dataset(job_of(tmp_path, validation_split=share))
    contents = {p.content_hash for p in found.held_out}
    assert len(contents) == expected
    assert not contents & {p.content_hash for p in found.pictures}
    assert names(found.held_out) == names(open_dataset(job_of(tmp_path, validation_split=share)).held_out)


def test_a_single_picture_is_not_held_out(tmp_path):
    draw(tmp_path / "a.png")
    assert len(open_dataset(job_of(tmp_path, validation_split=0.5)).pictures) == 1


def test_the_output_folder_inside_the_pictures_is_left_out(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "out" / "grid.png")
    job = TrainJob(
        output_dir=str(tmp_path / "out"),
        memory=Memory(cache_dir=str(tmp_path / "cache")),
        dataset=Dataset(folder=str(tmp_path)),
    )
    assert names(open_dataset(job).pictures) == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights there")
def test_a_ring_of_links_ends(tmp_path):
    draw(tmp_path / "a" / "p.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert names(open_dataset(job_of(tmp_path)).pictures) == ["a/p.png"]


def test_known_contents_are_not_decoded_again(tmp_path, monkeypatch):
    draw(tmp_path / "in" / "a.png", (100, 60))
    known = tmp_path / "cache" / "pictures.json"
    first = open_dataset(job_of(tmp_path / "in"), known=known)
    monkeypatch.setattr("lora_core.engine.picture_index.decode", lambda data: pytest.fail("decoded again"))
    assert open_dataset(job_of(tmp_path / "in"), known=known).pictures == first.pictures
    monkeypatch.undo()
    known.write_text('{"damaged": [1]}')
    assert open_dataset(job_of(tmp_path / "in"), known=known).pictures == first.pictures


def toy_pictures(rows) -> list[Picture]:
    """Pictures without files: (size, repeats, flip)."""
    rules = BucketRules((128, 128), 64, 256)
    return [
        Picture(Path(f"{i}.png"), f"{i}.png", size, "", Subset("x", repeats, flip=flip), str(i), rules.fit(size))
        for i, (size, repeats, flip) in enumerate(rows)
    ]


shapes = st.sampled_from([(64, 64), (200, 100), (100, 200), (300, 60)])
rows_of = st.lists(st.tuples(shapes, st.integers(1, 4), st.booleans()), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(rows_of, st.integers(1, 5), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_each_epoch_has_every_picture_exactly_repeats_times(rows, batch_size, seed, epoch):
    pictures = toy_pictures(rows)
    job = TrainJob(seed=seed, dataset=Dataset(batch_size=batch_size))
    batches = epoch_batches(pictures, job, epoch)
    items = [item for batch in batches for item in batch.items]
    assert Counter(item.picture for item in items) == {i: p.subset.repeats for i, p in enumerate(pictures)}
    assert len({(item.picture, item.repeat) for item in items}) == len(items)
    assert all(pictures[i.picture].fit.bucket == batch.size for batch in batches for i in batch.items)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    buckets = Counter(p.fit.bucket for p in pictures for _ in range(p.subset.repeats))
    assert len(batches) == sum(-(-n // batch_size) for n in buckets.values())
    assert not any(i.flip and not pictures[i.picture].subset.flip for i in items)
    assert batches == epoch_batches(pictures, job, epoch)


def test_order_and_flips_change_with_epoch_and_seed():
    pictures = toy_pictures([((64, 64), 4, True)] * 20)
    runs = {
        tuple((i.picture, i.flip) for b in epoch_batches(pictures, TrainJob(seed=seed), epoch) for i in b.items)
        for seed in (0, 1)
        for epoch in range(5)
    }
    assert len(runs) == 10
    flips = [flip for run in runs for _, flip in run]
    assert abs(sum(flips) / len(flips) - 0.5) < 0.07


def test_epochs_are_golden():
    """The order of a seed must never change between versions: a resumed run goes on in it."""
    pictures = toy_pictures([((64, 64), 1, True)] * 4 + [((200, 100), 1, True)] * 2)
    job = TrainJob(seed=7, dataset=Dataset(batch_size=2))
    order = [[(i.picture, i.flip) for i in batch.items] for batch in epoch_batches(pictures, job, 2)]
    assert order == [[(1, False), (5, True)], [(4, False), (2, True)], [(3, False), (0, True)]]


def test_captions_differ_by_use_and_stay_the_same_for_a_use(tmp_path):
    draw(tmp_path / "9_x" / "a.png")
    (tmp_path / "9_x" / "a.txt").write_text(", ".join("abcdefgh"))
    found = open_dataset(job_of(tmp_path, Captions(trigger="t", keep_tokens=1, shuffle=True)))
    items = [item for batch in found.epoch(0) for item in batch.items]
    drawn = [found.caption(item, epoch) for epoch in (0, 1) for item in items]
    assert len(set(drawn)) == 18 and all(text.startswith("t, ") for text in drawn)
    assert drawn == [found.caption(item, epoch) for epoch in (0, 1) for item in items]
    assert not found.captions_fixed


def test_tag_frequency(tmp_path):
    for name, text in (("a", "Cat, sofa"), ("b", "cat")):
        draw(tmp_path / "2_pets" / f"{name}.png")
        (tmp_path / "2_pets" / f"{name}.txt").write_text(text)
    assert open_dataset(job_of(tmp_path)).tag_frequency() == {"2_pets": {"cat": 2, "sofa": 1}}
