"""Captions of many pictures in one file, as kohya's fine-tuning scripts write it."""

import json

import pytest
from PIL import Image

from lora_core.engine.dataset import open_dataset
from lora_core.errors import DatasetError
from lora_core.jobs import Subset, TrainJob
from lora_core.kohya_config import read_kohya
from lora_core.kohya_export import exported
from lora_core.metadata_file import MetadataFile, common_folder
from lora_core.settings import from_json, replace_by_name, to_json

ROWS = {
    "a.png": {"caption": "a house", "tags": "red, roof", "train_resolution": [64, 64]},
    "sub/b": {"tags": "boat"},
    "c.png": {"caption": "cat", "image_size": [64, 64]},
    "empty.png": {},
}
SAID = {"a.png": "a house,red, roof", "sub/b.png": "boat", "c.png": "cat", "empty.png": ""}


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "5_pics"
    (pictures / "sub").mkdir(parents=True)
    for i, name in enumerate([*SAID, "other.png"]):
        Image.new("RGB", (64, 64), (40 * i, 0, 0)).save(pictures / name)
    (pictures / "a.txt").write_text("beside")
    (tmp_path / "meta.json").write_text(json.dumps(ROWS))
    return pictures


def job_for(folder, subsets=(), **values):
    job = replace_by_name(TrainJob(), {"width": 64, "height": 64, "buckets": False, "shuffle": False} | values)
    data = to_json(replace_by_name(job, {"folder": str(folder)}))
    data["dataset"]["subsets"] = [to_json(s) for s in subsets]
    return from_json(TrainJob, data)


def captions(job):
    return {p.name: p.caption for p in open_dataset(job).pictures}


def test_captions_and_tags_are_of_the_file_alone(folder):
    job = job_for(folder, metadata_file=str(folder.parent / "meta.json"), repeats=3)
    assert captions(job) == SAID
    report = open_dataset(job).report
    assert "Not in meta.json, so not trained on: other.png." in report.notes
    assert [s.repeats for s in report.subsets] == [3]


def test_keys_may_be_whole_paths_with_or_without_an_ending_or_of_another_machine(folder, tmp_path):
    keys = [str(folder / "a.png"), str(folder / "sub" / "b"), "D:\\pics\\c.png", ".\\empty.png"]
    rows = dict(zip(keys, ROWS.values())) | {"gone.png": {"caption": "x"}}
    (tmp_path / "whole.json").write_text(json.dumps(rows))
    job = job_for(folder, metadata_file=str(tmp_path / "whole.json"))
    assert captions(job) == SAID
    assert "In whole.json are pictures that were not found: gone.png." in open_dataset(job).report.notes
    (tmp_path / "one.json").write_text(json.dumps(dict(zip(keys[:2], ROWS.values()))))
    assert common_folder(tmp_path / "one.json") == folder.as_posix()


def test_lines_of_json_and_lists_of_tags(folder, tmp_path):
    lines = [
        {"image_path": "a.png", "caption": "one", "image_size": [64, 64]},
        {"file_name": "c.png", "tags": ["x", "y"]},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert captions(job_for(folder, metadata_file=str(tmp_path / "m.jsonl"))) == {"a.png": "one", "c.png": "x,y"}


def test_tags_follow_each_line_where_a_line_is_drawn(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"a": {"caption": "one\n\ntwo", "tags": "x\ny"}}))
    assert MetadataFile(tmp_path / "m.json", ",", True).caption(tmp_path / "a.png", tmp_path) == "one,x,y\ntwo,x,y"
    assert MetadataFile(tmp_path / "m.json", ";").caption(tmp_path / "a.png", tmp_path) == "one\n\ntwo;x\ny"


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": ', '"x"'])
def test_what_is_no_such_file_is_named(folder, tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DatasetError, match=r"bad\.json"):
        open_dataset(job_for(folder, metadata_file=str(tmp_path / "bad.json")))


def test_a_file_that_is_not_there_or_names_nothing_found(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"none\.json cannot be read"):
        open_dataset(job_for(folder, metadata_file=str(tmp_path / "none.json")))
    (tmp_path / "far.json").write_text(json.dumps({"x/far.png": {"caption": "x"}}))
    with pytest.raises(DatasetError, match=r"names none of the 5 pictures found; it names x/far\.png"):
        open_dataset(job_for(folder, metadata_file=str(tmp_path / "far.json")))


def test_held_out_and_class_pictures_keep_the_captions_beside_them(folder, tmp_path):
    for name, color in (("held", 200), ("class", 220)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), (0, color, 0)).save(tmp_path / name / "h.png")
        (tmp_path / name / "h.txt").write_text(name)
    extra = {"held_out": str(tmp_path / "held"), "class_pictures": str(tmp_path / "class")}
    dataset = open_dataset(job_for(folder, metadata_file=str(tmp_path / "meta.json"), **extra))
    assert [p.caption for p in dataset.held_out] == ["held"]
    assert [p.caption for p in dataset.pictures if p.is_class] == ["class"] and len(dataset.pictures) == 5


def test_in_json_of_a_config_file(folder, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(f'train_data_dir = "{folder}"\nin_json = "meta.json"\ndataset_repeats = 4\nresolution = "64"\n')
    job, told = read_kohya(config)
    assert (job.dataset.folder, job.dataset.repeats) == (str(folder), 4)
    assert captions(job) == SAID and not any("in_json" in line or "dataset_repeats" in line for line in told)
    config.write_text(f'train_data_dir = "{folder}"\ndataset_repeats = 4\n')
    assert read_kohya(config)[0].dataset.repeats == 1


def test_metadata_file_of_a_dataset_config(folder, tmp_path):
    (tmp_path / "whole.json").write_text(json.dumps({str(folder / "a.png"): ROWS["a.png"]}))
    config = tmp_path / "d.toml"
    config.write_text(
        "[[datasets]]\nresolution = 64\n"
        f'[[datasets.subsets]]\nimage_dir = "{folder}"\nmetadata_file = "meta.json"\nnum_repeats = 2\n'
        '[[datasets.subsets]]\nmetadata_file = "whole.json"\n'
    )
    job, told = read_kohya(config)
    first, second = job.dataset.subsets
    assert (first.metadata_file, first.repeats) == (str(tmp_path / "meta.json"), 2)
    assert second.folder == folder.as_posix() and not any("image_dir" in line for line in told)
    back = exported(job).dataset["datasets"][0]["subsets"]
    assert [s["metadata_file"] for s in back] == [first.metadata_file, second.metadata_file]


def test_a_jobs_own_file_goes_out_with_its_folder(folder, tmp_path):
    job = job_for(folder, (Subset("x", metadata_file="own.json"),), metadata_file="meta.json", class_pictures="y")
    subsets = [s for d in exported(job).dataset["datasets"] for s in d["subsets"]]
    assert [s.get("metadata_file") for s in subsets] == ["meta.json", "own.json", None]
