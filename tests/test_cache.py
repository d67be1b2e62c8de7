"""Latents and other tensors on disk: found again, rebuilt when damaged, never stale."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lora_core.engine.cache import LatentCache, TensorCache
from lora_core.engine.dataset import Dataset, open_dataset
from lora_core.errors import DatasetError, LoomError, NotFinite
from lora_core.events import Note, Progress
from lora_core.jobs import train
from lora_core.jobs.train import TrainJob


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.2,
    ).eval()


def pictures_in(folder: Path, flip: bool = False, **values) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate([(64, 64), (90, 75), (200, 64)]):
        if not (folder / f"{i}.png").exists():
            pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    sizes = {"width": 64, "height": 64, "min_bucket": 32, "max_bucket": 256, "bucket_step": 32} | values
    return open_dataset(TrainJob(dataset=train.Dataset(folder=str(folder), flip=flip, batch_size=2, **sizes)))


def never():
    raise AssertionError("the VAE was loaded")


def prepared(folder: Path, dataset: Dataset, load, mark: str = "vae") -> tuple[LatentCache, list]:
    cache = LatentCache(folder, mark)
    return cache, list(cache.prepare(dataset, load))


def test_latents_are_the_scaled_posterior_mean(tmp_path, vae):
    dataset = pictures_in(tmp_path / "in", flip=True)
    cache, events = prepared(tmp_path / "cache", dataset, lambda: vae)
    assert events[-1] == Progress(6, 6, 0.0, "picture")
    flips = set()
    for epoch in range(6):
        for batch in dataset.epoch(epoch):
            latents = cache.latents(batch)
            assert latents.shape == (len(batch), 4, batch.size[1] // 8, batch.size[0] // 8)
            assert latents.dtype == torch.float32
            for item, latent in zip(batch.items, latents):
                rgb = dataset.pictures[item.picture].pixels().rgb
                x = torch.tensor(rgb[:, ::-1].copy() if item.flip else rgb).permute(2, 0, 1)[None] / 127.5 - 1
                with torch.no_grad():
                    expected = vae.encode(x).latent_dist.mean[0] * 0.2
                assert torch.allclose(latent, expected, atol=1e-5)
                flips.add(item.flip)
    assert flips == {True, False}


def test_a_second_run_needs_no_vae_even_when_files_move(tmp_path, vae):
    first, _ = prepared(tmp_path / "cache", pictures_in(tmp_path / "in"), lambda: vae)
    (tmp_path / "in").rename(tmp_path / "Ünï 中文")
    dataset = pictures_in(tmp_path / "Ünï 中文")
    cache, events = prepared(tmp_path / "cache", dataset, never)
    assert [type(event) for event in events] == [Note]
    batch = dataset.epoch(0)[0]
    assert torch.equal(cache.latents(batch), first.latents(batch))


@pytest.mark.parametrize("change", ["content", "resolution", "vae", "flip"])
def test_nothing_stale_is_found(tmp_path, vae, change):
    prepared(tmp_path / "cache", pictures_in(tmp_path / "in"), lambda: vae)
    if change == "content":
        Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "in" / "0.png")
    values = {"width": 96, "height": 96} if change == "resolution" else {"flip": True} if change == "flip" else {}
    dataset = pictures_in(tmp_path / "in", **values)
    _, events = prepared(tmp_path / "cache", dataset, lambda: vae, "other" if change == "vae" else "vae")
    assert len([event for event in events if isinstance(event, Progress)]) == (1 if change == "content" else 3)


@pytest.mark.parametrize("damage", ["truncate", "flip a bit", "empty", "text", "swap"])
def test_a_damaged_entry_is_made_anew(tmp_path, vae, damage):
    dataset = pictures_in(tmp_path / "in")
    first, _ = prepared(tmp_path / "cache", dataset, lambda: vae)
    batch = next(batch for batch in dataset.epoch(0) if batch.items[0].picture == 0 or len(batch) > 1)
    before = first.latents(batch)
    path = tmp_path / "cache" / f"{first.key(dataset.pictures[0], False)}.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    other = tmp_path / "cache" / f"{first.key(dataset.pictures[1], False)}.safetensors"
    contents = {
        "truncate": bytes(data[:-7]),
        "flip a bit": bytes(data),
        "empty": b"",
        "text": b"not a tensor file at all",
        "swap": other.read_bytes(),
    }
    path.write_bytes(contents[damage])
    cache, events = prepared(tmp_path / "cache", dataset, lambda: vae)
    assert isinstance(events[0], Note) and "0.png" in events[0].text and events[0].level == "warning"
    assert events[-1] == Progress(1, 1, 0.0, "picture")
    assert torch.equal(cache.latents(batch), before)
    assert [type(event) for event in prepared(tmp_path / "cache", dataset, never)[1]] == [Note]


def test_sizes_for_sdxl(tmp_path, vae):
    dataset = pictures_in(tmp_path / "in", flip=True)
    cache, _ = prepared(tmp_path / "cache", dataset, lambda: vae)
    seen = {}
    for epoch in range(6):
        for batch in dataset.epoch(epoch):
            for item, row in zip(batch.items, cache.sizes(batch)):
                seen[item.picture, item.flip] = row
    assert seen[0, False] == seen[0, True] == (64, 64, 0, 0)
    assert dataset.pictures[1].fit.resized == (77, 64)
    assert (seen[1, False], seen[1, True]) == ((90, 75, 6, 0), (90, 75, 7, 0))


def test_latents_that_are_not_finite_are_refused_by_name(tmp_path, vae):
    broken = AutoencoderKL.from_config(vae.config)
    with torch.no_grad():
        broken.quant_conv.bias.fill_(float("nan"))
    with pytest.raises(NotFinite, match=r"0\.png"):
        prepared(tmp_path / "cache", pictures_in(tmp_path / "in"), lambda: broken)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_half_precision_vae_encodes_in_fp32(tmp_path, vae):
    half = AutoencoderKL.from_config(vae.config)
    half.load_state_dict(vae.state_dict())
    dataset = pictures_in(tmp_path / "in")
    cache, _ = prepared(tmp_path / "cache", dataset, lambda: half.to(torch.float16))
    assert half.dtype == torch.float32
    exact, _ = prepared(tmp_path / "exact", dataset, lambda: vae)
    batch = dataset.epoch(0)[0]
    assert torch.allclose(cache.latents(batch), exact.latents(batch), atol=2e-3)


def test_a_picture_that_changes_meanwhile_is_an_error(tmp_path, vae):
    dataset = pictures_in(tmp_path / "in")
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "2.png")
    with pytest.raises(DatasetError, match=r"2\.png.*changed"):
        prepared(tmp_path / "cache", dataset, lambda: vae)


def test_tensor_cache_round_trip_and_bound(tmp_path):
    cache = TensorCache(tmp_path / "a b" / "c", memory=3000)
    values = {f"k{i}": {"x": torch.full((4, 64), float(i)), "n": torch.tensor(i)} for i in range(6)}
    for key, tensors in values.items():
        cache.put(key, tensors)
    assert cache._size <= 3000
    for reader in (cache, TensorCache(tmp_path / "a b" / "c")):
        for key, tensors in values.items():
            found = reader.get(key)
            assert found is not None and all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert cache.get("none") is None
    assert sorted(p.name for p in (tmp_path / "a b" / "c").iterdir()) == [f"k{i}.safetensors" for i in range(6)]


def test_a_cache_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LoomError, match="folder"):
        TensorCache(tmp_path / "file" / "cache").put("k", {"x": torch.zeros(1)})
