"""A1111's picture parameters: what we write reads back as the same job; what others wrote becomes a job."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core.errors import FileError
from lora_core.infotext import normal_prompt, read_infotext
from lora_core.infotext_fields import Drawn, parameters
from lora_core.jobs import generate as names
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob, LoraUse
from lora_core.lora_tags import split_lora_tags
from lora_core.prompt_a1111 import without_comments
from lora_core.recipe_a1111 import recipe_a1111
from lora_core.settings import describe, replace_by_name

SEEDS = st.integers(0, 2**64 - 1)
NOT_IN_A_PICTURE = {"output_dir", "name", "lora_dirs", "embedding_dirs", "batch_count", "batch_size", "picture_format"}
NOT_IN_A_PICTURE |= {
    "save_text",
    "preview_every_steps",
    "low_memory",
    "device",
    "dtype",
    "image",
    "mask",
    "base",
    "vae",
    "seed",
}
PROMPTS = st.text(st.characters(codec="utf-8", exclude_characters="\0<>"), max_size=60)


def prompts() -> st.SearchStrategy[str]:
    """Prompts in the form that A1111 keeps: lines without spaces at their ends."""
    return PROMPTS.map(normal_prompt).filter(lambda text: read_infotext(text) is None and "Negative" not in text)


def value_of(setting) -> st.SearchStrategy:
    declaration = setting.declaration
    if declaration.choices:
        return st.sampled_from(declaration.choices)
    low, high = declaration.min or 0, declaration.max or 100
    if setting.type is bool:
        return st.booleans()
    if setting.type is int:
        return st.integers(int(low), int(high))
    return st.floats(low, high, allow_nan=False)


@st.composite
def jobs(draw, cls):
    chosen = [
        s for s in describe(cls) if s.name not in NOT_IN_A_PICTURE and s.name not in ("prompt", "negative_prompt")
    ]
    values = {s.name: draw(value_of(s)) for s in chosen if draw(st.booleans())}
    job = replace_by_name(cls(), {**values, "prompt": draw(prompts()), "negative_prompt": draw(prompts())})
    job = replace(job, base="name of a model.v2", vae=draw(st.sampled_from(["", "a b.safetensors"])))
    return kept(job)


def kept(job):
    """Without the values and comments that a picture does not show because they changed nothing."""
    if job.arithmetic == "a1111":
        prompts = {name: without_comments(getattr(job, name)) for name in ("prompt", "negative_prompt")}
        job = replace(job, **{name: normal_prompt(text) for name, text in prompts.items()})
    if not job.randomness.subseed_strength:
        job = replace(job, randomness=replace(job.randomness, subseed=0))
    hires = job.hires
    if type(job) is not GenerateJob or (hires.hires_scale <= 1 and not (hires.hires_width or hires.hires_height)):
        job = replace(job, hires=type(hires)())
    elif hires.hires_width or hires.hires_height:
        job = replace(job, hires=replace(hires, hires_scale=1.0))
    if isinstance(job, InpaintJob) and not job.soft.soft_inpainting:
        job = replace(job, soft=type(job.soft)())
    return job


@pytest.mark.parametrize("cls", [GenerateJob, Img2ImgJob, InpaintJob])
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_is_written_reads_back_as_the_same_job(cls, data) -> None:
    job = data.draw(jobs(cls))
    drawn = Drawn(data.draw(SEEDS), job.randomness.subseed, model_hash="0123456789abcdef")
    found = recipe_a1111(parameters(job, drawn))
    assert type(found.job) is cls
    assert found.job == replace(job, seed=drawn.seed)
    assert found.wanted.base == ("name of a model.v2", "0123456789")
    missing = {GenerateJob: 0, Img2ImgJob: 1, InpaintJob: 2}[cls]
    assert len(found.unmapped) == missing and not found.assumed


def test_loras_by_file_come_back_as_tags() -> None:
    uses = (LoraUse("/x/one.safetensors", 0.8), LoraUse("two.safetensors", 1.0, 0.25, "IN*=0.5"))
    job = replace(GenerateJob(base="b"), prompt="cat", loras=uses)
    text = parameters(job, Drawn(1, lora_hashes=(("one", "a" * 64), ("two", "b" * 64))))
    found = recipe_a1111(text)
    assert found.job.prompt == "cat<lora:one:0.8><lora:two:0.25:1:lbw=IN*=0.5>"
    assert found.wanted.loras == (("one", "a" * 12), ("two", "b" * 12))


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("a cat # my favourite", "a cat"),
        ("a cat\n# note\na dog", "a cat\na dog"),
        ("# note\na (cat:1.2)", "a (cat:1.2)"),
    ],
)
def test_a_comment_does_not_swallow_the_loras(prompt: str, written: str) -> None:
    job = GenerateJob(base="b", prompt=prompt, negative_prompt="bad # hm", loras=(LoraUse("one.safetensors", 0.8),))
    found = recipe_a1111(parameters(job, Drawn(1))).job
    left, tags = split_lora_tags(without_comments(found.prompt))
    assert [(tag.name, tag.strength) for tag in tags] == [("one", 0.8)]
    assert (left.strip(), found.negative_prompt) == (written, "bad")
    theirs = recipe_a1111(parameters(replace(job, arithmetic="comfyui"), Drawn(1))).job
    assert theirs.prompt == f"{prompt}<lora:one:0.8>"  # "#" begins no comment in ComfyUI


OLD = """masterpiece, (best quality:1.2), armin <lora:armin:0.8>
3/4 view, sign that says "Steps: no"
Negative prompt: bad hands,
worst quality: low, a: b, c: d
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 15, Seed: 3147777030, Size: 768x640, Model hash: 31e35c80fc, \
Model: sd_xl_base_1.0, VAE: "odd, name.safetensors", Denoising strength: 0.5, Clip skip: 2, ENSD: 31337, \
Mask blur: 4, Inpaint area: Only masked, Masked area padding: 48, Masked content: latent noise, \
Lora hashes: "armin: 0123456789ab, other: ba9876543210", Version: v1.6.1"""


def test_an_old_inpainting_picture() -> None:
    found = recipe_a1111(OLD, "here")
    job = found.job
    assert isinstance(job, InpaintJob) and found.kind == "inpaint" and found.source == "here"
    assert job.prompt == 'masterpiece, (best quality:1.2), armin <lora:armin:0.8>\n3/4 view, sign that says "Steps: no"'
    assert job.negative_prompt == "bad hands,\nworst quality: low, a: b, c: d"
    assert (job.sampler, job.scheduler, job.steps, job.cfg_scale) == ("dpmpp_2m", "karras", 20, 15.0)
    assert (job.width, job.height, job.seed, job.clip_skip) == (768, 640, 3147777030, 2)
    assert (job.mask_blur, job.inpaint_area, job.only_masked_padding) == (4, "only masked", 48)
    assert (job.masked_content, job.denoising_strength, job.vae) == ("latent noise", 0.5, "odd, name.safetensors")
    assert job.randomness.eta_noise_seed_delta == 31337 and job.randomness.noise_source == "nv"
    assert found.wanted.loras == (("armin", "0123456789ab"), ("other", "ba9876543210"))
    assert any("half precision" in sentence for sentence in found.unmapped)
    assert any("noise source" in sentence for sentence in found.assumed)


def parse(values: str, prompt: str = "cat"):
    return recipe_a1111(f"{prompt}\nSteps: 20, Seed: 1, Size: 512x512, {values}")


@pytest.mark.parametrize(
    ("values", "sampler", "scheduler"),
    [
        ("Sampler: Euler a", "euler_ancestral", "automatic"),
        ("Sampler: DPM++ 2M", "dpmpp_2m", "uniform"),  # before 1.9, a name alone was the plain schedule
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m", "automatic"),
        ("Sampler: DPM++ 2M SDE, Schedule type: SGM Uniform", "dpmpp_2m_sde", "sgm_uniform"),
        ("Sampler: DPM2 a Karras", "dpm2_ancestral", "karras"),
        ("Sampler: DDIM, Schedule type: DDIM", "ddim", "ddim_uniform"),
        ("Sampler: k_lms", "lms", "automatic"),
    ],
)
def test_samplers_and_schedules(values: str, sampler: str, scheduler: str) -> None:
    found = parse(values)
    assert (found.job.sampler, found.job.scheduler, found.unmapped) == (sampler, scheduler, ())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("Sampler: PLMS", "sampler PLMS is not known"),
        ("Sampler: Euler, Schedule type: KL Optimal", "schedule KL Optimal"),
        ("Sampler: Euler, CFG scale: much", 'CFG scale: much" is no number'),
        ("Sampler: Euler, Emphasis: Loud", 'Emphasis: Loud" is not known'),
        ("Sampler: Euler, Refiner: xl_refiner [7440042bbd], Refiner switch at: 0.8", "refiner xl_refiner [7440042bbd]"),
        ("Sampler: Euler, Tiling: True", "Tiling"),
        ("Sampler: Euler, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+", "upscaler R-ESRGAN 4x+"),
        ('Sampler: Euler, ADetailer model: f, ADetailer prompt: "a, b"', "ADetailer model: f; ADetailer prompt: a, b"),
        ("Sampler: Euler, Hires upscale: 2, Hires prompt: dog", "prompt of its own, which is left out: dog"),
        ("Sampler: Euler, Discard penultimate sigma: True", "last step but one"),
        ("Sampler: Euler, Hypernet: h, Hypernet strength: 0.5", "hypernetwork h"),
    ],
)
def test_what_cannot_be_repeated_is_said(values: str, sentence: str) -> None:
    found = parse(values)
    assert len(found.unmapped) == 1 and sentence in found.unmapped[0]
    assert found.job.sampler == "euler"


@pytest.mark.parametrize(
    ("values", "padding"),
    [
        ("Sampler: Euler, Pad conds: True", "empty"),
        ("Sampler: Euler, Pad conds: True, Pad conds v0: True", "last"),
        ("Sampler: DDIM, Version: v1.5.2", "last"),
        ("Sampler: Euler, Version: v1.5.2", "none"),
        ("Sampler: DDIM, Version: v1.6.1", "none"),
        ("Sampler: DDIM, Version: f0.0.17v1.8.0rc", "none"),
        ("Sampler: DDIM, Pad conds: False", "none"),
    ],
)
def test_padded_prompts(values: str, padding: str) -> None:
    recipe = recipe_a1111(f"a cat\nSteps: 20, {values}, Seed: 1, Size: 64x64, RNG: CPU")
    assert recipe.job.pad_prompts == padding
    assert not any("Pad conds" in text for text in recipe.unmapped)


def test_tags_that_will_not_run_are_said() -> None:
    for tag, sentence in (("<hypernet:h:1>", "Hypernetworks"), ("<lora:a:what>", "is no number")):
        found = parse("Sampler: Euler", f"cat {tag}")
        assert len(found.unmapped) == 1 and sentence in found.unmapped[0]


TWICE = "Sampler: Euler a, RNG: CPU, Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: Latent"


@pytest.mark.parametrize(
    ("prompt", "values", "told"),
    [
        ("a [cat:dog:0.5]", f"{TWICE}, Version: v1.5.2", True),  # switched in both passes
        ("a [cat:dog:0.5]", TWICE, True),
        ("a [cat:dog:0.5]", f"{TWICE}, Version: v1.6.0", False),
        ("a [cat:dog:0.5]", "Sampler: Euler a, RNG: CPU, Version: v1.5.2", False),
        ("a [cat:dog:1.5]", "Sampler: Euler a, RNG: CPU, Version: v1.5.2", True),  # step 1, today the end
        ("a [cat|dog] [less]", f"{TWICE}, Hires steps: 7, Version: v1.5.2", False),
        ("a [cat|dog] [less]", f"{TWICE}, Hires steps: 30, Version: v1.5.2", True),  # whose course ended at step 20
        ("a [cat:dog:0.5]", f"{TWICE}, Old prompt editing timelines: True, Version: v1.7.0", True),
    ],
)
def test_prompt_editing_before_1_6_is_said_where_it_switched_elsewhere(prompt: str, values: str, told: bool) -> None:
    found = parse(values, prompt)
    assert sum("counted steps in the old way" in text for text in found.unmapped) == told


def test_hires() -> None:
    job = parse("Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 7, Hires upscaler: Latent (bicubic)").job
    assert type(job) is GenerateJob
    assert job.hires == names.Hires(1.5, 0, 0, "latent (bicubic)", 7, 0.4)
    job = parse("Denoising strength: 0.4, Hires resize: 1024x768, Hires upscaler: Lanczos").job
    assert job.hires == names.Hires(1.0, 1024, 768, "lanczos", 0, 0.4)
    job = parse("Denoising strength: 0.7, First pass size: 256x128").job
    assert (job.width, job.height, job.hires.hires_width, job.hires.hires_height) == (256, 128, 512, 512)


def test_hires_without_an_upscaler_is_lanczos() -> None:
    found = parse("Sampler: Euler, RNG: CPU, Denoising strength: 0.4, Hires upscale: 2, Hires upscaler: None")
    assert found.job.hires.hires_upscaler == "lanczos" and found.unmapped == ()


@pytest.mark.parametrize(
    ("size", "first"),
    [("1024x1024", (512, 512)), ("768x1024", (448, 640)), ("1920x1080", (704, 384)), ("600x1000", (448, 704))],
)
def test_the_first_pass_that_a1111_chose_itself_in_2022(size: str, first: tuple[int, int]) -> None:
    text = f"cat\nSteps: 20, Sampler: Euler a, Seed: 1, Size: {size}, Denoising strength: 0.7, First pass size: 0x0"
    found = recipe_a1111(text)
    job = found.job
    assert (job.width, job.height) == first and f"{job.hires.hires_width}x{job.hires.hires_height}" == size
    assert not any("first pass" in sentence for sentence in found.unmapped)


def test_the_kind_is_told_by_the_keys() -> None:
    assert parse("Sampler: Euler").kind == "generate"
    assert parse("Denoising strength: 0.5").kind == "img2img"
    assert parse("Denoising strength: 0.5, Mask mode: Inpaint not masked").job.mask_invert is True
    soft = parse("Denoising strength: 0.5, Soft inpainting enabled: True, Soft inpainting schedule bias: 2").job
    assert soft.soft.soft_inpainting is True and soft.soft.mask_blend_power == 2.0 and soft.mask_blur == 0


MASKED = "RNG: CPU, Denoising strength: 0.5, Mask blur: 4"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (f"{MASKED}, Version: v1.6.1", True),
        (MASKED, True),
        (f"{MASKED}, Inpaint area: Only masked, Version: v1.7.0", False),
        (f"{MASKED}, Version: v1.8.0", False),
        (f"{MASKED}, Version: f2.0.1v1.10.1", False),
        ("RNG: CPU, Denoising strength: 0.5, Version: v1.6.1", False),
    ],
)
def test_what_old_versions_did_not_write_of_the_mask_is_said(values: str, told: bool) -> None:
    found = parse(values)
    assert any("before 1.8 did not write area, masked content and mask mode" in text for text in found.assumed) == told
    assert any("writes no resize mode" in text for text in found.assumed)
    assert len(found.assumed) == 1 + told


def test_a_resize_mode_is_assumed_only_where_one_matters() -> None:
    assert parse("RNG: CPU, Sampler: Euler, Version: v1.6.1").assumed == ()
    assert parse(f"{MASKED}, Resize mode: Crop and resize, Version: LoRA Loom 0.1.0").assumed == ()


def test_hashes_of_other_programs() -> None:
    civitai = 'Hashes: {"model": "6ce0161689", "lora:a": "0123456789", "embed:bad": "aaaabbbbcc"}, Clip skip: 2'
    found = parse(f"Sampler: Euler, {civitai}")
    assert found.wanted.base == ("", "6ce0161689") and found.job.clip_skip == 2
    assert found.wanted.loras == (("a", "0123456789"),) and found.wanted.embeddings == (("bad", "aaaabbbbcc"),)
    assert parse('Sampler: Euler, TI hashes: "bad: aaaabbbbcccc"').wanted.embeddings == (("bad", "aaaabbbbcccc"),)


def test_lines_behind_the_parameters() -> None:
    found = recipe_a1111("a cat\nSteps: 9, Sampler: Euler, Seed: 4, Size: 64x64\nTemplate: a {cat|dog}")
    assert found.job.prompt == "a cat" and found.job.steps == 9
    assert found.unmapped == ("A line behind the parameters was left out: Template: a {cat|dog}",)


def test_no_parameters() -> None:
    for text in ("", "just a prompt, with: a colon", "\n\n", "Steps: 3"):
        with pytest.raises(FileError, match="no parameters"):
            recipe_a1111(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FileError):
        recipe_a1111(text + "\nSteps: 1, Sampler: Euler, " + text)
