"""What a GenerateJob's options do: sizes, batches, the second pass, previews, file formats, memory, notes."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import save_file

from lora_core.commands import Commands
from lora_core.engine import warm
from lora_core.engine.generate import batch_of, generate, prepared_models, request_of
from lora_core.engine.hires import resized, second_pass, target
from lora_core.engine.models import Models, load_models
from lora_core.engine.prompt import time_ids
from lora_core.engine.prompt_encoding import EncodedTexts
from lora_core.engine.random_noise import posterior_noise
from lora_core.engine.sampling import SampleRequest, sample
from lora_core.engine.tiles import in_tiles, starts
from lora_core.engine.vae import NAN_NOTE, decode, decode_tensor, encode
from lora_core.errors import ConfigError, NotFinite
from lora_core.events import Event, Finished, Note, Preview, Progress
from lora_core.jobs.generate import GenerateJob, Hires, InpaintJob, Randomness
from lora_core.picture_text import read_picture_text
from lora_core.recipes import recipe_of
from lora_core.run import run

SMALL = {"width": 64, "height": 64, "steps": 3, "sampler": "euler", "dtype": "fp32", "device": "cpu", "prompt": "a cat"}


@pytest.fixture(autouse=True)
def forgotten() -> None:
    warm.drop_caches()


def job(folder: Path, **values: object) -> GenerateJob:
    return GenerateJob(**{"base": str(tiny.checkpoint("sd15")), "output_dir": str(folder), **SMALL, **values})


def drawn(work: GenerateJob) -> list[np.ndarray]:
    finished = list(generate(work))[-1]
    assert isinstance(finished, Finished)
    return [np.asarray(Image.open(path)) for path in finished.outputs]


def seeds(work: GenerateJob) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    batches = [batch_of(work, request_of(work, "a"), index) for index in range(work.batch_count)]
    return [(batch.seeds, batch.subseeds) for batch in batches]


def test_seeds_are_counted_as_each_host_counts_them(tmp_path: Path) -> None:
    work = job(tmp_path, seed=5, batch_size=2, batch_count=2)
    assert seeds(work) == [((5, 6), (0, 1)), ((7, 8), (2, 3))]
    varied = replace(work, randomness=Randomness(subseed=9, subseed_strength=0.5))
    assert seeds(varied) == [((5, 5), (9, 10)), ((5, 5), (11, 12))]
    assert seeds(replace(work, arithmetic="comfyui")) == [((5, 5), (0, 1)), ((6, 6), (2, 3))]
    assert seeds(replace(work, seed=2**64 - 1, batch_count=1))[0][0] == (2**64 - 1, 0)


def test_a_picture_is_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    together = drawn(job(tmp_path, seed=5, batch_size=3, sampler="dpmpp_2m_sde"))
    alone = drawn(job(tmp_path, seed=7, sampler="dpmpp_2m_sde"))[0]
    assert len(together) == 3
    assert np.abs(together[2].astype(int) - alone).max() <= 1
    assert np.abs(together[1].astype(int) - alone).max() > 10


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_format_holds_the_infotext(tmp_path: Path, kind: str) -> None:
    finished = list(generate(job(tmp_path, prompt="ein Käfer", picture_format=kind)))[-1]
    path = Path(finished.outputs[0])
    assert path.suffix == {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}[kind]
    assert Image.open(path).format == kind.upper()
    assert read_picture_text(path).texts["parameters"].startswith("ein Käfer\nSteps: 3, Sampler: Euler")


def test_inpainting_keeps_every_pixel_and_alpha_in_webp_and_says_what_jpeg_loses(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 72, 4), np.uint8)
    mask = np.zeros((64, 72), np.uint8)
    mask[16:40, 20:44] = 255
    for name, values in (("image", pixels), ("mask", mask)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    given = {
        "image": str(tmp_path / "image.png"),
        "mask": str(tmp_path / "mask.png"),
        "mask_blur": 0,
        "keep_size": True,
    }
    found, notes = {}, {}
    for kind in ("png", "webp", "jpeg"):
        plain = {f.name: getattr(job(tmp_path, picture_format=kind), f.name) for f in fields(GenerateJob)}
        events = list(run(InpaintJob(**plain, **given)))
        found[kind] = np.asarray(Image.open(events[-1].outputs[0]))
        notes[kind] = [event.text for event in events if isinstance(event, Note)]
    assert np.array_equal(found["png"], found["webp"]) and found["png"].shape == pixels.shape
    outside = mask == 0
    assert np.array_equal(found["webp"][outside], pixels[outside])
    assert notes["png"] == notes["webp"] and len(notes["jpeg"]) == len(notes["png"]) + 1
    assert found["jpeg"].shape == (64, 72, 3)


def test_numbers_go_on_over_all_formats(tmp_path: Path) -> None:
    for kind in ("png", "webp", "jpeg"):
        list(generate(job(tmp_path, picture_format=kind)))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "picture-00001.png",
        "picture-00002.webp",
        "picture-00003.jpg",
    ]


def test_rough_previews_while_drawing(tmp_path: Path) -> None:
    seen = []
    for event in generate(job(tmp_path, steps=7, preview_every_steps=3)):
        if isinstance(event, Preview) and event.path.endswith(".jpg"):
            with Image.open(event.path) as picture:
                seen.append((event.step, picture.size))
    assert seen == [(3, (32, 32)), (6, (32, 32))]
    assert [p.name for p in tmp_path.iterdir()] == ["picture-00001.png"]


def test_a_sample_that_is_asked_for_goes_through_the_vae(tmp_path: Path) -> None:
    commands, sizes = Commands(), []
    for event in generate(job(tmp_path, steps=4), commands):
        if isinstance(event, Progress) and event.done == 2:
            commands.sample = True
        if isinstance(event, Preview) and event.path.endswith(".jpg"):
            sizes.append(Image.open(event.path).size)
    assert sizes == [(64, 64)]


@pytest.mark.parametrize("upscaler", ["latent", "latent (nearest-exact)", "lanczos", "nearest"])
def test_the_second_pass_is_larger_and_counts_its_steps(tmp_path: Path, upscaler: str) -> None:
    work = job(tmp_path, hires=Hires(1.5, hires_upscaler=upscaler, hires_steps=2))
    events = list(generate(work))
    assert [e.done for e in events if isinstance(e, Progress)][-1] == [
        e.total for e in events if isinstance(e, Progress)
    ][-1]
    finished = events[-1]
    assert isinstance(finished, Finished)
    with Image.open(finished.outputs[0]) as picture:
        assert picture.size == (96, 96)
        assert "Hires upscale: 1.5" in picture.info["parameters"]


@pytest.mark.parametrize("arithmetic", ["a1111", "comfyui"])
def test_the_second_pass_has_steps_of_its_own(tmp_path: Path, arithmetic: str) -> None:
    def steps(again: int) -> int:
        hires = Hires(2.0, hires_steps=again, hires_denoising=0.5)
        events = list(generate(job(tmp_path, arithmetic=arithmetic, steps=2, hires=hires)))
        return sum(isinstance(event, Progress) for event in events)

    assert [steps(again) - 2 for again in (0, 4, 7)] == [2, 4, 7]


def test_parameters_as_a_text_beside_the_picture(tmp_path: Path) -> None:
    for count, wanted in enumerate((False, True), 1):
        list(generate(job(tmp_path, save_text=wanted)))
        text = tmp_path / f"picture-{count:05}.txt"
        assert text.exists() == wanted
    info = read_picture_text(text.with_suffix(".png")).texts["parameters"]
    assert text.read_text("utf-8") == info + "\n"
    with_pixels_alone = Image.open(text.with_suffix(".png"))
    Image.fromarray(np.asarray(with_pixels_alone)).save(text.with_suffix(".png"))
    assert recipe_of(text.with_suffix(".png")).job.prompt == "a cat"


@pytest.fixture(scope="module")
def loaded() -> Models:
    return load_models(tiny.checkpoint("sd15"), torch.float32, "cpu")


@pytest.mark.parametrize("arithmetic", ["a1111", "comfyui"])
def test_low_denoising_keeps_the_first_pass(loaded: Models, arithmetic: str) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    request = SampleRequest(("a",), (1,), width=64, height=64, steps=3, sampler="euler", arithmetic=arithmetic)
    larger, apart = torch.nn.functional.interpolate(latents, scale_factor=2), []
    for denoising in (0.05, 0.9):
        hires = Hires(2.0, hires_upscaler="latent (nearest)", hires_denoising=denoising)
        apart.append(float((list(second_pass(loaded, request, hires, latents, Commands()))[-1].x - larger).norm()))
    assert apart[0] < 0.2 * apart[1]


@pytest.mark.parametrize(
    ("hires", "size", "cut"),
    [
        (Hires(2.0), (128, 192), (0, 0)),
        (Hires(hires_width=128), (128, 192), (0, 0)),
        (Hires(hires_height=192), (128, 192), (0, 0)),
        (Hires(hires_width=128, hires_height=128), (128, 192), (0, 64)),
        (Hires(hires_width=64, hires_height=192), (128, 192), (64, 0)),
    ],
)
def test_target_sizes(hires: Hires, size: tuple[int, int], cut: tuple[int, int]) -> None:
    found = target(64, 96, hires)
    assert (found.width, found.height) == size
    assert (found.cut_width, found.cut_height) == cut


@pytest.mark.parametrize(
    ("hires", "size"),
    [
        (Hires(1.2), (616, 768)),  # round(64 * 1.2) = 77 cells
        (Hires(1.4), (720, 896)),
        (Hires(1.7), (872, 1088)),
        (Hires(1.2, hires_upscaler="lanczos"), (614, 768)),  # of which VAEEncode takes 608 x 768
        (Hires(hires_width=768), (768, 960)),
        (Hires(hires_width=1024, hires_height=768), (1024, 768)),
    ],
)
def test_target_sizes_of_comfyuis_nodes(hires: Hires, size: tuple[int, int]) -> None:
    found = target(512, 640, hires, "comfyui")
    assert (found.width, found.height, found.cut_width, found.cut_height) == (*size, 0, 0)


@pytest.mark.parametrize(("upscaler", "side"), [("latent", 80), ("latent (nearest-exact)", 80), ("lanczos", 72)])
def test_comfyuis_second_pass_has_its_nodes_size(tmp_path: Path, upscaler: str, side: int) -> None:
    hires = Hires(1.2, hires_upscaler=upscaler, hires_denoising=0.5)  # 8 cells are 9.6 -> 10, 64 pixels are 76.8 -> 77
    assert drawn(job(tmp_path, arithmetic="comfyui", hires=hires))[0].shape == (side, side, 3)


@pytest.mark.parametrize(("arithmetic", "told"), [("a1111", (96, 96)), ("comfyui", (96, 64))])
def test_sdxl_is_told_the_size_before_the_cut_as_by_a1111(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arithmetic: str, told: tuple[int, int]
) -> None:
    seen: list[tuple[int, int]] = []

    def spy(height: int, width: int) -> torch.Tensor:
        seen.append((width, height))
        return time_ids(height, width)

    monkeypatch.setattr("lora_core.engine.denoiser.time_ids", spy)
    hires = Hires(hires_width=96, hires_height=64)
    picture = drawn(job(tmp_path, base=str(tiny.checkpoint("sdxl")), hires=hires, steps=1, arithmetic=arithmetic))[0]
    assert picture.shape == (64, 96, 3)
    assert set(seen) == {(64, 64), told}


def test_a_schedule_too_short_for_its_steps_is_refused_in_words(loaded: Models) -> None:
    request = SampleRequest(("a",), (1,), width=64, height=64, steps=50, sampler="euler", arithmetic="a1111")
    request = replace(request, scheduler="ddim_uniform")
    hires = Hires(2.0, hires_denoising=0.02)
    with pytest.raises(ConfigError, match="take another schedule"):
        list(second_pass(loaded, request, hires, torch.zeros(1, 4, 8, 8), Commands()))


def test_enlarging_a_picture_by_an_odd_ratio() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))
    assert resized(picture, 101, 77, "lanczos").size == (101, 77)
    assert set(np.unique(np.asarray(resized(picture, 112, 80, "nearest")))) <= set(np.unique(np.asarray(picture)))
    assert resized(picture, 56, 40, "nearest") is picture


def test_posterior_noise_goes_on_picture_by_picture() -> None:
    noise, g = posterior_noise(3)(torch.Size((2, 4, 5, 7))), torch.Generator().manual_seed(3)
    assert torch.equal(noise, torch.cat([torch.randn((1, 4, 5, 7), generator=g) for _ in range(2)]))


def test_tiles_cover_every_side() -> None:
    assert starts(64, 64, 16) == [0]
    assert starts(65, 64, 16) == [0, 1]
    assert starts(160, 64, 16) == [0, 48, 96]
    x = torch.rand(1, 3, 150, 70)
    assert torch.allclose(in_tiles(x, lambda part: part * 2, 64, 16, 1), x * 2, atol=1e-6)
    halves = in_tiles(x, lambda part: part[:, :1, ::2, ::2], 64, 16, 0.5)
    assert torch.allclose(halves, x[:, :1, ::2, ::2], atol=1e-6)


def test_the_vae_in_tiles_is_near_the_whole(loaded: Models) -> None:
    latents = torch.randn(1, 4, 72, 40, generator=torch.Generator().manual_seed(0))
    whole, tiled = (decode_tensor(loaded, latents, way) for way in (False, True))
    assert whole.shape == tiled.shape == (1, 3, 576, 320)
    assert float((whole - tiled).abs().mean()) < 0.05
    back, parts = (encode(loaded, whole, way) for way in (False, True))
    assert back.shape == parts.shape == latents.shape
    assert float((back - parts).abs().mean()) < 0.1 * float(back.std())


@pytest.mark.parametrize("size", [(300, 204), (870, 130)])
def test_the_vae_in_tiles_takes_sides_that_fill_no_cell(loaded: Models, size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    whole, tiled = (encode(loaded, picture, way) for way in (False, True))
    assert whole.shape == tiled.shape == (1, 4, size[0] // 8, size[1] // 8)
    assert float((whole - tiled).abs().mean()) < 0.1 * float(whole.std())


def test_low_memory_draws_the_same_picture(tmp_path: Path) -> None:
    plain, small = (drawn(job(tmp_path, low_memory=way, batch_size=2)) for way in (False, True))
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(plain, small)) <= 1


def test_one_component_at_a_time_is_on_the_device(loaded: Models) -> None:
    models = load_models(tiny.checkpoint("sdxl"), torch.float32, "cpu")
    models.one_at_a_time = torch.device("meta")
    models.work("text_encoder", "text_encoder_2")
    assert models.device.type == "meta"
    places = {
        n: next(models.component(n).parameters()).device.type for n in ("unet", "vae", "text_encoder", "text_encoder_2")
    }
    assert places == {"unet": "cpu", "vae": "cpu", "text_encoder": "meta", "text_encoder_2": "meta"}
    loaded.work("unet")
    assert loaded.device.type == "cpu"


def test_a_vae_that_gives_nan_is_used_in_fp32_and_said_once() -> None:
    models = load_models(tiny.checkpoint("sd15"), torch.float32, "cpu")
    vae = models.vae.to(torch.bfloat16)
    convert, vae.float = vae.float, lambda: convert()
    healthy, calls = vae.decode, []

    def sick(latents: torch.Tensor):
        found = healthy(latents)
        calls.append(latents.dtype)
        if latents.dtype != torch.float32:
            found.sample.fill_(float("nan"))
        return found

    vae.decode = sick
    latents = torch.randn(2, 4, 8, 8)
    assert len(decode(models, latents)) == 2
    assert calls == [torch.bfloat16, torch.float32, torch.float32] or models.notes == [NAN_NOTE]
    assert models.notes == [NAN_NOTE]
    vae.decode = lambda latents: type("Out", (), {"sample": torch.full((1, 3, 64, 64), float("nan"))})
    with pytest.raises(NotFinite, match="even in fp32"):
        decode(models, latents)


def test_models_notes_become_events(tmp_path: Path) -> None:
    work = job(tmp_path)
    prepared_models(work, ()).notes.append("the VAE sulks")
    events: list[Event] = [*generate(work), *generate(work)]
    assert [e.text for e in events if isinstance(e, Note)] == ["the VAE sulks"]


def test_the_models_stay_for_the_next_job_that_wants_the_same(tmp_path: Path) -> None:
    first = prepared_models(job(tmp_path), ())
    assert prepared_models(job(tmp_path, seed=9, steps=1), ()) is first
    other = prepared_models(job(tmp_path, base=str(tiny.checkpoint("sd15", seed=1))), ())
    assert other is not first
    assert prepared_models(job(tmp_path), ()) is not first


@pytest.mark.parametrize("arithmetic", ["a1111", "comfyui"])
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_prompt_is_encoded_once_for_all_jobs_of_a_model(tmp_path: Path, kind: str, arithmetic: str) -> None:
    def work(**values: object) -> GenerateJob:
        return job(tmp_path, **{"base": str(tiny.checkpoint(kind)), "steps": 1, "arithmetic": arithmetic, **values})

    def read() -> int:
        calls.clear()
        drawn(work())
        return len(calls)

    calls: list[int] = []
    fresh = drawn(work(clip_skip=2, prompt="a (cat:1.3)", negative_prompt="a dog"))
    warm.drop_caches()
    for encoder in prepared_models(work(), ()).text_encoders:
        encoder.register_forward_hook(lambda *_: calls.append(1))
    first = drawn(work())
    assert calls
    assert read() == 0
    assert np.array_equal(drawn(work()), first)
    other = drawn(work(clip_skip=2, prompt="a (cat:1.3)", negative_prompt="a dog"))
    assert np.array_equal(other, fresh)
    assert not np.array_equal(other, first)


def test_an_embedding_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    def work() -> GenerateJob:
        return job(tmp_path, prompt="embedding:style", arithmetic="comfyui", embedding_dirs=(str(tmp_path),))

    def write(seed: int) -> None:
        vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": vectors * 9}, tmp_path / "style.safetensors")

    width = prepared_models(work(), ()).architecture.text_encoders[0].width
    write(1)
    first = drawn(work())
    assert np.array_equal(drawn(work()), first)
    write(2)
    assert not np.array_equal(drawn(work()), first)


def test_only_the_last_texts_are_kept() -> None:
    kept, made = EncodedTexts(most=2), []

    def ask(key: str) -> float:
        return float(kept.get(key, lambda: made.append(key) or (torch.tensor(float(ord(key))), None))[0])

    assert [ask(key) for key in "abacab"] == [97.0, 98.0, 97.0, 99.0, 97.0, 98.0]
    assert made == ["a", "b", "c", "b"]


def test_stop_ends_before_the_next_evaluation(loaded: Models) -> None:
    commands, calls = Commands(), []
    forward = loaded.unet.forward

    def counted(*args: object, **more: object):
        calls.append(1)
        commands.stop = len(calls) == 3  # within the second step of a sampler with two evaluations a step
        return forward(*args, **more)

    loaded.unet.forward = counted
    request = SampleRequest(("a",), (1,), width=64, height=64, steps=5, sampler="heun", cfg=1.0)
    try:
        with pytest.raises(Exception, match="stopped"):
            list(sample(loaded, request, request.prompts, request.seeds, commands))
    finally:
        del loaded.unet.forward
    assert len(calls) == 3


def test_cfg_rescale_lowers_the_contrast(loaded: Models) -> None:
    """Lin et al. 2024: with phi 1 the guided v has the spread of the positive v."""

    def spread(phi: float) -> float:
        request = SampleRequest(("a",), (1,), width=64, height=64, steps=1, cfg=12.0, cfg_rescale=phi, sampler="euler")
        return float(list(sample(loaded, replace(request, negative="b" * 9), ("a",), (1,)))[-1].x.std())

    assert spread(1.0) != spread(0.5) != spread(0.0)


def test_v_prediction_and_zero_terminal_snr_can_be_forced(tmp_path: Path) -> None:
    kinds = [{}, {"prediction": "v"}, {"prediction": "v", "zero_terminal_snr": "on"}]
    assert len({drawn(job(tmp_path, **kind))[0].tobytes() for kind in kinds}) == 3
