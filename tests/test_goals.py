"""Goals in words become settings that a training accepts; captions are edited; the forecast follows the job."""

import io
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lora_core import caption_edit, cli, forecast, goals, settings, thumbnails, uploads
from lora_core.engine import outlook
from lora_core.errors import ConfigError, DatasetError, FileError
from lora_core.events import Finished, Progress
from lora_core.families import reference
from lora_core.folders import CaptionFiles, Walk
from lora_core.jobs import GenerateJob, TrainJob
from lora_core.jobs.generate import Hires
from lora_core.jobs.train import Subset
from lora_core.settings import from_json, replace_by_name

BASE = "lora_core/assets/demo/demo_base.safetensors"


@pytest.mark.parametrize("wish", [
    goals.Wish(*words, pictures=pictures, low_memory=low)
    for *words, pictures, low in itertools.product(
        goals.GOALS, goals.EFFORTS, goals.FAMILIES, (0, 3, 500), (False, True)
    )
])  # fmt: skip
def test_every_wish_is_a_job_without_faults(wish):
    named = TrainJob(base="b", output_dir="o", name="n")
    job = goals.wished(replace_by_name(named, {"folder": "pictures", "trigger": "abc"}), wish)
    assert job.problems() == []
    assert (job.base, job.dataset.folder, job.captions.trigger) == ("b", "pictures", "abc")


def test_more_effort_is_more_steps_and_low_memory_sees_as_many_pictures():
    for goal, family in itertools.product(goals.GOALS, goals.FAMILIES):
        steps = [goals.settings_for(goals.Wish(goal, effort, family))["steps"] for effort in goals.EFFORTS]
        assert steps[0] < steps[1] < steps[2]
        low = goals.settings_for(goals.Wish(goal, "normal", family, low_memory=True))
        assert low["batch_size"] == 1 and low["steps"] == steps[1]
        assert low["accumulation"] == goals.settings_for(goals.Wish(goal, "normal", family))["batch_size"]


def test_a_later_wish_leaves_nothing_of_an_earlier_one():
    style = goals.wished(TrainJob(), goals.Wish("style", family="sdxl"))
    assert goals.wished(style, goals.Wish("character")) == goals.wished(TrainJob(), goals.Wish("character"))


def test_an_unknown_wish_is_refused_with_its_choices():
    with pytest.raises(ConfigError, match="character, style, object"):
        goals.settings_for(goals.Wish("landscape"))


def test_the_settings_are_explained_with_their_effective_rate():
    values = goals.settings_for(goals.Wish("character"))
    told = " ".join(goals.explained(values))
    assert "0.00025" in told and f"{values['steps']} steps of 2 pictures" in told


def test_every_chosen_value_has_its_reason():
    values = goals.settings_for(goals.Wish("style", low_memory=True))
    told = goals.explained(values)
    assert all(": " in sentence or sentence.endswith(".") for sentence in told)
    for word in ("Rank 32", "Learning rate 0.0002", "cosine", "text encoder", "Convolutions", "Min-SNR 5", "shuffled",
                 "10% of the captions", "mirrored", "checkpointing", "A save"):  # fmt: skip
        assert sum(word in sentence for sentence in told) == 1, word
    assert not any("mirrored" in sentence for sentence in goals.explained(goals.settings_for(goals.Wish("character"))))


@pytest.mark.parametrize("changes", [{"rank": 64}, {"alpha": 1.0}, {"rank": 4, "conv_rank": 4}, {"rs_lora": True}])
def test_the_effective_rate_stays_when_rank_or_alpha_change(changes):
    values = {**settings.leaf_values(TrainJob()), **goals.settings_for(goals.Wish("style"))}
    merged, sentence = goals.on_top(values, changes)

    def effective(v, rate, part=""):
        rank = v[f"{part}rank"] ** (0.5 if v["rs_lora"] else 1)
        return v[rate] * v[f"{part}alpha"] / rank

    for case in (("learning_rate",), ("text_encoder_lr",), ("learning_rate", "conv_")):
        assert effective(merged, *case) == pytest.approx(effective(values, *case), rel=1e-5)
    assert f"{merged['learning_rate']:g} instead of 0.0002" in sentence
    assert replace_by_name(TrainJob(), merged).network.rank == changes.get("rank", 32)


@pytest.mark.parametrize(
    "changes", [{"rank": 32, "learning_rate": 1e-3}, {"batch_size": 8}, {"rank": 16, "alpha": 8.0}, {}]
)
def test_a_named_rate_and_an_unchanged_size_are_left_alone(changes):
    values = goals.settings_for(goals.Wish("character"))
    assert goals.on_top(values, changes) == ({**values, **changes}, "")


def test_prodigy_keeps_its_rate_of_1():
    values = {**goals.settings_for(goals.Wish("character")), "optimizer": "prodigy", "learning_rate": 1.0}
    assert goals.on_top(values, {"rank": 64})[0]["learning_rate"] == 1.0


def test_a_goal_on_the_command_line(folder, capsys):
    asked = ["train", "--goal", "character", "--base", BASE, "--folder", str(folder), "--rank", "32", "--print-config"]
    assert cli.main([*asked, "--time-budget", "15"]) == 0
    captured = capsys.readouterr()
    job = from_json(TrainJob, json.loads(captured.out))
    wanted = goals.settings_for(goals.Wish("character", pictures=3))
    assert job.network.rank == 32 and job.optimization.learning_rate == 2 * wanted["learning_rate"]
    assert (job.length.steps, job.dataset.batch_size, job.length.time_budget) == (wanted["steps"], 2, 15.0)
    assert "so that the effective rate" in captured.err and "fewer if they take more than 15 minutes" in captured.err
    assert cli.main([*asked, "--effort", "quick"]) == 0
    assert json.loads(capsys.readouterr().out)["length"]["steps"] == pytest.approx(wanted["steps"] / 2, abs=10)


def test_an_effort_without_a_goal_is_refused(capsys):
    assert cli.main(["train", "--effort", "quick", "--print-config"]) == 2
    assert "name one with --goal" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "3_cat").mkdir()
    for name in ("a.png", "b.png", "3_cat/c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("red, blue\n", "utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"tags": ["x", "y"]}), "utf-8")
    return tmp_path


def test_captions_are_listed_from_every_kind_of_file(folder):
    rows = {row.name: row.caption for row in caption_edit.caption_rows(folder)}
    assert rows == {"a.png": "red, blue", "b.png": "x, y", "3_cat/c.png": ""}


def test_written_captions_are_what_a_training_reads(folder):
    texts = {"a.png": "red, blue", "b.png": "grün\nneu", "3_cat/c.png": "猫"}
    written = caption_edit.write_captions(folder, texts)
    assert [path.name for path in written] == ["c.txt", "b.txt"]
    folders = Walk().folders(folder, Subset(""))
    read = CaptionFiles(folders)
    assert read.caption(folder / "b.png").text == "grün, neu"
    assert read.caption(folder / "3_cat" / "c.png").text == "猫"
    assert (folder / "b.json").exists() and not list(folder.glob("**/*.tmp"))


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "nothing.png"])
def test_only_pictures_of_the_folder_get_captions(folder, name):
    with pytest.raises(ConfigError, match="no picture"):
        caption_edit.write_captions(folder, {"a.png": "new", name: "x"})
    assert (folder / "a.txt").read_text("utf-8") == "red, blue\n"


def test_a_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        caption_edit.caption_rows(tmp_path / "no")


def job(**values):
    return replace_by_name(TrainJob(base=BASE), {"width": 128, "height": 128, **values})


def test_the_lora_is_as_large_as_the_known_files():
    """kohya's SD1.5 LoRAs of rank 128 (UNet and text encoder, fp16) are 151 MB, i.e. 75.5 million numbers."""
    released = reference("sd1")
    assert forecast.lora_weights(job(rank=128), released) == 75_497_472
    assert forecast.lora_weights(job(rank=64), released) == 75_497_472 // 2
    with_conv = forecast.lora_weights(job(rank=64, conv_rank=8), released)
    assert with_conv > forecast.lora_weights(job(rank=64), released)


def test_memory_grows_with_what_needs_it():
    arch = forecast.architecture_of(BASE)
    plain = forecast.memory(job(), arch, "fp32")
    assert forecast.memory(job(batch_size=4), arch, "fp32") > plain
    assert forecast.memory(job(width=512, height=512), arch, "fp32") > plain
    assert forecast.memory(job(batch_size=4, gradient_checkpointing=True), arch, "fp32") < forecast.memory(
        job(batch_size=4), arch, "fp32"
    )
    assert forecast.memory(job(), arch, "bf16") < plain


def test_time_is_told_from_an_earlier_training_alone():
    assert forecast.forecast(job(), 100, "fp32").seconds is None
    speed = forecast.speed_of(job(), {"seconds_per_step": 0.5, "device": "cpu"})
    assert forecast.forecast(job(), 100, "fp32", [speed]).seconds == pytest.approx(50)
    assert forecast.forecast(job(batch_size=4), 100, "fp32", [speed]).seconds == pytest.approx(200)
    assert forecast.speed_of(job(), {}) is None
    assert forecast.speed_of(TrainJob(base="gone.safetensors"), {"seconds_per_step": 1.0}) is None


DRAWN = [Progress(20, 20), Finished(("a.png",), {"pictures": 1, "seconds": 40.0})]


def drawing(**values):
    return GenerateJob(**{"base": BASE, "width": 128, "height": 64, "steps": 20, "device": "cpu", **values})


def test_before_the_first_training_pictures_that_were_drawn_tell_the_time():
    """A step with guidance is two passes, a training step three: forward and, at twice the work, backward."""
    speed = forecast.told_by_drawing(drawing(), DRAWN)
    told = forecast.forecast(job(width=64, height=64, batch_size=2), 100, "fp32", [speed])
    assert told.seconds == pytest.approx(100 * 3 * 40 / 20 / 2) and told.text().startswith(
        "100 steps, about 5 minutes, judging by pictures drawn here,"
    )
    alike = [drawing(cfg_scale=1.0), drawing(sampler="heun"), drawing(batch_size=4)]
    seconds = [forecast.told_by_drawing(one, DRAWN).seconds_per_step for one in alike]
    assert seconds == [2 * speed.seconds_per_step, speed.seconds_per_step / 2, speed.seconds_per_step / 4]


@pytest.mark.parametrize(
    ("job", "events"),
    [
        (drawing(), [Progress(9, 9), DRAWN[1]]),  # hardly more than what is around the steps
        (drawing(hires=Hires(hires_scale=2)), DRAWN),
        (drawing(base="gone.safetensors"), DRAWN),
        (drawing(), DRAWN[:1]),
        (drawing(), [DRAWN[0], Finished((), {"seconds": 40.0}, stopped=True)]),
    ],
)
def test_a_drawing_that_tells_little_is_passed_over(job, events):
    assert forecast.told_by_drawing(job, events) is None


def test_a_training_tells_the_time_better_than_drawings_and_the_least_disturbed_of_those(monkeypatch):
    desk = SimpleNamespace()
    tickets = {"a": (drawing(), 40), "b": (drawing(), 20), "c": (drawing(), 60)}
    desk.tickets = lambda: [SimpleNamespace(id=id, kind="generate", over=True, outputs=("x.png",)) for id in tickets]
    desk.job = lambda id: tickets[id][0]
    desk.events = lambda id: [(1, DRAWN[0]), (2, Finished((), {"seconds": tickets[id][1]}))]
    assert [speed.seconds_per_step for speed in forecast.speeds_of(desk)] == [4.5, 3.0, 1.5]
    trained = [SimpleNamespace(id="t", kind="train", over=True, outputs=("x",))]
    tickets["t"] = (job(), 0)
    drawn = desk.tickets()[:3]
    desk.tickets = lambda: [*trained, *drawn]
    desk.snapshot = lambda id: {"report": {"seconds_per_step": 0.5, "device": "cpu"}}
    assert forecast.forecast(job(), 100, "fp32", forecast.speeds_of(desk)).seconds == pytest.approx(50)


@pytest.mark.parametrize(
    ("device", "counts"), [("auto", True), ("", True), ("cpu", True), ("cpu:0", True), ("cuda", False)]
)
def test_a_speed_counts_for_its_own_kind_of_device(monkeypatch, device, counts):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert outlook.is_of(forecast.Speed(1.0, 1.0, device), torch.device("cpu")) is counts


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 seconds"), (40, "40 seconds"), (720, "12 minutes"), (12000, "3 h 20 min")]
)
def test_time_in_words(seconds, words):
    assert forecast.spoken(seconds) == words.replace("1 seconds", "1 second")


def dropped(folder, name, color="red", caption=None):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, "utf-8")
    return sorted(folder.iterdir())


def test_dropped_pictures_keep_their_captions_and_never_replace_others(tmp_path):
    target = tmp_path / "kept"
    first = dropped(tmp_path / "1", "a.png", "red", "one")
    second = dropped(tmp_path / "2", "a.png", "blue", "two")
    for files in (first, second, first):
        uploads.keep_uploads(files, target)
    assert sorted(p.name for p in target.iterdir()) == ["a-2.png", "a-2.txt", "a.png", "a.txt"]
    assert {row.name: row.caption for row in caption_edit.caption_rows(target)} == {"a.png": "one", "a-2.png": "two"}


def test_files_of_other_kinds_are_not_kept(tmp_path):
    files = dropped(tmp_path / "1", "a.png")
    (tmp_path / "1" / "virus.exe").write_bytes(b"MZ")
    uploads.keep_uploads([*files, tmp_path / "1" / "virus.exe"], tmp_path / "kept")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["a.png"]
    with pytest.raises(DatasetError, match="no picture"):
        uploads.keep_uploads([tmp_path / "1" / "virus.exe"], tmp_path / "none")


def test_a_thumbnail_is_small_and_follows_the_file(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (600, 300), (255, 0, 0, 255)).save(path)
    with Image.open(io.BytesIO(thumbnails.thumbnail(path, 128))) as small:
        assert small.size == (128, 64) and small.format == "JPEG" and small.getpixel((5, 5))[0] > 240
    Image.new("RGB", (40, 20), "blue").save(path)
    with Image.open(io.BytesIO(thumbnails.thumbnail(path, 128))) as small:
        assert small.size == (40, 20) and small.getpixel((5, 5))[2] > 240
    path.write_bytes(b"no picture")
    with pytest.raises(FileError):
        thumbnails.thumbnail(path)
    with pytest.raises(FileError):
        thumbnails.thumbnail(tmp_path / "gone.png")
