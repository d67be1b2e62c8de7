"""Captions in one file (metadata_file): ours are those that sd-scripts' own classes make of the same config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from host_programs import LoraFile, host
from PIL import Image

from lora_core.engine.dataset import open_dataset
from lora_core.kohya_config import read_kohya

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

ROWS = {
    "a.png": {"caption": "a house", "tags": "red, roof"},
    "b.png": {"tags": "boat"},
    "c.png": {"caption": "cat", "image_size": [64, 64]},
    "d.png": {"caption": "one line\nanother", "tags": "x\ny"},
}


@pytest.mark.parametrize("wildcards", [False, True])
def test_captions_of_a_metadata_file(hub: Path, tmp_path: Path, wildcards: bool) -> None:
    program = host("SD_SCRIPTS", "sd_scripts_captions.py", hub, tmp_path / "data")
    pictures = tmp_path / "3_pictures"
    pictures.mkdir()
    for n, name in enumerate(ROWS):
        Image.new("RGB", (64, 64), (50 * n, 0, 0)).save(pictures / name)
    files = {}
    lines = [json.dumps({"image_path": str(pictures / name), **row}) for name, row in ROWS.items()]
    for name, text in {"meta.json": json.dumps(ROWS), "meta.jsonl": "\n".join(lines)}.items():
        (tmp_path / name).write_text(text)
        config = tmp_path / f"{name}.toml"
        config.write_text(
            f'[general]\nenable_wildcard = {json.dumps(wildcards)}\ncaption_separator = ","\n'
            "[[datasets]]\nresolution = 64\n"
            f'[[datasets.subsets]]\nimage_dir = "{pictures}"\nmetadata_file = "{tmp_path / name}"\nnum_repeats = 2\n'
        )
        files[name] = LoraFile(config, 0)
    for name, theirs in program.load("sd1", files).items():
        ours = {
            p.path.name: [p.caption, p.subset.repeats] for p in open_dataset(read_kohya(files[name].path)[0]).pictures
        }
        if wildcards:  # sd-scripts loses tags that have no caption to follow
            assert theirs["b.png"] == ["", 2]
            theirs["b.png"] = ["boat", 2]
        assert ours == theirs, name
