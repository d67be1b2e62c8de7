"""From files to jobs: where a recipe is looked for, which files it means, and the command line."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from lora_core.cli import build, main, parser
from lora_core.errors import FileError
from lora_core.infotext_fields import Drawn, parameters
from lora_core.jobs.generate import GenerateJob, InpaintJob, LoraUse
from lora_core.picture_text import exif_of
from lora_core.recipes import match_files, recipe_of
from lora_core.tensors import data_hash

JOB = GenerateJob(base="m.safetensors", prompt="a cat <lora:one:0.5>", steps=7, sampler="euler", width=256, height=320)
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 4, "cfg": 8, "sampler_name": "ddim"}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    "10": {"class_type": "LoraLoader", "inputs": {"lora_name": "sub/two.safetensors", "model": ["4", 0]}},
}
GRAPH["3"]["inputs"] |= {"scheduler": "normal", "denoise": 1.0, "model": ["10", 0]}


def picture(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_where_recipes_are_found(tmp_path: Path) -> None:
    text = parameters(JOB, Drawn(9))
    found = recipe_of(picture(tmp_path / "a.png", parameters=text, prompt=json.dumps(GRAPH)))
    assert found.job == replace(JOB, base="m", seed=9) and found.source == "A1111's parameters (PNG text)"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif_of(text))
    assert recipe_of(tmp_path / "a.webp").job == found.job
    (tmp_path / "b.txt").write_text(text)
    assert recipe_of(tmp_path / "b.txt").job == found.job
    graph = recipe_of(picture(tmp_path / "c.png", prompt=json.dumps(GRAPH)))
    assert graph.job.steps == 4 and graph.source == "ComfyUI's graph (PNG text)"
    novel = {"uc": "bad", "steps": 28, "sampler": "k_euler_ancestral", "scale": 11.0, "seed": 3}
    job = recipe_of(picture(tmp_path / "d.png", Software="NovelAI", Description="girl", Comment=json.dumps(novel))).job
    assert (job.prompt, job.sampler, job.clip_skip, job.cfg_scale) == ("girl", "euler_ancestral", 2, 11.0)
    assert GenerateJob.from_picture(tmp_path / "a.png") == found.job


def test_pictures_without_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no recipe"):
        recipe_of(picture(tmp_path / "a.png"))
    with pytest.raises(FileError, match="NovelAI"):
        recipe_of(picture(tmp_path / "a.png", Software="NovelAI", Comment="{}"))
    with pytest.raises(FileError, match="damaged"):
        recipe_of(picture(tmp_path / "a.png", prompt="{broken"))


def lora_file(path: Path, number: float, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.lora_down.weight": torch.full((2, 2), number)}, path, metadata or None)
    return path


def base_file(path: Path, number: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"model.diffusion_model.x": torch.full((2, 2), number)}, path)
    return path


def whole_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written(folder: Path, job: GenerateJob, drawn: Drawn) -> Path:
    return picture(folder / "p.png", parameters=parameters(job, drawn))


def test_files_by_name_and_hash(tmp_path: Path) -> None:
    base = base_file(tmp_path / "models" / "m.safetensors", 1.0)
    lora = lora_file(tmp_path / "loras" / "deep" / "one.safetensors", 2.0)
    drawn = Drawn(1, model_hash=whole_hash(base), lora_hashes=(("one", data_hash(lora)),))
    found = match_files(recipe_of(written(tmp_path, JOB, drawn)), [tmp_path / "models", tmp_path / "loras"])
    assert (found.job.base, found.job.lora_dirs) == (str(base), (str(lora.parent),))
    assert found.unmapped == () and found.job.prompt == JOB.prompt
    assert GenerateJob.from_picture(tmp_path / "p.png", [tmp_path]) == found.job


def test_renamed_files_are_found_by_hash(tmp_path: Path) -> None:
    base_file(tmp_path / "m.safetensors", 5.0)  # the name, but not the content
    base = base_file(tmp_path / "other.safetensors", 1.0)
    lora = lora_file(tmp_path / "renamed.safetensors", 2.0)
    drawn = Drawn(1, model_hash=whole_hash(base), lora_hashes=(("one", data_hash(lora)),))
    job = replace(JOB, prompt="a cat <lora:one:0.5> <lyco:one> <lyco:one:1:te=0>")
    found = match_files(recipe_of(written(tmp_path, job, drawn)), [tmp_path])
    assert found.job.base == str(base)
    assert found.job.prompt == "a cat <lora:renamed:0.5> <lyco:renamed> <lyco:renamed:1:te=0>"
    assert found.unmapped == ("The model m is other.safetensors here: the hash is the same.",)


def test_hashes_that_do_not_fit_are_said(tmp_path: Path) -> None:
    base_file(tmp_path / "m.safetensors", 5.0)
    lora_file(tmp_path / "one.safetensors", 2.0)
    drawn = Drawn(1, model_hash="a" * 64, lora_hashes=(("one", "b" * 64),))
    found = match_files(recipe_of(written(tmp_path, JOB, drawn)), [tmp_path])
    assert found.job.base == str(tmp_path / "m.safetensors")
    assert [("not its hash" in s) for s in found.unmapped] == [True, True]
    (tmp_path / "m.safetensors").unlink()
    (tmp_path / "one.safetensors").unlink()
    found = match_files(recipe_of(tmp_path / "p.png"), [tmp_path])
    assert [("not in the folders" in s) for s in found.unmapped] == [True, True] and found.job.base == "m"


def test_other_hashes_and_aliases(tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "file.safetensors", 2.0, ss_output_name="one", sshs_model_hash="c" * 64)
    for digest in (data_hash(lora)[:12], whole_hash(lora)[:10], "c" * 12):
        drawn = Drawn(1, lora_hashes=(("one", digest),))
        found = match_files(recipe_of(written(tmp_path, replace(JOB, base=""), drawn)), [tmp_path])
        assert (found.unmapped, found.job.prompt, found.job.lora_dirs) == ((), JOB.prompt, (str(tmp_path),))
    old = base_file(tmp_path / "old.safetensors", 1.0)
    eight = hashlib.sha256(old.read_bytes()[0x100000:0x110000]).hexdigest()[:8]
    text = f"cat\nSteps: 5, Sampler: Euler, Seed: 1, Size: 64x64, Model hash: {eight}"
    assert match_files(recipe_of(picture(tmp_path / "q.png", parameters=text)), [tmp_path]).job.base == str(old)


def test_embeddings_are_found_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    folder.mkdir()
    save_file({"emb_params": torch.ones(1, 4)}, folder / "bad one.safetensors")
    digest = whole_hash(folder / "bad one.safetensors")
    job = replace(JOB, base="", prompt="a cat")
    for told, said in ((digest, ()), ("a" * 64, ("not its hash",)), ("in_a_lora", ()), ("", ())):
        recipe = recipe_of(written(tmp_path, job, Drawn(1, embedding_hashes=(("bad one", told),))))
        found = match_files(recipe, [tmp_path])
        assert [words in s for words, s in zip(said, found.unmapped, strict=True)] == [True] * len(said)
        assert found.job.embedding_dirs == ((str(folder),) if len(told) == 64 else ()), told
    recipe = recipe_of(written(tmp_path, job, Drawn(1, embedding_hashes=(("gone", digest),))))
    assert match_files(recipe, [tmp_path]).unmapped == (
        f"The embedding gone ({digest[:12]}) is not in the folders given.",
    )


def test_from_picture_says_what_it_leaves_out(tmp_path: Path) -> None:
    path = written(tmp_path, JOB, Drawn(1))
    with pytest.warns(UserWarning) as said:
        job = GenerateJob.from_picture(path, [tmp_path])
    assert [str(w.message) for w in said] == list(match_files(recipe_of(path), [tmp_path]).unmapped) != []
    assert said[0].filename == __file__ and job.prompt == JOB.prompt


def test_a_model_in_a_folder_is_found_by_a1111s_name_for_it(tmp_path: Path) -> None:
    base = base_file(tmp_path / "sdxl" / "good.safetensors", 1.0)
    job = replace(JOB, base="sdxl_good", prompt="a cat")
    found = match_files(recipe_of(written(tmp_path, job, Drawn(1))), [tmp_path])
    assert found.job.base == str(base) and found.unmapped == ()


def test_comfyuis_names_become_files(tmp_path: Path) -> None:
    right = lora_file(tmp_path / "loras" / "sub" / "two.safetensors", 1.0)
    lora_file(tmp_path / "loras" / "a" / "two.safetensors", 2.0)
    base = base_file(tmp_path / "m.safetensors", 1.0)
    found = match_files(recipe_of(picture(tmp_path / "c.png", prompt=json.dumps(GRAPH))), [tmp_path])
    assert found.job.loras == (LoraUse(str(right), 1.0, 0.0),) and found.job.base == str(base)


def test_the_picture_that_was_drawn_over(tmp_path: Path) -> None:
    nodes = {**GRAPH, "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["6", 0]}}}
    nodes["6"] = {"class_type": "LoadImage", "inputs": {"image": "me.png [input]"}}
    nodes["3"] = {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "latent_image": ["5", 0]}}
    (tmp_path / "input").mkdir()
    me = picture(tmp_path / "input" / "me.png")
    found = match_files(recipe_of(picture(tmp_path / "c.png", prompt=json.dumps(nodes))), [tmp_path])
    assert found.kind == "img2img" and found.job.image == str(me)


def test_a_missing_folder(tmp_path: Path) -> None:
    recipe = recipe_of(written(tmp_path, JOB, Drawn(1)))
    with pytest.raises(FileError, match="no folder"):
        match_files(recipe, [tmp_path / "nowhere"])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = replace(InpaintJob(base="m"), prompt="it's\na cat", mask_invert=True, overlay_original=False, keep_size=False)
    path = written(tmp_path, job, Drawn(3))
    assert main(["recipe", str(path)]) == 0
    out = capsys.readouterr().out
    assert "--mask-invert" in out and "--no-overlay-original" in out and "left out: The mask is not" in out
    command = out.partition("lora_core ")[2].partition("\nleft out")[0].partition("\nnote")[0]

    options = parser().parse_args(shlex.split(command.replace("\\\n", "")))
    assert build(options) == recipe_of(path).job
    assert main(["recipe", "--json", str(path), str(path)]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 2 and told[0]["job"] == "inpaint" and len(told[0]["unmapped"]) == 2
    (tmp_path / "job.json").write_text(json.dumps(told[0]))
    options = parser().parse_args(["inpaint", "--config", str(tmp_path / "job.json")])
    assert build(options) == recipe_of(path).job
    assert main(["recipe", str(tmp_path / "none.png")]) == 1


def test_run_again_needs_what_the_picture_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, JOB, Drawn(3))
    assert main(["recipe", "--run", str(path)]) == 2  # no output folder
    assert "output_dir" in capsys.readouterr().err


def test_a_copy_keeps_its_recipe(tmp_path: Path) -> None:
    path = written(tmp_path, JOB, Drawn(3))
    shutil.copy(path, tmp_path / "copy.PNG")
    assert recipe_of(tmp_path / "copy.PNG").job.seed == 3
