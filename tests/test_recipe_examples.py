"""The shipped recipes: the jobs are what the hosts' texts mean, and they run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import tiny

from lora_core.events import Finished
from lora_core.jobs.generate import GenerateJob, InpaintJob
from lora_core.recipe_comfyui import recipe_comfyui
from lora_core.recipes import recipe_of
from lora_core.run import run
from lora_core.settings import from_json

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def read(name: str) -> dict:
    return json.loads((EXAMPLES / name).read_text("utf-8"))


def test_the_jobs_are_what_the_hosts_texts_mean() -> None:
    graph = recipe_comfyui((EXAMPLES / "comfyui_txt2img.graph.json").read_text("utf-8"))
    text = recipe_of(EXAMPLES / "a1111_inpaint.parameters.txt")
    assert graph.unmapped == () and graph.job.base == "sd_xl_base_1.0.safetensors"
    places = ("base", "output_dir", "name", "image", "mask")
    for recipe, name, cls in ((graph, "comfyui_txt2img", GenerateJob), (text, "a1111_inpaint", InpaintJob)):
        shipped = from_json(cls, read(f"{name}.json"))
        assert type(recipe.job) is cls
        assert replace(recipe.job, **{p: getattr(shipped, p) for p in places if hasattr(shipped, p)}) == shipped


def test_a_picture_of_ours_gives_its_job_back(tmp_path: Path) -> None:
    small = {"base": str(tiny.checkpoint("sdxl")), "output_dir": str(tmp_path), "width": 64, "height": 64, "steps": 2}
    job = replace(from_json(GenerateJob, read("comfyui_txt2img.json")), **small)
    end = list(run(job))[-1]
    assert isinstance(end, Finished)
    again = GenerateJob.from_picture(end.outputs[0], [Path(small["base"]).parent])
    assert again == replace(job, output_dir="", name="picture")
