"""The look at the pictures before a training: every finding, no false alarm, and the safe remedies."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from test_dataset import job_of
from test_train import drained, job_for

from lora_core.engine.advice import advised
from lora_core.engine.dataset import open_dataset
from lora_core.engine.setup import prepare
from lora_core.events import Note
from lora_core.focus import CELLS, Profile
from lora_core.jobs.train import Captions
from lora_core.picture_traits import Traits, near_copies, traits
from lora_core.pictures import read_pixels

EVEN = Profile(bytes(CELLS), bytes(CELLS))
DEMO = Path(__file__).parents[1] / "lora_core" / "assets" / "demo"


def scene(seed: int, size=(256, 256)) -> Image.Image:
    """Shapes with sharp borders over waves, as different as photographs are."""
    rng = np.random.default_rng(seed)
    height, width = size[1], size[0]
    y, x = np.mgrid[:height, :width] / 64
    pixels = sum(np.sin(rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * y + rng.uniform(0, 6)) for _ in range(5))
    pixels = np.repeat((pixels * 25 + 128)[..., None], 3, 2)
    for _ in range(60):
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top : top + rng.integers(5, 60), left : left + rng.integers(5, 60)] = rng.integers(0, 256, 3)
    return Image.fromarray((pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


def write(folder: Path, pictures: dict[str, Image.Image], captions: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / name)
    for name, text in (captions or {}).items():
        (folder / name).with_suffix(".txt").write_text(text)
    return folder


def findings(folder: Path, captions: Captions | None = None, **dataset) -> dict[str, tuple[str, ...]]:
    job = job_of(folder, captions, **{"width": 256, "height": 256, "max_bucket": 512, **dataset})
    report = open_dataset(job, lambda text: len(text.split())).report
    assert report.warnings()[len(report.warnings()) - len(report.advice) :] == [one.sentence for one in report.advice]
    return {one.kind: one.names for one in report.advice}


def test_a_good_dataset_is_left_in_peace(tmp_path):
    names = [f"{i}.png" for i in range(6)]
    write(tmp_path, {n: scene(i) for i, n in enumerate(names)}, {n: f"armin, tag {n[0]}, other" for n in names[:5]})
    (tmp_path / "5.txt").write_text("armin, something else")
    assert findings(tmp_path, Captions(trigger="armin")) == {}


def test_the_shipped_pictures_raise_no_false_alarm():
    job = job_of(DEMO / "armin_vicerre", Captions(trigger="armin_vicerre"))
    kinds = {one.kind for one in open_dataset(job).report.advice}
    assert kinds <= {"everywhere"}


def test_copies_near_copies_and_what_is_done_about_them(tmp_path):
    one = scene(1)
    brighter = one.point(lambda v: min(255, int(v * 1.05)))
    write(tmp_path, {"a.png": one, "b.png": one, "c.png": brighter, "d.png": scene(2)})
    brighter.save(tmp_path / "e.jpg", quality=85)
    found = findings(tmp_path)
    assert found["copies"] == ("a.png", "b.png")
    assert found["near copies"] == ("a.png", "c.png", "e.jpg")
    job = job_of(tmp_path)
    better = open_dataset(advised(job, open_dataset(job).report.advice))
    assert [p.name for p in better.pictures] == ["a.png", "c.png", "d.png", "e.jpg"]
    assert any("left out: b.png" in note for note in better.report.notes)


def test_blurred_and_enlarged_pictures(tmp_path):
    small = scene(4, (128, 128))
    pictures = {
        "sharp.png": scene(1),
        "blurred.png": scene(2).filter(ImageFilter.GaussianBlur(1.5)),
        "doubled.png": scene(3, (128, 128)).resize((256, 256), Image.Resampling.BICUBIC),
        "eightfold.png": scene(6, (32, 32)).resize((256, 256), Image.Resampling.LANCZOS),
        "fog.png": scene(7).filter(ImageFilter.GaussianBlur(4)),
        "small.png": small,
        "large.png": scene(5, (512, 512)).filter(ImageFilter.GaussianBlur(1)),
        "shaken.png": scene(8, (1024, 1024)).filter(ImageFilter.GaussianBlur(6)),
    }
    found = findings(write(tmp_path, pictures))
    assert found["soft"] == ("blurred.png", "doubled.png", "eightfold.png", "fog.png", "shaken.png")
    assert found["enlarged"] == ("small.png",)


def test_the_detail_of_photographs(tmp_path):
    """On scikit-image's photographs, where installed: sharp ones and JPEGs pass, doubled and blurred ones do not."""
    data = pytest.importorskip("skimage.data")
    for name in ("astronaut", "chelsea", "coffee", "camera", "rocket"):
        try:
            photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        except (OSError, ImportError) as error:
            pytest.skip(f"{name} is not on the disk: {error}")
        photo.save(tmp_path / "p.jpg", quality=75)
        photo.resize((photo.width * 2, photo.height * 2), Image.Resampling.BICUBIC).save(tmp_path / "x2.png")
        photo.filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "b.png")
        assert not traits(read_pixels(tmp_path / "p.jpg")).is_soft(), name
        assert traits(read_pixels(tmp_path / "x2.png")).is_soft(), name
        assert traits(read_pixels(tmp_path / "b.png")).is_soft(), name


def test_captions_without_the_trigger_are_named_where_others_have_it(tmp_path):
    pictures = {f"{n}.png": scene(n) for n in range(3)}
    write(tmp_path, pictures, {"0.png": "armin, a", "1.png": "b", "2.png": ""})
    assert findings(tmp_path, Captions(trigger="armin"))["trigger missing"] == ("1.png",)
    assert "trigger missing" not in findings(tmp_path, Captions(trigger="other"))


def test_what_is_cut_away_and_lonely_sizes(tmp_path):
    pictures = {"wide.png": scene(1, (768, 256)), "a.png": scene(2), "b.png": scene(3)}
    write(tmp_path, pictures)
    assert findings(tmp_path, buckets=False, min_bucket=256)["cropped"] == ("wide.png",)
    found = findings(tmp_path, batch_size=2, min_bucket=64)
    assert "cropped" not in found and found["lonely"] == ("wide.png",)


@pytest.mark.parametrize(
    ("captions", "rules", "kind", "names"),
    [
        ({"0": "a, b", "1": ""}, Captions(), "no caption", ("1.png", "2.png", "3.png", "4.png")),
        (dict.fromkeys("01234", "a boy"), Captions(), "same caption", ()),
        ({}, Captions(), "no words", ()),
        ({"0": "a, armin", "1": "armin, b"}, Captions(trigger="armin"), "trigger late", ("0.png",)),
        ({"0": "a", "1": "b"}, Captions(trigger="armin", keep_tokens=0), "trigger loose", ()),
        ({"0": "word " * 100}, Captions(), "cut off", ("0.png",)),
        ({k: f"armin, white hair, {k}" for k in "01234"}, Captions(trigger="armin"), "everywhere", ()),
    ],
)
def test_captions(tmp_path, captions, rules, kind, names):
    write(tmp_path, {f"{i}.png": scene(i) for i in range(5)})
    for name, text in captions.items():
        (tmp_path / f"{name}.txt").write_text(text)
    found = findings(tmp_path, rules)
    assert kind in found and found[kind] == names


def test_flip_of_what_is_not_symmetric(tmp_path):
    write(tmp_path, {"a.png": scene(1)}, {"a.png": "1boy, eyepatch"})
    assert "flip" in findings(tmp_path, flip=True) and "flip" not in findings(tmp_path)


def test_every_safe_remedy_ends_its_finding(tmp_path):
    texts = {"0.png": "a, armin, eyepatch", "1.png": "b, armin, " + "word, " * 90, "2.png": "c"}
    write(tmp_path, {f"{i}.png": scene(i, (96, 96) if i == 2 else (256, 256)) for i in range(3)}, texts)
    scene(0).save(tmp_path / "copy.png")
    captions = Captions(trigger="armin", keep_tokens=0)
    job = job_of(tmp_path, captions, width=256, height=256, max_bucket=512, flip=True)
    before = open_dataset(job, lambda text: len(text.split())).report.advice
    fixable = {one.kind for one in before if one.change}
    assert {"copies", "enlarged", "trigger late", "trigger loose", "cut off", "flip"} <= fixable
    after = open_dataset(advised(job, before), lambda text: len(text.split())).report.advice
    assert not fixable & {one.kind for one in after}


def test_the_training_follows_the_advice_where_asked(tmp_path):
    write(tmp_path / "p", {"a.png": scene(1), "b.png": scene(1)}, {"a.png": "x, armin", "b.png": "y"})
    job = job_for(tmp_path, tmp_path / "p", apply_advice=True, train_text_encoder=False)
    events = []
    generator = prepare(job)
    try:
        while True:
            events.append(next(generator))
    except StopIteration as end:
        run, _ = end.value
    assert len(run.dataset.pictures) == 1 and run.job.dataset.drop_copies and run.job.captions.trigger_first
    assert any(isinstance(e, Note) and e.text.startswith("As advised: drop_copies = True") for e in events)
    plain, _ = drained(prepare(job_for(tmp_path / "o", tmp_path / "p", train_text_encoder=False)))
    assert len(plain.dataset.pictures) == 2


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12))
def test_groups_of_near_copies(marks):
    groups = near_copies([Traits(mark, "00" * 192, (), EVEN) for mark in marks])
    together = {i for group in groups for i in group}
    for i, one in enumerate(marks):
        near = [j for j, other in enumerate(marks) if j != i and (one ^ other).bit_count() <= 4]
        assert (i in together) == bool(near)
