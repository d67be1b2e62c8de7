"""A job written as sd-scripts' files and read again."""

import importlib.util
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from lora_core.cli import main
from lora_core.cli_export import write
from lora_core.errors import ConfigError, FileError
from lora_core.jobs import Subset, TrainJob
from lora_core.kohya_config import read_kohya
from lora_core.kohya_export import exported
from lora_core.kohya_files import parse_toml
from lora_core.kohya_toml import toml_text
from lora_core.settings import describe, replace_by_name

pytestmark = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("tomllib", "tomli")), reason="no TOML reader"
)
ROOT = Path(__file__).resolve().parents[1]
KNOWN = {line.split("\t")[0] for line in (ROOT / "tests/data/sd_scripts_options.txt").read_text().splitlines()}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)


def values_of(s):
    """Any value that a declaration allows."""
    d, kind = s.declaration, str(s.type)
    low, high = d.min, d.max
    if d.choices and "tuple" not in kind:
        found = st.sampled_from(d.choices)
    elif s.type is bool:
        found = st.booleans()
    elif "tuple" in kind:
        found = st.lists(TEXT if "str" in kind else st.integers(int(low or 0), int(high or 9)), max_size=2).map(tuple)
    elif "int" in kind:
        found = st.integers(int(low or 0), int(min(high or 2**31, 2**62)))
    elif "float" in kind:
        found = st.floats(low or 0, min(high or 1e6, 1e9), allow_nan=False)
    else:
        found = TEXT
    return found | st.none() if "None" in kind else found


SETTINGS = {s.name: s for s in describe(TrainJob)}
ANY_JOB = st.fixed_dictionaries({}, optional={name: values_of(s) for name, s in SETTINGS.items()})
SUBSETS = st.lists(
    st.builds(
        Subset, folder=st.sampled_from(["a b", "b", "ü/ö"]), repeats=st.integers(1, 9), class_words=TEXT,
        keep_tokens=st.none() | st.integers(0, 9), shuffle=st.none() | st.booleans(), masks=st.none() | TEXT,
        caption_dropout=st.none() | st.floats(0, 1), class_pictures=st.booleans(), keeps_base=st.booleans(),
    ),
    max_size=3,
)  # fmt: skip


@given(values=ANY_JOB, subsets=SUBSETS)
@limits(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_job_comes_back_as_it_was(values, subsets, tmp_path):
    job = replace_by_name(TrainJob(name="any"), values)
    job = replace_by_name(job, {"output_dir": "o"})
    job = TrainJob(**{**vars(job), "dataset": type(job.dataset)(**{**vars(job.dataset), "subsets": tuple(subsets)})})
    write(job, tmp_path / "any.toml")
    back, _ = read_kohya(tmp_path / "any.toml")
    assert back == job


SAID = {
    "base": "b.safetensors", "vae": "v.pt", "output_dir": "o", "seed": 0, "rank": 12, "alpha": 6.0, "steps": 77,
    "learning_rate": 3e-4, "text_encoder_lr": 1e-5, "text_encoder_2_lr": 2e-5, "conv_rank": 4, "conv_alpha": 2.0,
    "optimizer": "lion", "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "schedule": "cosine_with_restarts",
    "cycles": 3, "warmup": 20.0, "module_dropout": 0.1, "lora_plus_ratio": 16.0, "prediction": "v", "dtype": "fp16",
    "min_timestep": 10, "max_timestep": 900, "clip_skip": 2, "max_tokens": 225, "caption_extension": ".cap",
    "width": 640, "height": 768, "bucket_step": 32, "block_lr": ",".join(["0.5"] * 12 + ["2"] + ["1"] * 12),
    "base_loras": ("x.safetensors = 0.5",), "start_from": "s.safetensors", "rank_from_start": False,
    "noise_offset": 0.05, "loss": "huber", "save_every_epochs": 2, "comment": 'he said "ü"\n', "max_norm": 1.0,
    "preview_prompts": ("a cat, hat", "a dog --d 3"), "preview_steps": 30, "preview_cfg": 7.5, "keep_last": 2,
    "preview_sampler": "euler_ancestral", "author": "me", "metadata": "minimal",
}  # fmt: skip


@pytest.mark.parametrize("network", ["lora", "dora", "loha", "lokr", "oft", "ia3"])
def test_what_sd_scripts_can_say_needs_no_words_of_ours(network, tmp_path):
    job = replace_by_name(TrainJob(), SAID | {"algorithm": network, "train_text_encoder": network != "ia3"})
    if network in ("oft", "ia3"):
        job = replace_by_name(job, {"max_norm": 0.0})
    found = exported(job)
    names = {key for key in found.options if key != "lora_loom"}
    assert names <= KNOWN
    assert found.notes == () and "lora_loom" not in found.options


def test_what_it_cannot_say_is_told_and_kept(tmp_path, capsys):
    pictures = tmp_path / "pics"
    for name in ("3_cat", "plain"):
        (pictures / name).mkdir(parents=True)
        (pictures / name / "1.png").write_bytes(b"x")
    job = replace_by_name(TrainJob(), {"output_dir": "o", "folder": str(pictures), "trigger": "armin", "ema": 0.99})
    paths = write(job, tmp_path / "out" / "cat.toml")
    assert [p.name for p in paths] == ["cat.toml", "cat_dataset.toml"]
    told = capsys.readouterr().err
    assert "ema = 0.99" in told and "armin" in told
    main_file = parse_toml((tmp_path / "out" / "cat.toml").read_text("utf-8"))
    assert main_file["caption_prefix"] == "armin," and main_file["seed"] == 0
    dataset = parse_toml(Path(main_file["dataset_config"]).read_text("utf-8"))["datasets"]
    assert [(Path(s["image_dir"]).name, s.get("num_repeats", 1)) for s in dataset[0]["subsets"]] == [
        ("3_cat", 3), ("plain", 1)
    ]  # fmt: skip
    assert read_kohya(tmp_path / "out" / "cat.toml")[0] == job


def test_the_verb_takes_flags_and_refuses_other_endings(tmp_path, capsys):
    line = f"export --kohya {shlex.quote(str(tmp_path / 'a.toml'))} --rank 3 --output-dir o --preview-prompts cat"
    assert main(shlex.split(line)) == 0
    job, _ = read_kohya(tmp_path / "a.toml")
    assert job.network.rank == 3 and job.saves.preview_prompts == ("cat",)
    assert (tmp_path / "a_prompts.txt").read_text().startswith("cat --s 20")
    with pytest.raises(ConfigError):
        write(TrainJob(), tmp_path / "a.json")


def test_a_damaged_section_of_ours_is_named(tmp_path):
    (tmp_path / "a.toml").write_text("[lora_loom]\nloom_settings = 'x'\n")
    with pytest.raises(FileError, match="lora_loom"):
        read_kohya(tmp_path / "a.toml")


@given(st.dictionaries(TEXT, st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
       | TEXT | st.lists(TEXT) | st.dictionaries(TEXT, TEXT), max_size=4))  # fmt: skip
@limits(max_examples=30, deadline=None)
def test_toml_is_read_as_it_was_written(table):
    assert parse_toml(toml_text(table)) == table
    assert parse_toml(toml_text({"a": [table, table]})) == {"a": [table, table]}


@pytest.mark.parametrize(("optimizer", "written"), [("adamw", "betas=0.9,0.99"), ("lion", "betas=0.9,0.95")])
def test_one_beta_alone_is_written_with_the_optimizers_own_other(optimizer, written):
    beta2 = float(written.rpartition(",")[2])
    found = exported(replace_by_name(TrainJob(), {"base": "b", "optimizer": optimizer, "beta2": beta2}))
    assert written in found.options["optimizer_args"]
    assert not any("no option for" in note and "beta" in note for note in found.notes)
