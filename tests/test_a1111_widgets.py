"""The A1111 pages: widgets from declarations, values back to jobs; the pages themselves in the gradio of each host."""

import ast
import dataclasses
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "hosts"))

from fake_a1111 import extension  # noqa: E402
from web_packages import HOSTS, cases  # noqa: E402

from lora_core.errors import ConfigError  # noqa: E402
from lora_core.run import RUNNERS  # noqa: E402
from lora_core.settings import describe, leaf_values  # noqa: E402

extension()

from lora_loom_a1111 import fields, settings_page  # noqa: E402

PAGES = sorted((ROOT / "a1111_extension").glob("*.py"))
LANGUAGES = sorted((ROOT / "localizations").glob("*.json"))
SHOWN = ("train", "choose", "inpaint", "merge", "merge-checkpoint", "extract", "resize", "convert", "metadata")


@pytest.mark.parametrize("host", HOSTS)
def test_the_pages_in_the_gradio_of_the_host(host):
    done = cases(host, "gradio_pages.py")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("kind", sorted(RUNNERS))
def test_defaults_survive_the_page(kind):
    for s in describe(RUNNERS[kind].job):
        assert fields.from_page(s, fields.to_page(s, s.default)) == s.default, s.name


@pytest.mark.parametrize("kind", sorted(RUNNERS))
def test_a_slider_can_show_its_default_and_reach_its_bounds(kind):
    for s in describe(RUNNERS[kind].job):
        widget = fields.widget_of(s)
        if widget.kind == "slider":
            low, high, step = (widget.options[name] for name in ("minimum", "maximum", "step"))
            assert low == s.declaration.min and high == s.declaration.max
            stops = (s.default - low) / step
            assert abs(stops - round(stops)) < 1e-6, s.name


def setting_of(kind, name):
    return next(s for s in describe(RUNNERS[kind].job) if s.name == name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("seed", "text"),  # larger than a browser's whole numbers
        ("learning_rate", "number"),
        ("rank", "slider"),
        ("optimizer", "dropdown"),
        ("base", "checkpoint"),
        ("start_from", "lora"),
        ("buckets", "checkbox"),
        ("text_encoder_lr", "text"),  # may be empty
        ("preview_prompts", "text"),
    ],
)
def test_the_widget_fits_the_setting(name, kind):
    assert fields.widget_of(setting_of("train", name)).kind == kind


@pytest.mark.parametrize(
    ("kind", "name", "shown", "value"),
    [
        ("train", "text_encoder_lr", "", None),
        ("train", "text_encoder_lr", "1e-5", 1e-5),
        ("train", "preview_prompts", "one, two\n\n three ", ("one, two", "three")),
        ("train", "seed", str(2**63 - 1), 2**63 - 1),
        ("train", "steps", 12.0, 12),
        ("train", "steps", None, 0),
        ("choose", "strengths", "0.5, 1", (0.5, 1.0)),
        ("choose", "seeds", "1,2 , 3", (1, 2, 3)),
        ("train", "base", None, ""),
        ("metadata", "title", None, None),
    ],
)
def test_what_a_person_types_is_understood(kind, name, shown, value):
    found = fields.from_page(setting_of(kind, name), shown)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("shown", ["many", 1.5, "1.5", float("nan"), "1e400"])
def test_what_is_no_whole_number_is_refused_with_the_settings_name(shown):
    with pytest.raises(ConfigError, match=r"Steps \(steps\) must be a whole number"):
        fields.from_page(setting_of("train", "steps"), shown)


def test_the_settings_page_has_each_option_once_with_a_default_among_its_choices():
    names = [option.name for option in settings_page.OPTIONS]
    assert len(names) == len(set(names))
    assert {"lora_folder", "memory_plan", "metadata"} <= set(names)
    assert all(option.default in option.choices for option in settings_page.OPTIONS if option.choices)
    assert all(option.label and dataclasses.is_dataclass(option) for option in settings_page.OPTIONS)


def words_of_the_pages():
    """Labels, buttons and headings written in the pages' code."""
    found = set()
    for path in PAGES:
        if not path.name.startswith("tab"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                texts = [k.value for k in node.keywords if k.arg == "label"]
                texts += node.args[:1] if name in ("Button", "heading", "Tab") else []
                found |= {t.value for t in texts if isinstance(t, ast.Constant) and isinstance(t.value, str)}
    return found - {"go"}


def test_three_languages():
    assert {path.stem for path in LANGUAGES} == {"de_DE", "ja_JP", "zh_CN"}


@pytest.mark.parametrize("path", LANGUAGES, ids=lambda path: path.stem)
def test_the_pages_words_are_translated(path):
    table = json.loads(path.read_text("utf-8"))
    assert all(isinstance(text, str) and text.strip() for text in table.values())
    same = {"LoRA + LoRA", "Training", "LoRA", "3. Start"}
    missing = {word for word in words_of_the_pages() - table.keys() - same if not word.startswith("Load settings")}
    assert missing == set()


@pytest.mark.parametrize("path", LANGUAGES, ids=lambda path: path.stem)
def test_nearly_all_settings_are_translated(path):
    table = json.loads(path.read_text("utf-8"))
    labels = {s.declaration.label for kind in SHOWN for s in describe(RUNNERS[kind].job)}
    same = {"VAE", "LoRA", "Alpha", "Beta 1", "Beta 2", "Eta", "Clip skip", "Tags", "Sampler", "Prompt", "Prompts"}
    same |= {"Seed", "Seeds", "Name", "Zero terminal SNR", "Gradient Checkpointing", "Min-SNR gamma"}
    missing = labels - table.keys() - same
    assert len(missing) <= 0.15 * len(labels), sorted(missing)


def test_only_one_module_knows_the_host_and_one_knows_how_the_gradios_differ():
    for path in PAGES:
        tree = ast.parse(path.read_text("utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        imported |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        top = {name.partition(".")[0] for name in imported}
        assert "comfy_nodes" not in top and ("modules" not in top or path.name == "host.py"), path.name
        versions = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "__version__"]
        assert not versions or path.name in ("compat.py", "host.py"), path.name


def test_functions_and_files_stay_small():
    lengths = []
    for path in PAGES:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 300, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths.append(node.end_lineno - node.lineno + 1)
                assert len(node.args.args + node.args.kwonlyargs) <= 7, f"{path.name}: {node.name}"
    assert sorted(lengths)[int(len(lengths) * 0.9)] <= 25


def test_every_leaf_of_a_job_has_a_widget_kind():
    known = {"checkbox", "slider", "number", "text", "radio", "dropdown", "checkpoint", "lora"}
    for runner in RUNNERS.values():
        kinds = {fields.widget_of(s).kind for s in describe(runner.job)}
        assert kinds <= known and len(leaf_values(runner.job())) == len(describe(runner.job))
