"""ComfyUI's graphs, in the API's and the editor's form, as jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core.engine.schedule import all_sigmas, discretization, sampling_sigmas
from lora_core.errors import FileError
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob, LoraUse
from lora_core.recipe_comfyui import Drawing, recipe_comfyui, share_of


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()}}


def sampler(**inputs: Any) -> dict[str, Any]:
    plain = {"seed": 307307988959939, "steps": 20, "cfg": 8, "sampler_name": "ddim", "scheduler": "normal"}
    links = {"model": ("4", 0), "positive": ("6", 0), "negative": ("7", 0), "latent_image": ("5", 0)}
    return node("KSampler", **{**plain, "denoise": 1, **links, **inputs})


def graph(**changed: Any) -> dict[str, Any]:
    """The graph that everyone has, some nodes changed (n3 is node 3)."""
    nodes = {
        "3": sampler(),
        "4": node("CheckpointLoaderSimple", ckpt_name="sdxl/base.safetensors"),
        "5": node("EmptyLatentImage", width=1024, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="masterpiece, armin_vicerre, 1boy", clip=("4", 1)),
        "7": node("CLIPTextEncode", text="bad", clip=("4", 1)),
        "8": node("VAEDecode", samples=("3", 0), vae=("4", 2)),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=("8", 0)),
    }
    return {**nodes, **{key.removeprefix("n"): value for key, value in changed.items()}}


def read(nodes: dict[str, Any], name: str = "ComfyUI_00001_.png"):
    return recipe_comfyui(json.dumps(nodes), "", Drawing(name, (640, 512)))


def test_the_common_graph() -> None:
    found = read(graph())
    job = found.job
    assert type(job) is GenerateJob and found.kind == "generate" and found.unmapped == ()
    assert (job.prompt, job.negative_prompt) == ("masterpiece, armin_vicerre, 1boy", "bad")
    assert (job.sampler, job.scheduler, job.steps, job.cfg_scale) == ("ddim", "normal", 20, 8.0)
    assert (job.width, job.height, job.seed, job.clip_skip) == (1024, 768, 307307988959939, 1)
    assert (job.arithmetic, job.randomness.noise_source, job.base) == ("comfyui", "cpu", "sdxl/base.safetensors")


def test_loras_clip_skip_and_model_settings() -> None:
    nodes = graph(
        n3=sampler(model=("14", 0)),
        n6=node("CLIPTextEncode", text="a", clip=("13", 0)),
        n10=node(
            "LoraLoader",
            lora_name="a.safetensors",
            strength_model=0.8,
            strength_clip=0.5,
            model=("4", 0),
            clip=("4", 1),
        ),
        n11=node("LoraLoaderModelOnly", lora_name="b.safetensors", strength_model=0.3, model=("10", 0)),
        n12=node(
            "LoraLoader",
            lora_name="c.safetensors",
            strength_model=1.0,
            strength_clip=1.0,
            model=("11", 0),
            clip=("10", 1),
        ),
        n13=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=("10", 1)),
        n14=node("RescaleCFG", multiplier=0.7, model=("15", 0)),
        n15=node("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True, model=("12", 0)),
    )
    job = read(nodes).job
    assert job.loras == (
        LoraUse("a.safetensors", 0.8, 0.5),
        LoraUse("b.safetensors", 0.3, 0.0),
        LoraUse("c.safetensors", 1.0, 0.0),  # the prompt's text encoder does not pass through it
    )
    assert (job.clip_skip, job.cfg_rescale, job.prediction, job.zero_terminal_snr) == (2, 0.7, "v", "on")


def test_several_loras_in_one_node() -> None:
    rows = {
        "lora_1": {"on": True, "lora": "x.safetensors", "strength": 0.6},
        "lora_2": {"on": False, "lora": "y", "strength": 1},
    }
    stack = node("Power Lora Loader (rgthree)", **rows, model=("4", 0), clip=("4", 1))
    nodes = graph(n3=sampler(model=("10", 0)), n10=stack, n6=node("CLIPTextEncode", text="a", clip=("10", 1)))
    assert read(nodes).job.loras == (LoraUse("x.safetensors", 0.6),)


def test_custom_samplers() -> None:
    custom = node(
        "SamplerCustomAdvanced",
        noise=("20", 0),
        guider=("21", 0),
        sampler=("22", 0),
        sigmas=("23", 0),
        latent_image=("5", 0),
    )
    parts = {
        "20": node("RandomNoise", noise_seed=5),
        "21": node("CFGGuider", cfg=3.5, model=("4", 0), positive=("6", 0), negative=("7", 0)),
        "22": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "23": node("KarrasScheduler", steps=12, sigma_max=14.6, sigma_min=0.03, rho=7.0),
    }
    job = read({**graph(n3=custom), **parts}).job
    assert (job.seed, job.cfg_scale, job.sampler, job.scheduler, job.steps) == (5, 3.5, "dpmpp_2m", "karras", 12)
    assert (job.prompt, job.negative_prompt) == ("masterpiece, armin_vicerre, 1boy", "bad")
    plain = node(
        "SamplerCustom",
        noise_seed=6,
        cfg=4,
        model=("4", 0),
        positive=("6", 0),
        negative=("7", 0),
        sampler=("22", 0),
        sigmas=("24", 0),
        latent_image=("5", 0),
    )
    basic = node("BasicScheduler", scheduler="simple", steps=9, denoise=1.0, model=("4", 0))
    job = read({**graph(n3=plain, n24=basic), **parts}).job
    assert (job.seed, job.sampler, job.scheduler, job.steps) == (6, "dpmpp_2m", "simple", 9)


def image(n: str = "30") -> dict[str, Any]:
    return {n: node("LoadImage", image="me.png"), "5": node("VAEEncode", pixels=(n, 0), vae=("4", 2))}


def test_img2img_takes_its_size_from_the_picture() -> None:
    found = read({**graph(n3=sampler(denoise=0.6)), **image()})
    assert type(found.job) is Img2ImgJob and found.kind == "img2img"
    assert (found.job.image, found.job.denoising_strength, found.job.width, found.job.height) == (
        "me.png",
        0.6,
        640,
        512,
    )


def test_img2img_of_a_picture_scaled_to_odd_sides() -> None:
    nodes = {**graph(), **image(), "5": node("VAEEncode", pixels=("31", 0), vae=("4", 2))}
    nodes["31"] = node("ImageScale", image=("30", 0), upscale_method="lanczos", width=1000, height=667, crop="disabled")
    found = read(nodes)
    assert (found.job.width, found.job.height) == (1000, 664)
    assert found.unmapped == ("Of 1000 x 667 pixels ComfyUI drew 1000 x 664; here the picture is resized to that.",)


def test_inpainting() -> None:
    masked = {**graph(n3=sampler(denoise=0.5, latent_image=("31", 0))), **image()}
    masked["31"] = node("SetLatentNoiseMask", samples=("5", 0), mask=("30", 1))
    job = read(masked).job
    assert isinstance(job, InpaintJob) and (job.image, job.mask, job.mask_invert) == ("me.png", "", False)
    assert (job.masked_content, job.mask_blur, job.overlay_original, job.keep_size) == ("original", 0, False, False)
    masked["32"] = node("LoadImageMask", image="mask.png", channel="red")
    masked["33"] = node("InvertMask", mask=("32", 0))
    masked["31"] = node("SetLatentNoiseMask", samples=("5", 0), mask=("33", 0))
    masked["9"] = node("SaveImage", filename_prefix="ComfyUI", images=("34", 0))
    masked["34"] = node("ImageCompositeMasked", destination=("30", 0), source=("8", 0), mask=("33", 0))
    found = read(masked)
    assert isinstance(found.job, InpaintJob) and found.unmapped == ()
    assert (found.job.mask, found.job.mask_invert, found.job.overlay_original) == ("mask.png", True, True)
    grey = {**graph(), **image()}
    grey["5"] = node("VAEEncodeForInpaint", pixels=("30", 0), vae=("4", 2), mask=("30", 1), grow_mask_by=4)
    job = read(grey).job
    assert isinstance(job, InpaintJob) and (job.masked_content, job.mask_grow) == ("grey", 4)


def test_two_passes_are_a_hires_fix() -> None:
    second = sampler(steps=10, denoise=0.5, latent_image=("40", 0))
    nodes = graph(n8=node("VAEDecode", samples=("41", 0), vae=("4", 2)), n41=second)
    nodes["40"] = node("LatentUpscaleBy", samples=("3", 0), upscale_method="nearest-exact", scale_by=1.5)
    found = read(nodes)
    hires = found.job.hires
    assert found.unmapped == () and found.job.steps == 20
    assert (hires.hires_scale, hires.hires_steps, hires.hires_denoising) == (1.5, 10, 0.5)
    assert hires.hires_upscaler == "latent (nearest-exact)"
    nodes["41"] = sampler(steps=20, cfg=5, denoise=0.5, latent_image=("42", 0))
    nodes["42"] = node("VAEEncode", pixels=("43", 0), vae=("4", 2))
    nodes["43"] = node(
        "ImageScale", image=("44", 0), upscale_method="lanczos", width=1536, height=1152, crop="disabled"
    )
    nodes["44"] = node("VAEDecode", samples=("3", 0), vae=("4", 2))
    found = read(nodes)
    hires = found.job.hires
    assert (hires.hires_width, hires.hires_height, hires.hires_upscaler, hires.hires_steps) == (
        1536,
        1152,
        "lanczos",
        0,
    )
    assert len(found.unmapped) == 1 and "5.0 as CFG scale" in found.unmapped[0]


def late(steps: int, start: int) -> Img2ImgJob:
    plain = sampler(noise_seed=3, steps=steps, scheduler="karras", start_at_step=start, end_at_step=10000)["inputs"]
    del plain["seed"]
    job = read({**graph(n3={"class_type": "KSamplerAdvanced", "inputs": plain}), **image()}).job
    assert isinstance(job, Img2ImgJob)
    return job


def test_the_advanced_sampler_starting_late_denoises_partly() -> None:
    job = late(20, 8)
    assert (job.steps, job.denoising_strength, job.seed) == (12, 0.6, 3)


@pytest.mark.parametrize(("steps", "start"), [(20, 8), (14, 5), (25, 8), (28, 10), (94, 91)])
def test_the_advanced_sampler_starts_at_its_own_sigma(steps: int, start: int) -> None:
    job, d = late(steps, start), discretization(False, "comfyui")
    ours = sampling_sigmas(d, "karras", job.steps, job.denoising_strength)
    assert torch.equal(ours, all_sigmas(d, "karras", steps)[start:])


def test_a_late_start_is_exact_for_any_number_of_steps() -> None:
    pairs = [(steps, start) for steps in range(2, 201) for start in range(1, steps)]
    assert [pair for pair in pairs if int((pair[0] - pair[1]) / share_of(*pair)) != pair[0]] == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"n3": sampler(sampler_name="dpm_adaptive")}, "sampler dpm_adaptive is not known"),
        ({"n3": sampler(scheduler="beta")}, "schedule beta is not known"),
        ({"n3": sampler(sampler_name="dpmpp_2m_sde_gpu")}, "on the graphics card"),
        ({"n3": sampler(denoise=0.5)}, "denoises an empty latent"),
        (
            {"n3": sampler(model=("10", 0)), "n10": node("FreeU", b1=1.1, model=("4", 0))},
            "FreeU (node 10) changes the model",
        ),
        (
            {"n3": sampler(positive=("10", 0)), "n10": node("ControlNetApply", conditioning=("6", 0), image=("8", 0))},
            "ControlNetApply",
        ),
        (
            {"n9": node("SaveImage", images=("10", 0)), "n10": node("ImageInvert", image=("8", 0))},
            "ImageInvert (node 10) changed",
        ),
        (
            {"n6": node("CLIPTextEncode", text=("10", 0), clip=("4", 1)), "n10": node("WildcardMaker", seed=1.5)},
            "WildcardMaker",
        ),
        (
            {
                "n6": node(
                    "CLIPTextEncodeSDXL",
                    text_g="a",
                    text_l="b",
                    width=1,
                    height=1,
                    target_width=1,
                    target_height=1,
                    clip=("4", 1),
                )
            },
            "second is left out: b",
        ),
        ({"n10": sampler(), "n11": node("SaveImage", filename_prefix="ComfyUI", images=("10", 0))}, "several pictures"),
    ],
)
def test_what_has_no_counterpart_is_said(changed: dict[str, Any], sentence: str) -> None:
    found = read(graph(**changed))
    assert len(found.unmapped) == 1 and sentence in found.unmapped[0], found.unmapped


def test_values_from_other_nodes() -> None:
    nodes = graph(n3=sampler(seed=("10", 0), steps=("11", 0)), n6=node("CLIPTextEncode", text=("12", 0), clip=("4", 1)))
    nodes |= {"10": node("PrimitiveInt", value=77), "11": node("PrimitiveInt", value=("10", 0))}
    nodes |= {"12": node("StringConcatenate", string_a="a cat", string_b=("13", 0), delimiter=", ")}
    nodes |= {"13": node("PrimitiveStringMultiline", value="a dog")}
    job = read(nodes).job
    assert (job.seed, job.steps, job.prompt) == (77, 77, "a cat, a dog")


def test_the_saver_is_told_by_the_name() -> None:
    nodes = graph(n10=sampler(seed=9), n11=node("VAEDecode", samples=("10", 0), vae=("4", 2)))
    nodes["12"] = node("SaveImage", filename_prefix="sub/second", images=("11", 0))
    assert read(nodes, "second_00003_.png").job.seed == 9
    assert read(nodes, "ComfyUI_00003_.png").job.seed == 307307988959939


def test_a_batch_and_a_vae() -> None:
    nodes = graph(
        n5=node("EmptyLatentImage", width=64, height=64, batch_size=3), n50=node("VAELoader", vae_name="v.pt")
    )
    nodes["8"] = node("VAEDecode", samples=("3", 0), vae=("50", 0))
    found = read(nodes)
    assert (found.job.batch_size, found.job.vae) == (3, "v.pt") and "batch of 3" in found.assumed[0]


WORKFLOW = {
    "nodes": [
        {
            "id": 3,
            "type": "KSampler",
            "mode": 0,
            "widgets_values": [42, "randomize", 11, 6.5, "euler", "karras", 1],
            "inputs": [
                {"name": "model", "link": 1},
                {"name": "positive", "link": 2},
                {"name": "negative", "link": 3},
                {"name": "latent_image", "link": 4},
            ],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["b.safetensors"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [256, 320, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a cat"], "inputs": [{"name": "clip", "link": 5}]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["bad"], "inputs": [{"name": "clip", "link": 6}]},
        {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "link": 7}, {"name": "vae", "link": 8}]},
        {"id": 9, "type": "SaveImage", "widgets_values": ["ComfyUI"], "inputs": [{"name": "images", "link": 9}]},
        {
            "id": 10,
            "type": "LoraLoader",
            "mode": 4,
            "widgets_values": ["off.safetensors", 1, 1],
            "inputs": [{"name": "model", "type": "MODEL", "link": 10}, {"name": "clip", "type": "CLIP", "link": 11}],
            "outputs": [{"type": "MODEL"}, {"type": "CLIP"}],
        },
    ],
    "links": [
        [1, 10, 0, 3, 0, "MODEL"],
        [2, 6, 0, 3, 1, "C"],
        [3, 7, 0, 3, 2, "C"],
        [4, 5, 0, 3, 3, "L"],
        [5, 10, 1, 6, 0, "CLIP"],
        [6, 4, 1, 7, 0, "CLIP"],
        [7, 3, 0, 8, 0, "L"],
        [8, 4, 2, 8, 1, "VAE"],
        [9, 8, 0, 9, 0, "I"],
        [10, 4, 0, 10, 0, "MODEL"],
        [11, 4, 1, 10, 1, "CLIP"],
    ],
}


def test_the_editors_form_with_a_bypassed_node() -> None:
    found = recipe_comfyui("", json.dumps(WORKFLOW))
    job = found.job
    assert (job.seed, job.steps, job.cfg_scale, job.sampler, job.scheduler) == (42, 11, 6.5, "euler", "karras")
    assert (job.prompt, job.negative_prompt, job.base, job.loras) == ("a cat", "bad", "b.safetensors", ())
    assert (job.width, job.height, found.unmapped) == (256, 320, ())


def test_our_own_nodes() -> None:
    own = node(
        "LoraLoomInpaint", base="b.safetensors", prompt="x", mask_blur=7, cfg_scale=5, strengths=1, seed=("2", 0)
    )
    found = read({"1": node("SaveImage", images=("3", 0)), "2": node("PrimitiveInt", value=4), "3": own})
    assert isinstance(found.job, InpaintJob) and found.kind == "inpaint"
    assert (found.job.base, found.job.prompt, found.job.mask_blur, found.job.cfg_scale, found.job.seed) == (
        "b.safetensors",
        "x",
        7,
        5.0,
        4,
    )


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"1": {"class_type": "Note", "inputs": {}}}', "[" * 5000])
def test_damaged_graphs_are_refused(text: str) -> None:
    with pytest.raises(FileError, match="ComfyUI"):
        recipe_comfyui(text or "{", "")


def test_a_graph_in_a_circle_ends() -> None:
    nodes = graph(n4=node("FreeU", model=("10", 0)), n10=node("FreeU", model=("4", 0)))
    assert read(nodes).job.base == ""


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_graph_is_read_or_refused(data) -> None:
    nodes = graph(**{"n30": node("LoadImage", image="x.png"), "n31": node("SetLatentNoiseMask", samples=("5", 0))})
    kinds = st.sampled_from([n["class_type"] for n in nodes.values()])
    value = st.one_of(
        st.integers(), st.text(max_size=3), st.none(), st.tuples(st.sampled_from(list(nodes)), st.integers(0, 2))
    )
    for key in data.draw(st.lists(st.sampled_from(list(nodes)), max_size=4)):
        inputs = {name: data.draw(value) for name in nodes[key]["inputs"]}
        nodes[key] = node(data.draw(kinds), **inputs)
    try:
        read(nodes)
    except FileError as error:
        assert "ComfyUI" in str(error)
