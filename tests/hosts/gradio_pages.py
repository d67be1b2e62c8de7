"""Tests of the A1111 pages in the gradio of one host; test_a1111_widgets.py runs them with its interpreter."""

import base64
import dataclasses
import json
import math
import shutil
import time
from pathlib import Path

import gradio as gr
import pytest
import torch
from fake_a1111 import DEMO, FakeHost, extension
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_core.desk_store import Ticket
from lora_core.errors import ConfigError
from lora_core.jobs import ChooseJob, InpaintJob, TrainJob
from lora_core.jobs.files import ConvertJob, InspectJob, MetadataJob, RepairJob
from lora_core.jobs.generate import GenerateJob, LoraUse
from lora_core.jobs.tools import ExtractJob, MergeIntoCheckpointJob, MergeJob, ResizeJob
from lora_core.settings import leaf_values
from lora_core.tensor_writer import write_tensors

extension()

import page_texts  # noqa: E402
from lora_loom_a1111 import compat, tabs  # noqa: E402
from lora_loom_a1111.guard import Access  # noqa: E402
from lora_loom_a1111.page import Page  # noqa: E402

FOUR = compat.FOUR


class PaperDesk:
    """A desk that only writes down what it is handed."""

    def __init__(self):
        self.handed, self.written = [], {}

    def submit(self, job, title=""):
        faults = job.problems()
        if faults:
            raise ConfigError(faults)
        self.handed.append((job, title))
        return f"{len(self.handed):012x}"

    def job(self, id):
        return self.handed[int(id, 16) - 1][0]

    def tickets(self):
        return ()

    def ticket(self, id):
        return Ticket(id, "train", "", created=1.0)

    def files(self, id):
        """The paths that a test says a job wrote."""
        return tuple(map(str, self.written.get(id, ())))


class Built:
    """The whole tab over a fake host, its pages by name."""

    def __init__(self, root, held=None, beside=None, **options):
        self.host = FakeHost(root, PaperDesk(), **options)
        self.host.held, self.host.beside = held or {}, beside or {}
        made = {}
        for name, page in tabs.PAGES:
            made[name] = page
        self.pages = {}
        originals = tabs.PAGES
        tabs.PAGES = tuple((name, self.remembering(name, page)) for name, page in originals)
        try:
            [(self.blocks, self.title, self.elem_id)] = tabs.build(self.host)
        finally:
            tabs.PAGES = originals

    def remembering(self, name, page):
        def build(context):
            self.pages[name] = page(context)
            return self.pages[name]

        return build

    def data(self, *components):
        """What gradio hands to a handler: every component's value as its preprocessing gives it."""
        return {component: through_gradio(component, component.value) for component in components}

    @property
    def last(self):
        return self.host.desk.handed[-1][0]


def through_gradio(component, value):
    """A value shown by the component and sent back by the browser."""
    if isinstance(component, (gr.State, gr.HTML, gr.File)):
        return value
    shown = component.postprocess(value)
    shown = shown.model_dump() if hasattr(shown, "model_dump") else shown
    return component.preprocess(json.loads(json.dumps(shown)))


def value_of(update):
    return update["value"] if isinstance(update, dict) and "__type__" in update else update


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return Built(tmp_path_factory.mktemp("host"))


@pytest.fixture
def page(built):
    return built.pages


def test_the_tab_has_all_pages_and_each_id_once(built):
    assert (built.title, built.elem_id) == ("LoRA Loom", "lora_loom")
    labels = [b.label for b in built.blocks.blocks.values() if isinstance(b, gr.Tab)]
    assert [name for name in labels if name in dict(tabs.PAGES)] == list(dict(tabs.PAGES))
    ids = [b.elem_id for b in built.blocks.blocks.values() if getattr(b, "elem_id", None)]
    assert sorted(ids) == sorted(set(ids))
    assert all(b.do_not_save_to_config for b in built.blocks.blocks.values())


def test_gradio_writes_no_stubs_beside_our_modules(built):
    assert list(Path(compat.__file__).parent.glob("*.pyi")) == []


def test_it_can_be_put_into_another_blocks(tmp_path):
    made = Built(tmp_path)
    with gr.Blocks() as outer, gr.Tabs(), gr.Tab("LoRA Loom"):
        made.blocks.render()
    assert len(outer.get_config_file()["components"]) > 300


def test_every_text_of_the_page_is_translated(built):
    texts = page_texts.of_page(built.blocks, built.host) | page_texts.of_settings()
    texts |= page_texts.of_handlers() | page_texts.of_script()
    for language, table in page_texts.tables().items():
        assert sorted(texts - table.keys() - page_texts.names()) == [], language


def test_no_translation_is_of_a_text_that_is_gone(built):
    texts = page_texts.anywhere() | page_texts.of_page(built.blocks, built.host)
    for language, table in page_texts.tables().items():
        assert sorted(table.keys() - texts) == [], language


JOBS = [
    *(TrainJob, ChooseJob, InpaintJob, MergeJob, MergeIntoCheckpointJob, ExtractJob, ResizeJob, ConvertJob),
    *(MetadataJob, RepairJob, InspectJob, GenerateJob),
]


def form_of(job_class, host):
    with gr.Blocks():
        form = Page(host).form(job_class, "x")
        form.rest()
    return form


@pytest.mark.parametrize("job_class", JOBS)
def test_untouched_widgets_give_the_default_job(job_class, built):
    form = form_of(job_class, built.host)
    assert form.components.keys() == leaf_values(job_class()).keys()
    data = {component: through_gradio(component, component.value) for component in form.components.values()}
    assert form.job(data) == job_class()


def another(setting):
    """A value that is not the default, and allowed."""
    d, value = setting.declaration, setting.default
    if d.choices:
        return next(choice for choice in d.choices if choice != value)
    if d.widget in ("checkpoint", "lora"):
        return f"/somewhere/{setting.name}.safetensors"
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        inner = str(setting.type)
        return (3, 7) if "int" in inner else (0.25, 0.5) if "float" in inner else ("eins, zwei", "drei")
    number = value if isinstance(value, (int, float)) else 0 if d.max is not None else None
    if number is not None:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(d.max) if d.max is not None else value + 3
        return d.max if d.max is not None and math.isfinite(d.max) else number + 0.25
    return "Grün, 猫 = 1"


@pytest.mark.parametrize("job_class", JOBS)
def test_every_widget_shows_and_gives_back_another_value(job_class, built):
    form = form_of(job_class, built.host)
    for name, setting in form.settings.items():
        wanted = another(setting)
        updates = form.shown({name: wanted})
        component = form.components[name]
        data = {c: through_gradio(c, c.value) for c in form.components.values()}
        data[component] = through_gradio(component, value_of(updates[component]))
        assert leaf_values(form.job(data))[name] == wanted, name


def test_a_title_of_the_hosts_list_becomes_its_path(built):
    form = form_of(TrainJob, built.host)
    data = built.data(*form.components.values())
    data[form.components["base"]] = "demo_base"
    assert form.job(data).base == str(DEMO / "demo_base.safetensors")


def test_wrong_numbers_are_sentences_that_name_the_setting(built):
    form = form_of(TrainJob, built.host)
    data = built.data(*form.components.values())
    data[form.components["seed"]] = "many"
    data[form.components["text_encoder_lr"]] = "fast"
    with pytest.raises(ConfigError) as error:
        form.job(data)
    assert len(error.value.problems) == 2
    assert "Seed (seed) must be a whole number, not 'many'." in error.value.problems


# Train


def filled(built, **values):
    train = built.pages["Train"]
    data = built.data(*train.form.components.values(), train.goal, train.effort, train.low, train.carried)
    for name, value in values.items():
        data[train.form.components[name]] = value
    return train, data


@pytest.fixture
def pictures(tmp_path):
    for name, caption in (("a", "abc, red"), ("b", None)):
        Image.new("RGB", (80, 64), "red").save(tmp_path / f"{name}.png")
        if caption:
            (tmp_path / f"{name}.txt").write_text(caption, "utf-8")
    return tmp_path


def test_goal_effort_and_base_set_the_full_form(built, pictures):
    train, data = filled(built, folder=str(pictures), base="demo_base")
    data[train.goal], data[train.effort] = "Style", "Thorough"
    updates = train.wished(data)
    by_name = {name: updates[c] for name, c in train.form.components.items() if c in updates}
    assert value_of(by_name["conv_rank"]) == 16 and value_of(by_name["flip"]) is True
    assert "steps of 4 pictures" in updates[train.plan]


def test_the_learning_rate_follows_the_rank(built, pictures):
    train, data = filled(built, folder=str(pictures), base="demo_base", rank=32, alpha=8.0, learning_rate=5e-4)
    data[train.sized] = {"rank": 16, "alpha": 8.0, "conv_rank": 0, "conv_alpha": 1.0, "rs_lora": False}
    updates = train.resized(data)
    assert float(value_of(updates[train.form.components["learning_rate"]])) == 1e-3
    assert updates[train.sized]["rank"] == 32 and "0.001 instead of 0.0005" in updates[train.start_said.said]
    data[train.sized] = updates[train.sized]
    data[train.form.components["learning_rate"]] = 1e-3
    assert train.start_said.said not in train.resized(data)


def test_looking_at_a_folder_reports_and_shows_cards(built, pictures):
    train, data = filled(built, folder=str(pictures), base="demo_base")
    updates = train.looked(data)
    assert "<b>2</b><span>pictures" in updates[train.report] and "1 / 2" in updates[train.report]
    assert updates[train.cards].count("<textarea") == 2 and "data:image/jpeg" in updates[train.cards]
    assert "Captions (1 / 2)" in updates[train.fold]["label"]


def test_captions_are_saved_from_the_page(built, pictures):
    train, data = filled(built, folder=str(pictures))
    data[train.save_captions.text] = json.dumps({"b.png": "abc, <b>blue</b>"})
    updates = train.captions_saved(data)
    assert (pictures / "b.txt").read_text("utf-8") == "abc, <b>blue</b>\n"
    assert "&lt;b&gt;blue" in updates[train.cards] and "<b>blue" not in updates[train.cards]


def test_dropped_pictures_are_kept_and_looked_at(built, pictures):
    train, data = filled(built, base="demo_base")
    data[train.files] = [str(p) for p in sorted(pictures.iterdir())]
    updates = train.dropped(data)
    folder = value_of(updates[train.form.components["folder"]])
    assert folder.startswith(str(built.host.data_folder())) and "1 / 2" in updates[train.report]


def test_the_start_hands_over_the_job_that_is_shown(built, pictures):
    train, data = filled(built, folder=str(pictures), base="demo_base", trigger="abc", width=64, height=64, steps=3)
    updates = train.started(data)
    job = built.last
    assert (job.dataset.folder, job.captions.trigger, job.name, job.length.steps) == (str(pictures), "abc", "abc", 3)
    assert job.output_dir == str(built.host.lora_folders()[0])
    assert not job.work_dir.startswith(job.output_dir)
    assert "3 steps" in updates[train.plan] and "GB of memory" in updates[train.plan]


def test_a_start_without_pictures_is_a_sentence_in_the_page(built):
    train, data = filled(built, base="demo_base")
    with pytest.raises(ConfigError, match="No pictures are named"):
        train.started(data)
    run = handler(built.blocks, train.start)
    updates = run(data)
    assert 'class="loom-error"' in updates[train.start_said.said] and "Traceback" not in str(updates)


def handler(blocks, button):
    """The function that a click on the button runs."""
    if isinstance(blocks.fns, dict):
        return next(fn.fn for fn in blocks.fns.values() if any(t[0] == button._id for t in fn.targets))
    return next(fn.fn for fn, d in zip(blocks.fns, blocks.dependencies) if button._id in d["targets"])


def test_the_demo_and_settings_of_old_jobs_fill_the_form(built):
    train, data = filled(built)
    updates = train.demo_filled(data)
    for component, update in updates.items():
        if component in data:
            data[component] = value_of(update)
    train.started(data)
    job = built.last
    assert job.name == "demo_character" and len(job.dataset.subsets) == 1 and job.length.steps == 200
    data[train.reuse.text] = f"{len(built.host.desk.handed):012x}"
    again = train.reused(data)
    assert value_of(again[train.form.components["learning_rate"]]) == job.optimization.learning_rate


def test_kohyas_settings_are_loaded_and_what_is_not_understood_is_said(built, tmp_path):
    (tmp_path / "kohya.toml").write_text('network_dim = 24\nlearning_rate = 2e-4\nlogging_dir = "x"\n', "utf-8")
    train, data = filled(built)
    data[train.file] = [str(tmp_path / "kohya.toml")]
    updates = train.loaded(data)
    assert value_of(updates[train.form.components["rank"]]) == 24
    assert "logging_dir" in updates[train.plan]


def test_a_training_like_a_lora_keeps_the_pictures_and_tells_what_changes(built, tmp_path, pictures):
    told = {"ss_learning_rate": "0.0002", "ss_max_train_steps": "300", "ss_network_dim": "24", "ss_network_alpha": "12"}
    write_tensors(tmp_path / "x.safetensors", {"lora_unet_a.lora_down.weight": torch.ones(2, 2)}, told)
    train, data = filled(built, folder=str(pictures), base="demo_base", rank=16)
    data[train.file] = [str(tmp_path / "x.safetensors")]
    updates = train.loaded(data)
    assert value_of(updates[train.form.components["rank"]]) == 24
    assert value_of(updates[train.form.components["folder"]]) == str(pictures)
    assert "Rank: 24, before 16." in updates[train.plan] and "Steps: 300, before 0." in updates[train.plan]


def test_on_a_public_server_only_the_hosts_folders_are_read(tmp_path, pictures):
    built = Built(tmp_path / "host")
    built.host.access = lambda sessions: dataclasses.make_dataclass("Access", ["public"])(True)
    train, data = filled(built, folder=str(pictures), base="demo_base")
    with pytest.raises(ConfigError):
        train.looked(data)


# Files


@pytest.fixture
def two_loras(built):
    from lora_core.families import reference
    from lora_core.keys import lora_targets
    from lora_core.lora import Lora, LoraModule
    from lora_core.lora_file import write_lora

    torch = pytest.importorskip("torch")
    arch = reference("sd1")
    targets = lora_targets(arch)[:3]
    paths = []
    for number in range(2):
        path = built.host.lora_folders()[0] / f"lora_{number}.safetensors"
        torch.manual_seed(number)
        modules = {
            key.canonical: LoraModule(torch.randn(4, key.shape[1]), torch.randn(key.shape[0], 4), 4.0)
            for key in targets
        }
        if not path.exists():
            write_lora(path, Lora(modules, {}, "sd1"), arch, torch.float16, {"ss_output_name": path.stem})
        paths.append(path)
    return paths


def test_merging_hands_over_the_loras_with_their_strengths(built, two_loras):
    merge = built.pages["Merge"]
    tool = merge.merge
    data = built.data(*tool.form.components.values(), *tool.rows.names, *tool.rows.strengths)
    data[tool.rows.names[0]], data[tool.rows.names[1]] = "lora_0", "lora_1"
    data[tool.rows.strengths[1]] = -0.5
    data[tool.form.components["output"]] = "both"
    merge.started(tool, data)
    assert built.last.loras == (LoraUse(str(two_loras[0]), 1.0), LoraUse(str(two_loras[1]), -0.5))
    assert built.last.output == str(built.host.lora_folders()[0] / "both.safetensors")


def test_the_library_lists_inspects_and_edits(built, two_loras):
    library = built.pages["Library"]
    data = built.data(library.search, *library.metadata.components.values())
    shelf = library.searched(data)[library.shelf]
    assert 'data-value="lora_0"' in shelf and 'data-value="lora_1"' in shelf and "rank 4" in shelf
    data[library.pick.text] = "lora_1"
    updates = library.picked(data)
    assert "A1111" in updates[library.facts] and updates[library.chosen] == "lora_1"
    data |= {library.chosen: "lora_1", library.stated: updates[library.stated], library.cover: None}
    data[library.metadata.components["trigger"]] = "abc"
    library.written(data)
    assert built.last == MetadataJob(lora=str(two_loras[1]), trigger="abc")
    library.measured(data)
    assert built.last.numbers and built.last.picture.endswith("lora_1.png")


def test_a_preview_picture_is_kept_where_jobs_may_read_it(built, two_loras, tmp_path, monkeypatch):
    monkeypatch.setattr(built.host, "access", lambda sessions: Access(public=True))
    library = built.pages["Library"]
    data = built.data(*library.metadata.components.values())
    cover = tmp_path / "image.png"
    Image.new("RGB", (8, 8), "red").save(cover)
    library.written({**data, library.chosen: "lora_1", library.stated: {}, library.cover: str(cover)})
    kept = built.host.data_folder() / "uploads" / "covers" / "image.png"
    assert built.last.cover == str(kept) and kept.read_bytes() == cover.read_bytes()


@pytest.fixture
def public(built, tmp_path, monkeypatch):
    """A server that others reach, and what the page Train sends for pictures outside the host's folders."""
    monkeypatch.setattr(built.host, "access", lambda sessions: Access(public=True))
    train = built.pages["Train"]
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    data = built.data(*train.form.components.values(), train.goal, train.effort, train.low)
    data |= {train.carried: "", train.form.components["folder"]: str(tmp_path)}
    return data | {train.form.components["base"]: str(DEMO / "demo_base.safetensors")}


@pytest.mark.parametrize("what", ["looked", "wished", "checked", "started", "captions_saved", "turned"])
def test_where_others_reach_the_server_a_page_looks_only_into_the_hosts_folders(built, public, what):
    train = built.pages["Train"]
    data = {**public, train.save_captions.text: '{"a.png": "x"}', train.turn.text: "0"}
    with pytest.raises(ConfigError, match="outside the folders"):
        getattr(train, what)(data)
    assert not (Path(data[train.form.components["folder"]]) / "a.txt").exists()


@pytest.mark.parametrize("what", ["checked", "started"])
@pytest.mark.parametrize("name", ["optimizer_class", "schedule_class"])
def test_a_class_of_an_unknown_package_is_told_before_the_start(built, what, name):
    train = built.pages["Train"]
    data = built.data(*train.form.components.values()) | {train.carried: ""}
    with pytest.raises(ConfigError, match=f"{name}.*pages and requests may name"):
        getattr(train, what)({**data, train.form.components[name]: "antigravity.X"})


def test_where_others_reach_the_server_no_file_outside_is_examined(built, public, two_loras, tmp_path):
    train, library = built.pages["Train"], built.pages["Library"]
    shutil.copy(two_loras[0], tmp_path / "secret.safetensors")
    inside = {train.form.components["folder"]: str(built.host.data_folder())}
    for path in (tmp_path / "secret.safetensors", tmp_path / "nothing.safetensors"):
        with pytest.raises(ConfigError, match="outside the folders"):
            library.picked({library.pick.text: str(path), library.search: ""})
        with pytest.raises(ConfigError, match="outside the folders"):
            train.wished({**public, **inside, train.form.components["base"]: str(path)})


def test_a_file_that_is_no_lora_is_shown_with_the_reason(built):
    path = built.host.lora_folders()[0] / "broken.safetensors"
    path.write_bytes(b"nothing")
    library = built.pages["Library"]
    shelf = library.searched({library.search: "broken"})[library.shelf]
    assert 'class="loom-bad"' in shelf
    path.unlink()


def save_of(session, path):
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{key}.lora_down.weight": torch.ones(2, 320), f"{key}.lora_up.weight": torch.ones(320, 2)}
    write_tensors(path, {**factors, f"{key}.alpha": torch.tensor(2.0)}, {"ss_session_id": session})


@pytest.fixture
def armins(built, tmp_path, monkeypatch):
    """Two trainings of one name, the second of which found its names taken; the page Choose knows both."""
    folder, choose, desk = tmp_path / "loras", built.pages["Choose"], built.host.desk
    folder.mkdir()
    ids = {}
    for session, names in (("1", ("armin-000008", "armin")), ("2", ("armin-000008-2", "armin-000016", "armin-2"))):
        for name in names:
            save_of(session, folder / f"{name}.safetensors")
        job = TrainJob(base="x", name="armin", output_dir=str(folder))
        job = dataclasses.replace(job, captions=dataclasses.replace(job.captions, trigger="abc"))
        desk.handed.append((job, "armin"))
        ids[session] = f"{len(desk.handed):012x}"
        desk.written[ids[session]] = [folder / f"{names[-1]}.safetensors"]
    save_of("1", folder / "other.safetensors")
    monkeypatch.setattr(choose, "trainings", lambda: ids)
    return folder


def test_the_save_that_is_kept_says_its_strength_and_the_others_are_put_away(built, armins):
    choose = built.pages["Choose"]
    updates = choose.chosen({choose.training: "1"})
    assert updates[choose.saves]["value"] == ["armin-000008.safetensors", "armin.safetensors"]
    updates = choose.picked_save({choose.pick.text: "0.8 armin-000008.safetensors"})
    choose.kept_one({choose.training: "1", **updates})
    assert sorted(path.name for path in armins.iterdir()) == [
        "armin-000008-2.safetensors", "armin-000008.json", "armin-000008.safetensors", "armin-000016.safetensors",
        "armin-2.safetensors", "other.safetensors",
    ]  # fmt: skip
    card = json.loads((armins / "armin-000008.json").read_text("utf-8"))
    assert card["preferred weight"] == 0.8 and card["activation text"] == "abc"
    assert (built.host.data_folder() / "put_away" / "armin" / "armin.safetensors").is_file()


def test_only_the_saves_of_the_shown_training_are_compared_and_put_away(built, armins):
    choose = built.pages["Choose"]
    updates = choose.chosen({choose.training: "2"})
    seconds = ["armin-000008-2.safetensors", "armin-000016.safetensors", "armin-2.safetensors"]
    assert updates[choose.saves]["value"] == seconds and updates[choose.kept]["value"] == seconds[-1]
    for strange in (
        "armin.safetensors",
        "other.safetensors",
        "../armin.safetensors",
        str(armins / "armin-2.safetensors"),
    ):
        with pytest.raises(ConfigError, match="not among the saves"):
            choose.kept_one({choose.training: "2", choose.kept: strange, choose.strength: 1})
        with pytest.raises(ConfigError, match="not among the saves"):
            choose.started({choose.training: "2", choose.saves: [strange]})
    choose.kept_one({choose.training: "2", choose.kept: "armin-000016.safetensors", choose.strength: 1})
    assert sorted(path.name for path in armins.glob("*.safetensors")) == [
        "armin-000008.safetensors", "armin-000016.safetensors", "armin.safetensors", "other.safetensors"
    ]  # fmt: skip


def test_settings_begin_as_the_hosts_settings_page_says(tmp_path):
    train = Built(tmp_path, metadata="minimal").pages["Train"]
    assert train.form.components["metadata"].value == "minimal"


# Inpaint and recipes


def painting(size=(64, 64), box=(16, 16, 40, 40)):
    """What the editor of this gradio hands over when something is painted."""
    picture = Image.new("RGBA", size, "blue")
    if FOUR:
        layer = Image.new("RGBA", size, (0, 0, 0, 0))
        layer.paste((255, 255, 255, 255), box)
        return {"background": picture, "layers": [layer], "composite": picture}
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((255, 255, 255, 255), box)
    return {"image": picture, "mask": mask}


def test_painting_makes_a_mask_of_exactly_what_was_painted():
    picture, mask = compat.painted(painting())
    assert picture.size == mask.size == (64, 64) and mask.mode == "L"
    assert mask.getbbox() == (16, 16, 40, 40) and mask.getpixel((20, 20)) == 255
    assert compat.painted(painting(box=(0, 0, 0, 0)))[1] is None
    assert compat.painted(None) == (None, None)


def test_several_layers_are_painted_together():
    if not FOUR:
        pytest.skip("gradio 3.41 has one layer")
    one, two = painting(box=(0, 0, 8, 8)), painting(box=(20, 20, 30, 30))
    mask = compat.painted({**one, "layers": one["layers"] + two["layers"]})[1]
    assert mask.getpixel((4, 4)) == 255 and mask.getpixel((25, 25)) == 255 and mask.getpixel((15, 15)) == 0


def test_inpainting_hands_over_picture_mask_and_a1111s_choices(built):
    inpaint = built.pages["Inpaint"]
    data = built.data(*inpaint.form.components.values())
    data |= {inpaint.editor.target: painting(), inpaint.mask: None}
    for name, shown in (
        ("prompt", "a cat <lora:x:1>"), ("mask_invert", "Inpaint not masked"), ("inpaint_area", "Only masked"),
        ("masked_content", "latent noise"), ("sampler", "DPM++ 2M"), ("resize_mode", "Crop and resize"), ("seed", "7"),
    ):  # fmt: skip
        component = inpaint.form.components[name]
        data[component] = through_gradio(component, shown)
    data[inpaint.form.components["base"]] = "demo_base"
    inpaint.started(data)
    job = built.last
    assert isinstance(job, InpaintJob) and job.mask_invert and job.inpaint_area == "only masked"
    assert (job.masked_content, job.sampler, job.resize_mode, job.seed) == (
        "latent noise",
        "dpmpp_2m",
        "crop and resize",
        7,
    )
    assert Image.open(job.mask).getbbox() == (16, 16, 40, 40) and Image.open(job.image).size == (64, 64)
    assert job.lora_dirs == tuple(map(str, built.host.lora_folders()))


def test_nothing_painted_is_a_sentence(built):
    inpaint = built.pages["Inpaint"]
    data = built.data(*inpaint.form.components.values())
    data |= {inpaint.editor.target: None, inpaint.mask: None}
    with pytest.raises(ConfigError, match="no picture"):
        inpaint.started(data)
    data[inpaint.editor.target] = painting(box=(0, 0, 0, 0))
    with pytest.raises(ConfigError, match="Nothing is painted"):
        inpaint.started(data)


def white_in(size, box, path):
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    mask.save(path)
    return str(path)


def test_a_masks_file_counts_besides_what_is_painted(built, tmp_path):
    inpaint = built.pages["Inpaint"]
    data = built.data(*inpaint.form.components.values())
    given = white_in((64, 64), (0, 0, 8, 8), tmp_path / "mask.png")
    data |= {inpaint.editor.target: painting(), inpaint.mask: given, inpaint.form.components["base"]: "demo_base"}
    inpaint.started(data)
    with Image.open(built.last.mask) as mask:
        assert mask.getbbox() == (0, 0, 40, 40) and mask.getpixel((12, 12)) == 0
    data[inpaint.editor.target] = painting(box=(0, 0, 0, 0))
    inpaint.started(data)
    assert Image.open(built.last.mask).getbbox() == (0, 0, 8, 8)
    data[inpaint.mask] = white_in((64, 32), (0, 0, 8, 8), tmp_path / "flat.png")
    with pytest.raises(ConfigError, match="64 x 32 pixels, the picture 64 x 64"):
        inpaint.started(data)


IMG2IMG = {
    "prompt": "a cat", "negative_prompt": "dog", "steps": 9, "sampler": "DPM++ 2M", "scheduler": "Karras", "seed": 7,
    "width": 96, "height": 64, "cfg_scale": 5.5, "denoising_strength": 0.4, "mask_blur": 8, "mask_invert": 1,
    "masked_content": 2, "inpaint_area": 1, "only_masked_padding": 12, "resize_mode": 2,
}  # fmt: skip


def test_picture_mask_and_settings_come_from_img2img(tmp_path):
    """On A1111 the mask is in the picture's value, on Forge in a field of its own."""
    two_fields = FOUR
    names = [*IMG2IMG, "picture", "painted", *(["painted mask"] if two_fields else [])]
    with gr.Blocks():
        held = {name: gr.Textbox() for name in names}
    built = Built(tmp_path, held=held)
    inpaint = built.pages["Inpaint"]
    plain, marked = Image.new("RGBA", (96, 64), "green"), painting((96, 64))
    values = {**IMG2IMG, "picture": plain, "painted": marked}
    if two_fields:
        values |= {"painted": marked["background"], "painted mask": marked["layers"][0]}
    data = {component: values[name] for name, component in held.items()}
    updates = inpaint.taken({**data, inpaint.taking.text: "inpaint"})
    assert updates[inpaint.mask].getbbox() == (16, 16, 40, 40) and updates[inpaint.mask].mode == "L"
    shown = built.data(*inpaint.form.components.values())
    for component in inpaint.form.components.values():
        if component in updates:
            shown[component] = through_gradio(component, value_of(updates[component]))
    found = inpaint.form.values({**shown, inpaint.form.components["base"]: "demo_base"})
    choices = {"sampler": "dpmpp_2m", "scheduler": "karras", "mask_invert": True, "masked_content": "latent noise"}
    choices |= {"inpaint_area": "only masked", "resize_mode": "resize and fill"}
    assert {name: found[name] for name in IMG2IMG} == {**IMG2IMG, **choices}
    updates = inpaint.taken({**data, inpaint.taking.text: "picture"})
    assert updates[inpaint.mask] is None
    picture = updates[inpaint.editor.target]
    assert (picture["background"] if FOUR else picture) is plain
    with pytest.raises(ConfigError, match="no picture in img2img"):
        inpaint.taken({**data, held["picture"]: None, held["painted"]: None, inpaint.taking.text: "picture"})


def test_without_img2img_nothing_is_offered(built):
    inpaint = built.pages["Inpaint"]
    assert not inpaint.take.visible and not any(button.visible for button in inpaint.takes.values())


def test_a_picture_comes_from_extras_and_with_its_settings_from_png_info(tmp_path):
    names = ("extras results", "extras picture", "pnginfo picture", "pnginfo text")
    with gr.Blocks():
        beside = {name: gr.Textbox() for name in names}
    built = Built(tmp_path, beside=beside)
    inpaint = built.pages["Inpaint"]
    assert all(button.visible for button in inpaint.takes.values())
    larger, source, told = (Image.new("RGB", (side, 64), "green") for side in (256, 128, 96))
    data = dict(zip(beside.values(), ([larger], source, told, PARAMETERS)))

    def taken(page, **changed):
        updates = inpaint.taken_from(
            page, {**data, **{beside[name.replace("_", " ")]: v for name, v in changed.items()}}
        )
        target = updates.pop(inpaint.editor.target)
        assert updates[inpaint.mask] is None
        return updates, target["background"] if FOUR else target

    updates, picture = taken("extras")
    assert picture is larger and inpaint.form.components["prompt"] not in updates
    assert taken("extras", extras_results=None)[1] is source
    updates, picture = taken("pnginfo")
    assert picture is told and value_of(updates[inpaint.form.components["prompt"]]) == "a cat"
    assert value_of(updates[inpaint.form.components["sampler"]]) == "Euler a"
    updates, picture = taken("pnginfo", pnginfo_text="")
    assert picture is told and inpaint.form.components["prompt"] not in updates
    with pytest.raises(ConfigError, match="no picture in PNG Info"):
        taken("pnginfo", pnginfo_picture=None)


def test_the_host_can_paste_into_inpaint_and_gets_its_results(built):
    image, fields = built.host.targets["lora_loom_inpaint"]
    assert image is built.pages["Inpaint"].editor.target
    keys = {key for _, key in fields if isinstance(key, str)}
    assert {"Prompt", "Negative prompt", "Steps", "CFG scale", "Seed", "Size-1", "Denoising strength"} <= keys
    sampler = next(f for c, f in fields if c is built.pages["Inpaint"].form.components["sampler"])
    assert sampler({"Sampler": "k_euler_a"}) == "Euler a" and sampler({"Sampler": "Unknown"}) is None
    assert {"img2img", "inpaint", "extras"} <= {tab for _, tab, _, _ in built.host.sends}


def test_a_picture_of_a1111_becomes_a_recipe_and_goes_on(built, tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a cat\nNegative prompt: dog\nSteps: 9, Sampler: Euler a, CFG scale: 6.5, Seed: 42, "
                  "Size: 128x64, Model: demo_base")  # fmt: skip
    path = tmp_path / "made.png"
    Image.new("RGB", (128, 64)).save(path, pnginfo=info)
    shutil.copy(DEMO / "demo_base.safetensors", built.host.checkpoint_folders()[0] / "demo_base.safetensors")
    recipes = built.pages["Recipes"]
    data = {recipes.picture: str(path)}
    updates = recipes.dropped(data)
    assert "Euler a" in updates[recipes.told] and updates[recipes.text].startswith("a cat\nNegative prompt: dog\n")
    data[recipes.recipe] = updates[recipes.recipe]
    recipes.drawn(data)
    job = built.last
    assert (job.prompt, job.steps, job.cfg_scale, job.seed, job.width, job.height) == ("a cat", 9, 6.5, 42, 128, 64)
    inpaint = built.pages["Inpaint"]
    sent = recipes.to_our_inpaint(data)
    assert value_of(sent[inpaint.form.components["sampler"]]) == "Euler a"
    previews = built.pages["Train"].form.components["preview_prompts"]
    data[previews] = "first"
    assert recipes.as_preview(data)[previews] == "first\na cat"
    data[recipes.recipe] = {"kind": "generate", "job": {"prompt": "a <lora:old:0.8> dog<lora:x:no>"}}
    assert recipes.as_preview(data)[previews] == "first\na dog"  # no LoRA but the one that learns


PARAMETERS = (
    "a cat\nNegative prompt: dog\nSteps: 9, Sampler: Euler a, CFG scale: 6.5, Seed: 42, Size: 128x64, Model: demo_base"
)


def comfyui_picture(path):
    """A picture of ComfyUI's own nodes with a LoRA's file between model and sampler."""
    sampled = {"seed": 7, "steps": 20, "cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    strengths = {"strength_model": 0.8, "strength_clip": 0.8}
    links = {"model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    nodes = {
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "demo_base.safetensors"}),
        "10": ("LoraLoader", {"lora_name": "lora_0.safetensors", **strengths, "model": ["4", 0], "clip": ["4", 1]}),
        "5": ("EmptyLatentImage", {"width": 512, "height": 512, "batch_size": 1}),
        "6": ("CLIPTextEncode", {"text": "a photo", "clip": ["10", 1]}),
        "7": ("CLIPTextEncode", {"text": "blurry", "clip": ["10", 1]}),
        "3": ("KSampler", {**sampled, **links}),
        "8": ("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
        "9": ("SaveImage", {"filename_prefix": "x", "images": ["8", 0]}),
    }
    graph = {number: {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in nodes.items()}
    info = PngInfo()
    info.add_text("prompt", json.dumps(graph))
    Image.new("RGB", (512, 512)).save(path, pnginfo=info)
    return str(path)


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("1.10", "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7"),
        ("1.6", "Sampler: DPM++ 2M Karras, CFG scale: 7"),
    ],
)
def test_a_picture_of_comfyui_goes_on_with_its_lora_and_model(built, two_loras, tmp_path, monkeypatch, version, named):
    widgets = {"sampler": None, **({"scheduler": None} if version == "1.10" else {})}
    monkeypatch.setattr(built.host, "held", widgets)
    recipes, inpaint = built.pages["Recipes"], built.pages["Inpaint"]
    data = {recipes.picture: comfyui_picture(tmp_path / "comfy.png")}
    updates = recipes.dropped(data)
    told = updates[recipes.text].splitlines()
    assert told[:2] == ["a photo<lora:lora_0:0.8>", "Negative prompt: blurry"]
    assert f"Steps: 20, {named}, Seed: 7" in told[2] and "Model: demo_base" in told[2]
    assert "&lt;lora:lora_0:0.8&gt;" in updates[recipes.told]
    sent = recipes.to_our_inpaint({**data, recipes.recipe: updates[recipes.recipe]})
    assert value_of(sent[inpaint.form.components["prompt"]]) == "a photo<lora:lora_0:0.8>"


def test_a_hires_picture_can_be_inpainted(built, tmp_path):
    """Its size counts, not that of the first pass, and nothing asks for a second pass over a picture."""
    info = PngInfo()
    info.add_text("parameters", f"{PARAMETERS}, Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: Latent")
    Image.new("RGB", (256, 128)).save(tmp_path / "hires.png", pnginfo=info)
    recipes, inpaint = built.pages["Recipes"], built.pages["Inpaint"]
    data = {recipes.picture: str(tmp_path / "hires.png")}
    data[recipes.recipe] = recipes.dropped(data)[recipes.recipe]
    assert data[recipes.recipe]["job"]["hires"]["hires_scale"] == 2
    shown = built.data(*inpaint.form.components.values())
    for component, update in recipes.to_our_inpaint(data).items():
        if component in shown:
            shown[component] = through_gradio(component, value_of(update))
    shown |= {inpaint.editor.target: painting((256, 128)), inpaint.mask: None}
    shown[inpaint.form.components["base"]] = "demo_base"
    inpaint.started(shown)
    assert (built.last.width, built.last.height, built.last.hires.hires_scale) == (256, 128, 1)
    assert not [name for name in inpaint.form.components if name.startswith("hires")]


def test_old_combined_names_are_pasted_into_sampler_and_schedule(built):
    fields, form = built.host.targets["lora_loom_inpaint"][1], built.pages["Inpaint"].form
    sampler, schedule = (next(f for c, f in fields if c is form.components[n]) for n in ("sampler", "scheduler"))
    assert sampler({"Sampler": "DPM++ 2M Karras"}) == "DPM++ 2M"
    assert schedule({"Sampler": "DPM++ 2M Karras", "Schedule type": "Automatic"}) == "Karras"
    assert schedule({"Sampler": "DPM++ 2M", "Schedule type": "Exponential"}) == "Exponential"
    assert schedule({"Sampler": "Euler"}) is None


def with_parameters(path):
    """A JPEG or WebP with its parameters where A1111 writes them: in EXIF's user comment."""
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"UNICODE\0" + PARAMETERS.encode("utf_16_be")}
    Image.new("RGB", (128, 64), "red").save(path, exif=exif)
    return path


def sent(component, path):
    """A dropped file as the browser sends it, and as the component hands it over."""
    if FOUR:
        return component.preprocess(component.data_model(path=str(path), orig_name=path.name))
    kind = path.suffix[1:]
    return component.preprocess(f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")


@pytest.mark.parametrize("name", ["made.jpeg", "made.webp"])
def test_the_recipe_in_exif_arrives_with_the_picture(built, tmp_path, name):
    recipes, path = built.pages["Recipes"], with_parameters(tmp_path / name)
    handed = sent(recipes.picture, path)
    updates = recipes.dropped({recipes.picture: handed})
    assert "Euler a" in updates[recipes.told] and updates[recipes.text] == PARAMETERS
    with open(handed, "rb") as file:
        assert file.read() == path.read_bytes()


def test_what_arrives_in_place_of_a_picture_is_a_sentence(built, tmp_path, monkeypatch):
    if FOUR:
        pytest.skip("gradio 4 uploads files and bounds them itself")
    component = built.pages["Recipes"].picture
    assert component.get_block_name() == "image" and component.preprocess(None) is None
    with pytest.raises(gr.Error, match="did not arrive whole"):
        component.preprocess("data:image/png;base64,abc")
    assert component.preprocess("data:text/html;base64,PGI+").endswith("picture.bin")
    monkeypatch.setattr(compat, "MAX_PICTURE_BYTES", 100)
    with pytest.raises(gr.Error, match="too large"):
        sent(component, with_parameters(tmp_path / "made.jpeg"))


# Doctor, and real jobs through a real desk


def test_the_doctor_tells_its_findings_as_they_come(built, monkeypatch):
    from lora_core import doctor

    found = [doctor.Finding("python", True, "3.11"), doctor.Finding("engine", False, "missing <b>")]
    monkeypatch.setattr(doctor, "findings", lambda: iter(found))
    said = list(built.pages["Doctor"].examined())
    assert "python" in said[1] and "engine" not in said[1]
    assert "missing &lt;b&gt;" in said[-1] and "1 of 2 need attention" in said[-1]


def test_the_installers_fault_is_a_sentence(built, monkeypatch):
    from lora_core import overlay_install
    from lora_core.errors import EngineMissing

    def prepare(installer):
        installer.say("Fetching ...")
        raise EngineMissing("No network.")

    monkeypatch.setattr(overlay_install, "prepare", prepare)
    said = list(built.pages["Doctor"].installed())
    assert "Fetching" in said[0] and 'loom-error">No network.' in said[-1]


def test_a_merge_through_the_real_desk_lands_in_the_library(tmp_path, two_loras):
    root = tmp_path / "host"
    host = FakeHost(root)
    try:
        for path in two_loras:
            shutil.copy(path, host.lora_folders()[0] / path.name)
        page = Page(host)
        uses = tuple(LoraUse(choice.path, 0.5) for choice in host.loras())
        id = page.submit(MergeJob(loras=uses, output=str(host.lora_folders()[0] / "both.safetensors")), "both")
        end = time.monotonic() + 60
        while not host.desk.ticket(id).over and time.monotonic() < end:
            host.desk.wait(id, 10**9, 0.2)
        shown = host.desk.snapshot(id)
        assert shown["state"] == "done", shown["error"]
        assert "both" in [choice.title for choice in host.loras()]
    finally:
        host.desk.close(5)
