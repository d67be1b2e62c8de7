"""The library's cards, the choice of one save, and settings from files of any kind."""

import base64
import io
import json

import pytest
import torch
from PIL import Image

from lora_core.errors import ConfigError, FileError
from lora_core.families import reference
from lora_core.job_file import read_training
from lora_core.jobs import TrainJob
from lora_core.keep_one import keep_one, saves_of, saves_with, step_of
from lora_core.keys import lora_targets
from lora_core.library import card
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.settings import replace_by_name, to_json


def small_lora(path, ranks=(4, 4), metadata=None):
    """A LoRA of a few layers of SD1."""
    arch = reference("sd1")
    modules = {}
    for key, rank in zip(lora_targets(arch), ranks):
        down, up = torch.randn(rank, key.shape[1]), torch.randn(key.shape[0], rank)
        modules[key.canonical] = LoraModule(down, up, float(rank))
    write_lora(path, Lora(modules, {}, "sd1"), arch, torch.float16, {"ss_output_name": path.stem, **(metadata or {})})
    return path


def picture(color):
    out = io.BytesIO()
    Image.new("RGB", (400, 200), color).save(out, "PNG")
    return out.getvalue()


def colour_of(cover):
    with Image.open(io.BytesIO(base64.b64decode(cover.partition(",")[2]))) as image:
        return image.getpixel((image.width // 2, image.height // 2))


def test_a_card_tells_family_ranks_and_who_applies_it(tmp_path):
    found = card(small_lora(tmp_path / "a.safetensors", (4, 8), {"modelspec.trigger_phrase": "abc"}))
    assert (found.name, found.family, found.ranks, found.triggers) == ("a", "Stable Diffusion 1.x", "4 to 8", ("abc",))
    assert {verdict.program for verdict in found.verdicts} >= {"A1111", "Forge", "ComfyUI"}
    assert found.cover == "" and found.fault == ""


def test_the_cover_is_the_picture_beside_the_file_else_the_one_in_it(tmp_path):
    inside = {"ssmd_cover_images": json.dumps([base64.b64encode(picture("red")).decode()])}
    path = small_lora(tmp_path / "a.safetensors", metadata=inside)
    red, green, blue = colour_of(card(path).cover)
    assert red > 200 and green < 60 and blue < 60
    (tmp_path / "a.preview.png").write_bytes(picture("blue"))
    red, green, blue = colour_of(card(path).cover)
    assert blue > 200 and red < 60


@pytest.mark.parametrize("text", ["", "[]", '["?"]', '["bm90IGEgcGljdHVyZQ=="]', "{}", "[1]", "nothing"])
def test_a_broken_cover_is_no_cover(tmp_path, text):
    assert card(small_lora(tmp_path / "a.safetensors", metadata={"ssmd_cover_images": text})).cover == ""


def test_what_is_no_lora_is_a_card_with_the_reason(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    assert card(tmp_path / "a.safetensors").fault
    assert "cannot be read" in card(tmp_path / "gone.safetensors").fault


def test_a_changed_file_has_a_new_card(tmp_path):
    path = small_lora(tmp_path / "a.safetensors", (4,))
    assert card(path).ranks == "4"
    small_lora(path, (16,))
    assert card(path).ranks == "16"


@pytest.mark.parametrize(
    ("file", "step"),
    [
        ("cat.safetensors", 0),
        ("cat-000120.safetensors", 120),
        ("cat-12.safetensors", None),
        ("cat-black.safetensors", None),
        ("cat-black-000120.safetensors", None),
        ("dog.safetensors", None),
    ],
)
def test_the_saves_of_a_training_are_told_by_their_names(tmp_path, file, step):
    assert step_of(tmp_path / file, "cat") == step


@pytest.fixture
def saves(tmp_path):
    folder = tmp_path / "Lora"
    folder.mkdir()
    for name in ("cat", "cat-000050", "cat-000100", "dog"):
        small_lora(folder / f"{name}.safetensors", metadata=of("7"))
    (folder / "cat-000050.json").write_text("{}")
    (folder / "cat-000050.preview.png").write_bytes(picture("red"))
    return folder


def of(session, began=1000.0):
    return {"ss_session_id": session, "ss_training_started_at": str(began)}


def files_in(folder, *stems):
    return [str(folder / f"{stem}.safetensors") for stem in stems]


def stems_of(paths):
    return [path.stem for path in paths]


def test_the_saves_are_in_order_with_the_last_one_at_the_end(saves):
    assert stems_of(saves_of(saves, "cat", files_in(saves, "cat"))) == ["cat-000050", "cat-000100", "cat"]


def test_two_trainings_of_one_name_have_each_their_own_saves(saves):
    """The second found its names taken, and so wrote others."""
    for name in ("cat-000050-2", "cat-000150", "cat-2"):
        small_lora(saves / f"{name}.safetensors", metadata=of("8", 2000.0))
    for copy in ("cat-3", "cat-small", "cat-2_converted", "cat-000050_repaired"):
        small_lora(saves / f"{copy}.safetensors", metadata=of("8", 2000.0))
    second = ["cat-000050-2", "cat-000150", "cat-2"]
    assert stems_of(saves_of(saves, "cat", files_in(saves, "cat-2"))) == second
    assert stems_of(saves_of(saves, "cat", files_in(saves, "cat-000150"))) == second  # the first save after a resume
    assert stems_of(saves_of(saves, "cat", files_in(saves, "cat"))) == ["cat-000050", "cat-000100", "cat"]
    for stem in second:
        assert stems_of(saves_with(saves / f"{stem}.safetensors")) == second


def test_a_later_training_that_took_the_names_of_deleted_saves_is_not_the_earlier_one(saves):
    for name in ("cat", "cat-000050"):
        small_lora(saves / f"{name}.safetensors", metadata=of("8", 2000.0))
    wrote = files_in(saves, "cat-000050", "cat-000100", "cat")
    assert stems_of(saves_of(saves, "cat", wrote, ended=1500.0)) == ["cat-000100"]
    assert stems_of(saves_of(saves, "cat", files_in(saves, "cat-000050", "cat"), ended=2500.0)) == ["cat-000050", "cat"]


def test_saves_with_minimal_metadata_are_those_that_the_training_spoke_of(saves):
    for name in ("owl-000010", "owl-000020", "owl"):
        small_lora(saves / f"{name}.safetensors")
    assert stems_of(saves_of(saves, "owl", files_in(saves, "owl", "owl-000020"))) == ["owl-000020", "owl"]
    assert saves_of(saves, "owl", files_in(saves, "gone")) == []
    assert stems_of(saves_with(saves / "owl.safetensors")) == ["owl"]


def test_one_save_stays_and_the_others_are_put_away_with_what_belongs_to_them(saves, tmp_path):
    before = (saves / "cat.safetensors").read_bytes()
    moved = keep_one(
        saves / "cat-000100.safetensors", saves_of(saves, "cat", files_in(saves, "cat")), tmp_path / "away"
    )
    assert sorted(path.name for path in saves.iterdir()) == ["cat-000100.safetensors", "dog.safetensors"]
    assert sorted(path.name for path in moved) == [
        "cat-000050.json", "cat-000050.preview.png", "cat-000050.safetensors", "cat.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "away" / "cat.safetensors").read_bytes() == before


def test_what_was_put_away_before_is_not_replaced(saves, tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "cat.safetensors").write_text("older")
    before = (saves / "cat.safetensors").read_bytes()
    keep_one(saves / "cat-000100.safetensors", [saves / "cat.safetensors"], tmp_path / "away")
    assert (tmp_path / "away" / "cat.safetensors").read_text() == "older"
    assert (tmp_path / "away" / "cat-2.safetensors").read_bytes() == before


def test_nothing_is_moved_when_the_chosen_one_is_gone(saves, tmp_path):
    with pytest.raises(FileError, match="nothing was put away"):
        keep_one(saves / "gone.safetensors", list(saves.glob("cat*.safetensors")), tmp_path / "away")
    assert len(list(saves.iterdir())) == 6


def test_settings_come_from_our_json_and_from_kohyas(tmp_path):
    job = replace_by_name(TrainJob(base="b"), {"rank": 7, "folder": "pictures"})
    (tmp_path / "ours.json").write_text(json.dumps(to_json(job)), "utf-8")
    (tmp_path / "wire.json").write_text(json.dumps({"kind": "train", "job": to_json(job)}), "utf-8")
    assert read_training(tmp_path / "ours.json") == (job, [])
    assert read_training(tmp_path / "wire.json") == (job, [])
    (tmp_path / "kohya.toml").write_text('network_dim = 24\nlogging_dir = "x"\n', "utf-8")
    found, notes = read_training(tmp_path / "kohya.toml")
    assert found.network.rank == 24 and any("logging_dir" in note for note in notes)


def test_settings_that_cannot_be_read_are_sentences(tmp_path):
    (tmp_path / "bad.json").write_text("{", "utf-8")
    with pytest.raises(FileError, match="not valid JSON"):
        read_training(tmp_path / "bad.json")
    (tmp_path / "unknown.json").write_text(json.dumps({"dataset": {}, "what": 1}), "utf-8")
    with pytest.raises(ConfigError, match="what"):
        read_training(tmp_path / "unknown.json")
    with pytest.raises(FileError):
        read_training(tmp_path / "gone.json")
