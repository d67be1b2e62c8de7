"""Masks weigh the places of a picture; class pictures keep the base as it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_dataset import draw, job_of
from test_train import drained, job_for

from lora_core.engine.dataset import open_dataset
from lora_core.engine.dropping import base_alone
from lora_core.engine.epochs import Batch, Item
from lora_core.engine.setup import prepare
from lora_core.engine.step import batch_loss
from lora_core.errors import DatasetError
from lora_core.events import Stage
from lora_core.jobs.train import Captions, Subset


def half_mask(path: Path, size=(64, 64)) -> Path:
    """White on the left half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_masks_are_found_by_path_or_name_and_brought_to_the_latents_cells(tmp_path):
    draw(tmp_path / "pictures" / "a.png", (128, 128))
    draw(tmp_path / "pictures" / "deep" / "b.png", (128, 128))
    draw(tmp_path / "pictures" / "c.png", (128, 128))
    half_mask(tmp_path / "masks" / "a.png", (128, 128))
    half_mask(tmp_path / "masks" / "b.png", (64, 64))
    found = open_dataset(job_of(tmp_path / "pictures", masks=str(tmp_path / "masks")))
    wanted = np.zeros((16, 16), np.float32)
    wanted[:, :8] = 1
    by_name = {p.path.name: p for p in found.pictures}
    for name in ("a.png", "b.png"):
        np.testing.assert_allclose(by_name[name].coverage(False), wanted, atol=0.05)
        np.testing.assert_allclose(by_name[name].coverage(True), wanted[:, ::-1], atol=0.05)
    assert by_name["c.png"].coverage(False) is None
    assert any("Without a mask" in note and "c.png" in note for note in found.report.notes)


def test_a_mask_is_cropped_as_its_picture(tmp_path):
    """A wide picture loses its left and right quarter; so does the mask."""
    draw(tmp_path / "p" / "a.png", (256, 128))
    pixels = np.zeros((128, 256), np.uint8)
    pixels[:, 64:96] = 255
    (tmp_path / "m").mkdir()
    Image.fromarray(pixels).save(tmp_path / "m" / "a.png")
    found = open_dataset(job_of(tmp_path / "p", masks=str(tmp_path / "m"), buckets=False))
    cover = found.pictures[0].coverage(False)
    assert cover.shape == (16, 16) and cover[:, :4].min() == 1 and cover[:, 4:].max() == 0


def test_transparency_as_a_mask(tmp_path):
    rgba = np.full((128, 128, 4), 200, np.uint8)
    rgba[:, :, 3] = 0
    rgba[:64, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    cover = open_dataset(job_of(tmp_path, alpha_mask=True)).pictures[0].coverage(False)
    assert cover[:8].min() == 1 and cover[8:].max() == 0
    assert open_dataset(job_of(tmp_path)).pictures[0].coverage(False) is None


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "holds no picture"),
        (lambda folder: half_mask(folder / "a.png", (200, 64)), "is 200 x 64"),
        (lambda folder: (folder.mkdir(), (folder / "a.png").write_text("no")), "its mask a.png"),
    ],
)
def test_wrong_masks_are_sentences(tmp_path, write, words):
    draw(tmp_path / "p" / "a.png")
    write(tmp_path / "m")
    with pytest.raises(DatasetError, match=words):
        open_dataset(job_of(tmp_path / "p", masks=str(tmp_path / "m")))


def test_the_masked_loss_does_not_see_what_is_hidden(tmp_path):
    """Two trainings differ only in what is black in the mask: the noise of the hidden half has no gradient."""
    draw(tmp_path / "p" / "a.png")
    half_mask(tmp_path / "m" / "a.png")
    run, _ = drained(prepare(job_for(tmp_path, tmp_path / "p", masks=str(tmp_path / "m"), train_text_encoder=False)))
    batch = Batch((64, 64), (Item(0),))
    mask = run.cache.masks(batch)
    assert mask.shape == (1, 1, 8, 8) and mask[..., :4].min() == 1 and mask[..., 4:].max() == 0
    masked = batch_loss(run, batch, 0, 0, 0)
    run.cache._masks.clear()
    whole = batch_loss(replace(run, dataset=replace_masks(run)), batch, 0, 0, 0)
    assert 0 < float(masked.detach()) < float(whole.detach())


def replace_masks(run):
    picture = replace(run.dataset.pictures[0], mask=None)
    dataset = replace(run.dataset, pictures=(picture,))
    run.cache._dataset = dataset
    return dataset


def test_class_pictures_are_seen_as_often_as_the_others_and_take_turns(tmp_path):
    for i in range(3):
        draw(tmp_path / "me" / f"{i}.png")
    for i in range(5):
        draw(tmp_path / "class" / f"c{i}.png")
        (tmp_path / "class" / f"c{i}.txt").write_text("a boy")
    job = job_of(tmp_path / "me", Captions(trigger="armin"), class_pictures=str(tmp_path / "class"), repeats=2)
    found = open_dataset(job)
    seen = []
    for epoch in range(5):
        items = [item for batch in found.epoch(epoch) for item in batch.items]
        others = [item for item in items if found.picture_of(item).is_class]
        assert len(items) == 12 and len(others) == 6
        assert {found.caption(item, epoch) for item in others} == {"a boy"}
        assert all("armin" in found.caption(item, epoch) for item in items if item not in others)
        seen += [found.picture_of(item).name for item in others]
    assert sorted(seen) == sorted([f"class/c{i}.png" for i in range(5)] * 6)
    assert found.report.pictures == 3 and found.report.class_pictures == 5
    assert any("5 class pictures" in line for line in found.report.text())


def test_the_weight_of_class_pictures(tmp_path):
    draw(tmp_path / "me" / "a.png")
    draw(tmp_path / "class" / "b.png")
    job = job_of(tmp_path / "me", class_pictures=str(tmp_path / "class"), prior_loss_weight=0.5, batch_size=2)
    found = open_dataset(job)
    (batch,) = found.epoch(0)
    weights = dict(zip((found.picture_of(i).name for i in batch.items), found.weights(batch)))
    assert weights == {"me/a.png": 1.0, "class/b.png": 0.5}
    assert open_dataset(job_of(tmp_path / "me")).weights(Batch((128, 128), (Item(0),))) is None


def test_a_subset_of_class_pictures_alone_is_refused(tmp_path):
    draw(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="Only class pictures"):
        open_dataset(job_of("", subsets=(Subset(str(tmp_path), class_pictures=True),)))


def test_the_base_as_target_teaches_nothing_from_class_pictures(tmp_path):
    """At the start the branch does nothing, so that the base's own prediction is met exactly; later it is not."""
    draw(tmp_path / "me" / "a.png")
    draw(tmp_path / "class" / "b.png")
    values = {"class_pictures": str(tmp_path / "class"), "class_target": "base", "train_text_encoder": False}
    run, _ = drained(prepare(job_for(tmp_path, tmp_path / "me", min_snr_gamma=0.0, **values)))
    places = {found.is_class: i for i, found in enumerate(run.dataset.pictures)}
    one, other = (Batch((64, 64), (Item(places[kind]),)) for kind in (True, False))
    assert float(batch_loss(run, one, 0, 0, 0).detach()) == 0 < float(batch_loss(run, other, 0, 0, 0).detach())
    for parameter in run.parameters:
        parameter.data.add_(0.05)
    assert float(batch_loss(run, one, 0, 0, 0).detach()) > 0


def test_the_base_alone(tmp_path):
    draw(tmp_path / "a.png")
    run, _ = drained(prepare(job_for(tmp_path / "o", tmp_path, train_text_encoder=False)))
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    context = torch.randn(1, 77, run.architecture.unet.context_dim)

    def predicted():
        with torch.no_grad():
            return run.unet(x, t, encoder_hidden_states=context).sample

    before = predicted()
    for parameter in run.parameters:
        parameter.data.add_(0.1)
    changed = predicted()
    with base_alone([run.unet]):
        assert torch.equal(predicted(), before)
    assert torch.equal(predicted(), changed) and not torch.equal(changed, before)


def test_missing_class_pictures_are_drawn_by_the_base_once(tmp_path):
    draw(tmp_path / "p" / "a.png")
    values = {"class_prompt": "a photo of a dog", "class_count": 3, "preview_steps": 1, "train_text_encoder": False}
    job = job_for(tmp_path / "o", tmp_path / "p", **values)
    place = tmp_path / "o" / "tiny.loom" / "class pictures"
    run, _ = drained(prepare(job))
    assert sorted(p.name for p in place.iterdir()) == [f"class-{n:05}.png" for n in (1, 2, 3)]
    drawn = [p for p in run.dataset.pictures if p.is_class]
    assert [p.size for p in drawn] == [(64, 64)] * 3 and {p.caption for p in drawn} == {"a photo of a dog"}
    assert len({p.content_hash for p in drawn}) == 3
    first = {p.name: p.read_bytes() for p in place.iterdir()}
    (place / "class-00003.png").unlink()
    again = [event for event in events_of(prepare(job)) if isinstance(event, Stage)]
    assert {p.name: p.read_bytes() for p in place.iterdir()} == first
    assert [stage.title for stage in again].count("Drawing class pictures") == 1
    assert "Drawing class pictures" not in [e.title for e in events_of(prepare(job)) if isinstance(e, Stage)]


def test_class_pictures_of_the_user_count(tmp_path):
    draw(tmp_path / "p" / "a.png")
    draw(tmp_path / "c" / "own.png", seed=9)
    own = {"class_pictures": str(tmp_path / "c"), "class_prompt": "a dog", "class_count": 2, "preview_steps": 1}
    run, _ = drained(prepare(job_for(tmp_path / "o", tmp_path / "p", train_text_encoder=False, **own)))
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["own.png"], "a folder of the user is only read"
    assert sum(p.is_class for p in run.dataset.pictures) == 2


def events_of(generator):
    return list(generator)
