import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core.confine import below, confine_job, confined, path_fields, spelling_fault, windows_fault, with_links
from lora_core.errors import ConfigError
from lora_core.jobs import ChooseJob, GenerateJob, InpaintJob, KeepJob, LoraUse, Subset, TrainJob
from lora_core.jobs.files import InspectJob, MetadataJob
from lora_core.jobs.tools import MergeJob
from lora_core.run import RUNNERS
from lora_core.settings import describe, from_json, replace_by_name, to_json


@pytest.fixture
def roots(tmp_path):
    """Two folders that are allowed, one beside them that is not, with files and links."""
    for name in ("loras", "out", "secret"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / f"{name}.txt").write_text(name)
    (tmp_path / "loras2").mkdir()
    os.symlink(tmp_path / "secret", tmp_path / "loras" / "link")
    os.symlink(tmp_path / "loras" / "sub", tmp_path / "loras" / "inner")
    return (tmp_path / "loras", tmp_path / "out")


def test_paths_inside_are_made_absolute(roots, tmp_path):
    loras, out = roots
    for path, expected in [
        ("loras.txt", loras / "loras.txt"),
        ("out.txt", out / "out.txt"),
        ("new/file.safetensors", loras / "new" / "file.safetensors"),
        (str(out / "x" / "y.png"), out / "x" / "y.png"),
        (str(loras), loras),
        ("inner/a.png", loras / "sub" / "a.png"),
        ("./sub/./a b ü 中文.png", loras / "sub" / "a b ü 中文.png"),
        ("..hidden", loras / "..hidden"),
        ("a..b", loras / "a..b"),
    ]:
        assert confined(path, roots) == expected.parent.resolve() / expected.name


OUTSIDE = [
    "",
    "   ",
    "..",
    "../secret/secret.txt",
    "sub/../../secret/secret.txt",
    "sub\\..\\..\\secret",
    ".. /secret",
    "/etc/passwd",
    "link/secret.txt",
    "{tmp}/secret/secret.txt",
    "{tmp}/loras2/x",
    "{tmp}/loras/../secret/secret.txt",
    "{tmp}/loras/link/secret.txt",
    "{tmp}",
    "/",
    "//server/share/x",
    "\\\\server\\share\\x",
    "/\\server\\share\\x",
    "\\/server/share/x",
    "\\\\?\\C:\\x",
    "\\\\.\\PhysicalDrive0",
    "C:x",
    "C:",
    "~/x",
    "~root/x",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 5000,
]


@pytest.mark.parametrize("path", OUTSIDE, ids=[ascii(p)[:40] for p in OUTSIDE])
def test_paths_that_lead_elsewhere_are_refused(roots, tmp_path, path):
    with pytest.raises(ConfigError, match="path"):
        confined(path.replace("{tmp}", str(tmp_path)), roots)


@pytest.mark.parametrize("path", ["//a/b/x", "\\\\a\\b\\x", "/\\a\\b\\x", "\\/a/b/x", "/\\?\\C:\\x"])
def test_a_network_share_is_told_by_its_spelling_in_every_mixture_of_slashes(path):
    assert "network" in spelling_fault(path)
    assert not spelling_fault("/a\\b") and not spelling_fault("\\a/b")


def test_no_roots_allow_nothing():
    with pytest.raises(ConfigError, match="none is set"):
        confined("x", ())


def test_a_refusal_names_each_folder_once_and_says_how_another_is_allowed(roots, tmp_path):
    several = (*roots, roots[0], roots[0] / "sub")
    with pytest.raises(ConfigError) as fault:
        confined("/etc/passwd", several, "Ask the owner.")
    assert f"({tmp_path / 'loras'}, {tmp_path / 'out'}). Ask the owner." in str(fault.value)
    with pytest.raises(ConfigError) as fault:
        confine_job(full_train("/etc/passwd", "/etc"), roots[:1], roots[1:], "Ask the owner.")
    base, output = fault.value.problems  # no hint where something would be written
    assert base.startswith("base") and "Ask the owner." in base and "Ask the owner." not in output


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("a./\\ ~:\0é\ud800")) | st.characters(), max_size=12))
def test_whatever_is_let_through_lies_below_a_root(path):
    roots = (Path("/allowed/one"), Path("/allowed/two"))
    try:
        found = confined(path, roots)
    except ConfigError:
        return
    assert any(below(str(found), str(root)) for root in roots) and ".." not in found.parts


@pytest.mark.parametrize("part", ["con", "NUL.txt", "COM1", "lpt9.x", "a:stream", "dots.", "space ", "aux.safetensors"])
def test_names_that_windows_takes_for_something_else(part):
    assert windows_fault(["folder", part])
    assert not windows_fault(["folder", "console.txt", ".", "a b", ".hidden"])


def test_links_that_the_owner_put_into_a_model_folder_may_be_allowed(roots, tmp_path):
    allowed = with_links(roots)
    assert tmp_path / "secret" in allowed
    assert confined("link/secret.txt", allowed) == tmp_path / "secret" / "secret.txt"
    with pytest.raises(ConfigError):
        confined(str(tmp_path / "loras2" / "x"), allowed)


def full_train(base, out):
    job = TrainJob(base=str(base), output_dir=str(out))
    values = {
        "folder": "pictures", "held_out": "held", "vae": "vae.pt", "start_from": "a.safetensors", "cache_dir": "cache",
        "work_dir": "work", "metadata_file": "meta.json", "base_loras": ("a.safetensors = 0.5", "b=c.safetensors"),
    }  # fmt: skip
    data = to_json(replace_by_name(job, values))
    data["dataset"]["subsets"] = [to_json(Subset("one")), to_json(Subset("two", masks="m", metadata_file="x.json"))]
    return from_json(TrainJob, data)


def test_every_path_of_a_training_is_confined(roots):
    job = confine_job(full_train("b.safetensors", "trained"), roots[:1], roots[1:])
    loras, out = (root.resolve() for root in roots)
    assert job.base == str(loras / "b.safetensors") and job.output_dir == str(out / "trained")
    assert job.dataset.folder == str(loras / "pictures") and job.dataset.held_out == str(loras / "held")
    assert [s.folder for s in job.dataset.subsets] == [str(loras / "one"), str(loras / "two")]
    assert job.network.start_from == str(loras / "a.safetensors") and job.vae == str(loras / "vae.pt")
    assert (job.dataset.subsets[0].masks, job.dataset.subsets[1].masks) == (None, str(loras / "m"))
    assert job.dataset.subsets[1].metadata_file == str(loras / "x.json")
    assert job.dataset.metadata_file == str(loras / "meta.json")
    assert job.network.base_loras == (f"{loras / 'a.safetensors'} = 0.5", str(loras / "b=c.safetensors"))
    assert job.work_dir == str(out / "work") and job.memory.cache_dir == str(out / "cache")


def test_a_shared_workflow_cannot_write_into_folders_that_are_only_read(roots):
    with pytest.raises(ConfigError) as fault:
        confine_job(full_train("/etc/passwd", roots[0]), roots[:1], roots[1:])
    assert [text.partition(":")[0] for text in fault.value.problems] == ["base", "output_dir"]


KEPT = ["remove.1", "remove.2", "remove.3"]
CASES = [
    (MergeJob((LoraUse("a.safetensors"), LoraUse("/etc/x")), output="/etc/y"), ["output", "loras.1.path"]),
    (GenerateJob(loras=(LoraUse("../x"),), lora_dirs=("/etc",), vae="/x"), ["lora_dirs.0", "vae", "loras.0.path"]),
    (InpaintJob(image="/etc/a.png", mask="/etc/b.png"), ["image", "mask"]),
    (ChooseJob(loras=("a", "/etc/b"), name="../../x"), ["loras.1", "name"]),
    (InspectJob("a.safetensors", picture="/etc/heat.png"), ["picture"]),
    (MetadataJob("/etc/a.safetensors", output="/etc/b"), ["lora", "output"]),
    (KeepJob("/etc/a", remove=("a", "/etc/b", "//server/x", ""), away="/etc"), ["away", "lora", *KEPT]),
    (TrainJob(name="a/b"), ["name"]),
    (TrainJob(name=".."), ["name"]),
]


@pytest.mark.parametrize(("job", "names"), CASES, ids=[type(job).__name__ for job, _ in CASES])
def test_the_faulty_fields_are_named(roots, job, names):
    with pytest.raises(ConfigError) as fault:
        confine_job(job, roots, roots)
    assert sorted(text.partition(":")[0] for text in fault.value.problems) == sorted(names)


def test_metadata_without_an_output_replaces_the_file_so_it_must_be_writable(roots):
    read, write = roots[:1], roots[1:]
    assert confine_job(MetadataJob("a.safetensors", output="b.safetensors"), read, write).lora.startswith(str(read[0]))
    with pytest.raises(ConfigError, match="lora"):
        confine_job(MetadataJob(str(read[0] / "a.safetensors")), read, write)


def test_keeping_a_save_changes_files_so_they_must_be_writable(roots):
    read, write = roots[:1], roots[1:]
    for name in ("a.safetensors", "b.safetensors"):
        (write[0] / name).touch()
    found = confine_job(KeepJob("a.safetensors", remove=("b.safetensors",), away="put"), read, write)
    assert (found.lora, found.remove, found.away) == (
        str(write[0] / "a.safetensors"), (str(write[0] / "b.safetensors"),), str(write[0] / "put"),
    )  # fmt: skip
    for job in (KeepJob(str(read[0] / "a")), KeepJob("a.safetensors", remove=(str(read[0] / "b"),))):
        with pytest.raises(ConfigError, match="outside"):
            confine_job(job, read, write)


NO_PATHS = {
    *("train.optimizer_args", "train.schedule_args", "train.preview_prompts"),
    *("choose.prompts", "choose.neutral_prompts", "merge.blocks", "merge-checkpoint.blocks"),
    *("metadata.assign", "metadata.remove"),
}


def test_every_list_of_texts_is_confined_or_known_to_hold_no_paths():
    seen = set()
    for kind, runner in RUNNERS.items():
        if not runner.job.__module__.startswith("lora_core."):
            continue
        for s in describe(runner.job):
            if s.type == tuple[str, ...]:
                job = replace_by_name(runner.job(), {s.name: ("one/where", "other/where")})
                confined_ones = [place.value for place in path_fields(job) if place.way[:-1] == s.path]
                expected = [] if f"{kind}.{s.name}" in NO_PATHS else ["one/where", "other/where"]
                assert confined_ones == expected, f"{kind}.{s.name}"
                seen.add(f"{kind}.{s.name}")
    assert seen >= NO_PATHS


def test_no_setting_that_looks_like_a_path_is_forgotten():
    """A new field whose name or help speaks of a file or folder must be one that `path_fields` sees."""
    wordy = ("folder", "file", "picture", "dir", "path", "checkpoint", "lora", "base", "vae")
    plain = {"name", "title", "dtype", "device", "loras", "picture_format", "save_every_epochs", "metadata"}
    for kind, runner in RUNNERS.items():
        if not runner.job.__module__.startswith("lora_core."):
            continue
        for s in describe(runner.job):
            if s.type is not str or s.declaration.choices or s.name in plain:
                continue
            if any(word in f"{s.name}".lower() for word in wordy):
                job = replace_by_name(runner.job(), {s.name: "some/where"})
                assert any(place.value == "some/where" for place in path_fields(job)), f"{kind}: {s.name}"
