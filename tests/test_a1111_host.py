import ast
import contextlib
import gc
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(Path(__file__).parent / "hosts"))

from fake_a1111 import extension  # noqa: E402
from fake_modules import Model, Modules, OptionInfo  # noqa: E402
from toy_runner import ToyJob  # noqa: E402

from lora_core.desk import Desk  # noqa: E402
from lora_core.errors import ConfigError  # noqa: E402
from lora_core.events import HELD, Finished, Saved  # noqa: E402
from lora_core.jobs import ChooseJob, GenerateJob, TrainJob  # noqa: E402
from lora_core.jobs.files import MetadataJob  # noqa: E402
from lora_core.jobs.tools import MergeIntoCheckpointJob, MergeJob  # noqa: E402
from lora_core.remote import Child  # noqa: E402

package = extension()

from lora_loom_a1111 import host_models, host_pages, settings_page, webui  # noqa: E402

TOYS = Child(overlay=(str(Path(__file__).parent),), imports=("toy_runner",))


@pytest.fixture
def modules(tmp_path, monkeypatch):
    return Modules(tmp_path / "webui").install(monkeypatch)


@pytest.fixture
def ui(modules):
    for option in settings_page.OPTIONS:
        host_pages.add_option(replace(option, choices=()))
    ui = webui.WebUI()
    yield ui
    if "desk" in ui.__dict__:
        ui.desk.close(5)


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_only_host_py_imports_the_webui():
    for path in (ROOT / "a1111_extension").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        assert not {name for name in names if name.partition(".")[0] in ("modules", "networks", "backend")}, path
        assert ("import_module" in path.read_text("utf-8")) <= path.name.startswith("host"), path


def test_folders_and_lists(modules, ui):
    base = modules.folder
    assert ui.name == "AUTOMATIC1111"
    assert ui.lora_folders() == (base / "models/Lora", base / "models/LyCORIS")
    assert ui.checkpoint_folders() == (base / "models/Stable-diffusion",)
    assert [choice.title for choice in ui.loras()] == ["sub/mine"]
    assert [choice.title for choice in ui.checkpoints()] == ["one.safetensors", "two.safetensors"]
    assert [choice.title for choice in ui.vaes()] == ["a.vae.pt"]
    assert ui.current_checkpoint() == "/models/one.safetensors"
    modules.sd_models.model_data.sd_model = None
    assert ui.current_checkpoint() == "/models/two.safetensors"  # chosen, not loaded
    today = base / "outputs" / "img2img-images" / time.strftime("%Y-%m-%d")
    assert ui.picture_folder() == today
    modules.shared.opts.data["lora_loom_lora_folder"] = str(base / "mine")
    assert ui.lora_folders()[0] == base / "mine"


def test_without_the_lora_extension_and_with_an_old_version(modules, ui, monkeypatch):
    monkeypatch.delitem(sys.modules, "networks")
    assert ui.loras() == ()
    ui.refresh()
    host_models.forget_loras()
    monkeypatch.setitem(sys.modules, "modules.generation_parameters_copypaste", modules.infotext_utils)
    monkeypatch.delitem(sys.modules, "modules.infotext_utils")
    ui.send_button("button", "img2img", image="picture")
    assert modules.said[-1][0] == "button"


def test_a_lora_saved_again_is_read_and_merged_anew_and_untouched_layers_stay(modules):
    layers = modules.model.network_layer_mapping
    host_models.forget_loras()
    assert modules.networks.networks_in_memory == {}
    assert not hasattr(layers["a"], "network_current_names") and layers["b"].network_current_names == ()
    names = layers["c"].network_current_names
    assert names and names != (("mine", 1.0, 1.0, None),)  # neither equal to the old nor to "no LoRA"


def test_prompts_are_encoded_anew_for_the_lora_may_have_changed_the_text_encoder(modules):
    host_models.forget_loras()
    kept = modules.processing.StableDiffusionProcessing
    assert kept.cached_c == [None, None] and kept.cached_uc == [None, None, None]
    assert modules.processing.StableDiffusionProcessingTxt2Img.cached_hr_c == [None, None]


def test_forge_forgets_its_copies_by_name(modules):
    cleared = []
    modules.networks.load_lora_state_dict = SimpleNamespace(cache_clear=lambda: cleared.append(1))
    loader = SimpleNamespace(loaded_hash="[mine]")
    clip = SimpleNamespace(patcher=SimpleNamespace(lora_loader=loader))
    unet = SimpleNamespace(lora_loader=SimpleNamespace(loaded_hash="[mine]"))
    modules.sd_models.model_data.sd_model = SimpleNamespace(
        current_lora_hash="[mine]", forge_objects=SimpleNamespace(unet=unet, clip=clip)
    )
    host_models.forget_loras()
    model = modules.sd_models.model_data.sd_model
    assert cleared and model.current_lora_hash == "" and loader.loaded_hash == unet.lora_loader.loaded_hash == ""


@pytest.mark.parametrize(
    ("event", "taken_up"),
    [
        (Saved("a.safetensors", "lora"), True),
        (Saved("state.safetensors", "state"), False),
        (Saved("a.png", "picture"), False),
        (Finished(("a.safetensors",)), True),
        (Finished(("a.png",)), False),
    ],
)
def test_a_new_lora_is_in_the_lists_at_once(modules, ui, event, taken_up):
    ui.heard("id", None, event)
    if taken_up:
        until(lambda: modules.said[-2:] == ["list loras", "list models"])
    else:
        assert not any(thread.name == "lora-loom-lists" for thread in threading.enumerate())


def test_lists_are_not_read_while_a_picture_is_made(modules, ui):
    with modules.call_queue.queue_lock:
        ui.heard("id", None, Saved("a.safetensors", "lora"))
        time.sleep(0.1)
        assert modules.said == []
    until(lambda: "list models" in modules.said)


CARD = ("cuda", 4 << 30)


@pytest.mark.parametrize(
    ("plan", "device", "job", "unloads"),
    [
        ("auto", None, GenerateJob(), False),
        ("auto", CARD, GenerateJob(), True),
        ("auto", ("cuda", 40 << 30), GenerateJob(), False),
        ("auto", CARD, GenerateJob(device="cpu"), False),
        ("never", CARD, GenerateJob(), False),
        ("always", ("cuda", 40 << 30), TrainJob(), True),
        ("always", None, TrainJob(), False),
    ],
)
def test_the_hosts_model_is_unloaded_where_memory_asks_for_it(modules, ui, monkeypatch, plan, device, job, unloads):
    monkeypatch.setattr(host_models, "accelerator", lambda: device)
    modules.shared.opts.data["lora_loom_memory_plan"] = plan
    with ui.turns.around(job) as keep:
        assert modules.model.device.type == ("cpu" if unloads else "cuda") and keep is not unloads
    assert modules.model.device.type == "cuda"


@pytest.mark.parametrize("fault", [None, RuntimeError("crash"), KeyboardInterrupt()])
def test_the_model_comes_back_on_every_path_and_only_if_it_was_there(modules, ui, monkeypatch, fault):
    monkeypatch.setattr(host_models, "accelerator", lambda: CARD)
    second, parked = Model("second"), Model("parked", device="cpu")
    modules.sd_models.model_data.loaded_sd_models += [second, parked]
    with contextlib.suppress(RuntimeError, KeyboardInterrupt), ui.turns.around(GenerateJob()):
        modules.sd_models.model_data.loaded_sd_models.remove(second)  # the user's checkpoint limit threw it out
        if fault:
            raise fault
    states = {model.sd_checkpoint_info.name: model.device.type for model in (modules.model, second, parked)}
    assert states == {"one.safetensors": "cuda", "second": "cpu", "parked": "cpu"}
    assert not modules.call_queue.queue_lock.locked()


def test_forge_moves_its_models_itself(modules, ui, monkeypatch):
    memory = SimpleNamespace(
        unload_all_models=lambda: modules.said.append("unload all"),
        soft_empty_cache=lambda: modules.said.append("empty"),
    )
    monkeypatch.setitem(sys.modules, "modules_forge", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "backend", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "backend.memory_management", memory)
    monkeypatch.setattr(host_models, "accelerator", lambda: CARD)
    with ui.turns.around(GenerateJob()):
        assert modules.said == ["unload all", "empty"]
    assert modules.said == ["unload all", "empty"] and ui.name == "Forge"


@pytest.mark.parametrize("plan", ["auto", "pause", "go on"])
def test_a_job_makes_way_for_a_picture_and_goes_on_after_it(modules, ui, monkeypatch, tmp_path, plan):
    monkeypatch.setattr(host_models, "accelerator", lambda: CARD)
    modules.shared.opts.data["lora_loom_while_drawing"] = plan
    ui.__dict__["desk"] = desk = Desk(tmp_path / "jobs", TOYS, ui.turns.around)
    id = desk.submit(ToyJob(steps=1_000_000, seconds=0.01))
    until(lambda: len(desk.events(id)) > 3)
    assert modules.model.device.type == "cpu"
    comments = []
    with modules.call_queue.queue_lock:
        modules.shared.state.job = "txt2img"
        ui.picture_begins(SimpleNamespace(comment=comments.append))
        ui.picture_begins(SimpleNamespace(comment=comments.append))  # the next of a batch
        assert modules.model.device.type == "cuda"
        assert desk.ticket(id).state == ("running" if plan == "go on" else "paused")
        assert len(comments) == (0 if plan == "go on" else 1)
        modules.shared.state.job = ""
    until(lambda: desk.ticket(id).state == "running" and modules.model.device.type == "cpu")
    desk.stop(id)
    until(lambda: desk.ticket(id).over)
    assert modules.model.device.type == "cuda"


@pytest.fixture
def toy(modules, ui, monkeypatch, tmp_path):
    """A desk on a full card with a long job that runs, and the host's model driven out."""
    monkeypatch.setattr(host_models, "accelerator", lambda: CARD)
    ui.__dict__["desk"] = desk = Desk(tmp_path / "jobs", TOYS, ui.turns.around)
    id = desk.submit(ToyJob(steps=1_000_000, seconds=0.01))
    until(lambda: len(desk.events(id)) > 3)
    yield desk, id
    until(lambda: not any(thread.name == "lora-loom-picture" for thread in threading.enumerate()))
    desk.stop(id)
    until(lambda: desk.ticket(id).over)
    assert modules.model.device.type == "cuda"


def test_the_model_comes_only_after_the_job_has_stopped_between_two_steps(modules, ui, monkeypatch, toy):
    desk, id = toy
    back = modules.sd_models.send_model_to_device
    held = []

    def looked(model):
        held.append([event for _, event in desk.events(id)][-1] == HELD)
        back(model)

    monkeypatch.setattr(modules.sd_models, "send_model_to_device", looked)
    with modules.call_queue.queue_lock:
        ui.picture_begins(SimpleNamespace())
    assert held == [True]
    until(lambda: desk.ticket(id).state == "running")


def test_after_a_picture_in_a_pause_of_the_users_own_the_model_leaves_again(modules, ui, toy):
    desk, id = toy
    desk.pause(id)
    for _ in range(2):
        with modules.call_queue.queue_lock:
            ui.picture_begins(SimpleNamespace())
            assert modules.model.device.type == "cuda"
        until(lambda: modules.model.device.type == "cpu")
        assert desk.ticket(id).state == "paused", "it is the user who ends this pause"
    desk.resume(id)
    assert modules.model.device.type == "cpu"


def test_a_picture_that_has_no_room_is_given_up_with_a_sentence(modules, ui, monkeypatch, toy):
    def full(model):
        raise RuntimeError("CUDA out of memory")

    desk, id = toy
    modules.shared.opts.data["lora_loom_while_drawing"] = "go on"
    comments, given_up = [], []
    modules.shared.state.interrupt = lambda: given_up.append(1)
    with monkeypatch.context() as patch, modules.call_queue.queue_lock:
        patch.setattr(modules.sd_models, "send_model_to_device", full)
        ui.picture_begins(SimpleNamespace(comment=comments.append))
    assert given_up == [1] and modules.model.device.type == "cpu"
    assert len(comments) == 1 and "does not fit" in comments[0]
    assert desk.ticket(id).state == "running"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_as_it_was_after_the_page_is_made(monkeypatch, enabled):
    monkeypatch.setattr(gc, "isenabled", lambda: enabled)
    said = []
    for name in ("disable", "enable"):
        monkeypatch.setattr(gc, name, lambda name=name: said.append(name))
    with contextlib.suppress(RuntimeError), host_pages.uncollected():
        assert said == ["disable"]
        raise RuntimeError
    assert said == (["disable", "enable"] if enabled else ["disable"])


def test_a_picture_without_a_desk_starts_nothing(modules, ui):
    ui.picture_begins(SimpleNamespace())
    assert "desk" not in ui.__dict__ and modules.said == []


def test_what_a_request_leaves_empty_is_the_hosts(modules, ui):
    loras, models = modules.folder / "models" / "Lora", modules.folder / "models" / "Stable-diffusion"
    (models / "a.safetensors").touch()
    (modules.folder / "outputs" / "pictures").mkdir(parents=True)
    job = ui.confined(
        "train", TrainJob(base="a.safetensors", name="x", dataset=replace(TrainJob().dataset, folder="p"))
    )
    assert job.base == str(models / "a.safetensors") and job.output_dir == str(loras)
    assert job.work_dir.startswith(str(modules.folder / "lora-loom" / "work"))
    assert ui.confined("train", job) == job
    assert ui.confined("merge", MergeJob(output="m.safetensors")).output == str(loras / "m.safetensors")
    baked = ui.confined("merge-checkpoint", MergeIntoCheckpointJob(output="m.safetensors"))
    assert baked.output == str(models / "m.safetensors")
    drawn = ui.confined("generate", GenerateJob(base="a.safetensors"))
    assert drawn.output_dir == str(ui.picture_folder()) and drawn.lora_dirs[0] == str(loras)
    assert ui.confined("choose", ChooseJob()).output_dir == str(ui.data_folder())


def test_requests_stay_in_the_hosts_folders_and_in_those_that_its_owner_names(modules, ui, tmp_path):
    (tmp_path / "pictures").mkdir()
    job = TrainJob(name="x", dataset=replace(TrainJob().dataset, folder=str(tmp_path / "pictures")))
    with pytest.raises(ConfigError, match="folder"):
        ui.confined("train", job)
    modules.shared.opts.data["lora_loom_picture_folders"] = f"relative\n{tmp_path / 'pictures'}\n"
    assert ui.confined("train", job).dataset.folder == job.dataset.folder
    with pytest.raises(ConfigError, match="output_dir"):
        ui.confined("train", replace(job, output_dir=str(tmp_path / "pictures")))
    with pytest.raises(ConfigError, match="base"):
        ui.confined("train", replace(job, base=str(modules.folder / "config.json")))


def test_a_folder_that_its_owner_linked_into_the_model_folders_is_read_and_written(modules, ui, tmp_path):
    other, loras = tmp_path / "other disk", modules.folder / "models" / "Lora"
    other.mkdir()
    (other / "a.safetensors").touch()
    (loras / "linked").symlink_to(other)
    (modules.folder / "outputs").mkdir()
    (modules.folder / "outputs" / "linked").symlink_to(tmp_path)
    edited = ui.confined("metadata", MetadataJob(str(loras / "linked" / "a.safetensors")))
    assert edited.lora == str(other / "a.safetensors")
    assert ui.confined("merge", MergeJob(output="linked/b.safetensors")).output == str(other / "b.safetensors")
    for path in (tmp_path / "b.safetensors", modules.folder / "outputs" / "linked" / "b.safetensors"):
        with pytest.raises(ConfigError, match="outside the folders"):
            ui.confined("merge", MergeJob(output=str(path)))


def test_logins_and_names(modules, ui):
    access = ui.access({})
    assert access.page == {"me": "secret"} and access.api == {} and not access.public
    modules.shared.cmd_opts.api_auth = "a:b:c,d:e"
    modules.shared.cmd_opts.listen = True
    modules.shared.cmd_opts.cors_allow_origins = "http://x, http://y"
    access = ui.access({})
    assert access.api == {"a": "b:c", "d": "e"} and access.public and access.origins == ("http://x", "http://y")
    modules.shared.cmd_opts.nowebui = True
    assert ui.access({}).page == {}


@pytest.mark.parametrize(
    ("name", "public"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("my.box", True), ("", False)],
)
def test_a_server_name_of_this_computer_opens_nothing(modules, ui, name, public):
    modules.shared.cmd_opts.server_name = name
    assert ui.access({}).public == public


def test_a_refused_folder_says_which_setting_helps(modules, ui):
    with pytest.raises(ConfigError, match='settings, page "LoRA Loom"'):
        ui.confined("train", TrainJob(name="x", dataset=replace(TrainJob().dataset, folder="/etc")))
    assert ui.page_key() != webui.WebUI().page_key() and len(ui.page_key()) > 20


def test_options_are_on_a_page_of_ours_and_folders_are_not_set_through_the_api(modules):
    for option in settings_page.OPTIONS:
        host_pages.add_option(replace(option, choices=()))
    added = modules.shared.opts.added
    assert set(added) == {f"lora_loom_{option.name}" for option in settings_page.OPTIONS}
    assert all(isinstance(info, OptionInfo) and info.section[0] == "lora_loom" for info in added.values())
    assert {key for key, info in added.items() if info.restrict_api} >= {
        "lora_loom_work_folder",
        "lora_loom_lora_folder",
    }


def test_registering_announces_everything_and_the_script_is_found(modules):
    script = package.register()
    assert [name for name, _ in modules.script_callbacks.registered] == [
        *("after_component", "ui_tabs", "ui_train_tabs", "ui_settings", "app_started")
    ]
    assert issubclass(script, modules.scripts.Script)
    shown = script()
    assert (
        shown.show(True) is modules.scripts.AlwaysVisible and shown.ui(False) is None and shown.title() == "LoRA Loom"
    )
    del modules.script_callbacks.on_ui_train_tabs  # Forge's Train tab is gone
    package.register()
    assert len(modules.script_callbacks.registered) == 9


def block(label="", parent=None):
    made = SimpleNamespace(label=label, parent=parent)
    if parent is not None:
        parent.children.append(made)
    return made


def test_img2imgs_widgets_are_found_as_they_are_made(modules, ui):
    made = {elem_id: block() for elem_id in ("img2img_prompt", "img2maskimg", "img2img_image")}
    for elem_id, component in {**made, "txt2img_prompt": block(), None: block()}.items():
        ui.component_made(component, elem_id)
    assert ui.img2img() == {
        "prompt": made["img2img_prompt"], "painted": made["img2maskimg"], "picture": made["img2img_image"]
    }  # fmt: skip
    assert ui.mask_editor("x") is None


def test_extras_and_png_info_are_found_as_they_are_made(modules, ui):
    ids = ("extras_gallery", "extras_image", "pnginfo_image", "pnginfo_generation_info", "extras_upscaler_1")
    made = {elem_id: block() for elem_id in ids}
    for elem_id, component in made.items():
        ui.component_made(component, elem_id)
    assert ui.elsewhere() == dict(
        zip(("extras results", "extras picture", "pnginfo picture", "pnginfo text"), list(made.values())[:4])
    )


def test_the_host_reads_what_its_gallery_names(modules, ui):
    asked = []
    modules.infotext_utils.image_from_url_text = lambda told: asked.append(told) or "picture"
    named, picture = {"name": "/tmp/a.png", "is_file": True}, SimpleNamespace(getbands=tuple)
    assert ui.picture_in([named]) == ui.picture_in([[named, "caption"]]) == "picture" and asked == [named, named]
    assert ui.picture_in([(picture, None)]) is picture  # Forge
    assert ui.picture_in([]) is None and ui.picture_in(None) is None and len(asked) == 2


@pytest.mark.parametrize("in_a_form", [False, True])
def test_forges_canvases_are_the_fields_that_hold_their_pictures(modules, ui, monkeypatch, in_a_form):
    monkeypatch.setitem(sys.modules, "modules_forge", object())
    column = SimpleNamespace(children=[])
    parts = []
    for elem_id in ("img2img_image", "img2maskimg"):
        canvas, form = block(parent=column), SimpleNamespace(children=[])
        below = form if in_a_form else column
        front, back = block("foreground", below), block("background", below)
        column.children += [form] if in_a_form else []
        ui.component_made(canvas, elem_id)
        parts.append((front, back))
    found = ui.img2img()
    assert set(found) == {"picture", "painted", "painted mask"}
    assert found["picture"] is parts[0][1]
    assert (found["painted mask"], found["painted"]) == parts[1]


def test_later_versions_are_told_the_file_and_earlier_ones_are_not(modules):
    told = []
    modules.script_callbacks.callback_map = {"callbacks_ui_tabs": []}
    modules.script_callbacks.add_callback = lambda listed, callback, *, name, category, filename: told.append(filename)
    host_pages.on("ui_tabs", print)
    host_pages.on("ui_settings", print)  # no such list: the function of that name is taken
    assert told == [host_pages.__file__] and modules.script_callbacks.registered == [("ui_settings", print)]
    modules.script_callbacks.add_callback = lambda listed, callback: told.append(1)  # v1.6.1: reads the whole stack
    modules.script_callbacks.ScriptCallback = lambda script, callback: (script, callback)
    host_pages.on("ui_tabs", print)
    assert len(told) == 1 and modules.script_callbacks.callback_map["callbacks_ui_tabs"] == [
        (host_pages.__file__, print)
    ]


OURS = ROOT / "localizations" / "de_DE.json"


def languages(modules, folder, *files):
    """The extensions' files as the host lists them, one for each language before 1.7."""
    listed = [OURS, *files]
    modules.scripts.list_scripts = lambda *_: [SimpleNamespace(filename=f.name, path=str(f)) for f in listed]
    modules.shared.cmd_opts.localizations_dir = str(folder / "localizations")
    modules.localization.localizations["de_DE"] = str(listed[-1])


def translation(text, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_a_users_translation_stays_and_ours_is_added_to_it(modules, tmp_path):
    """Before 1.7 the host takes one file per language, the last that it finds."""
    translation('{"Generate": "Los!", "Settings": "Einstellungen"}', tmp_path / "localizations" / "de_DE.json")
    languages(modules, tmp_path)
    package.register()
    merged = json.loads(Path(modules.localization.localizations["de_DE"]).read_text("utf-8"))
    assert merged["Generate"] == "Los!" and merged["Settings"] == "Einstellungen"
    assert merged["Take from img2img"] == json.loads(OURS.read_text("utf-8"))["Take from img2img"]
    theirs = translation('{"Generate": "Ab"}', tmp_path / "extensions" / "theirs" / "localizations" / "de_DE.json")
    languages(modules, tmp_path, theirs)
    package.register()  # at a "Reload UI"
    merged = json.loads(Path(modules.localization.localizations["de_DE"]).read_text("utf-8"))
    assert merged["Generate"] == "Ab" and "Settings" not in merged and "Take from img2img" in merged


def test_languages_that_need_nothing_are_left_alone(modules, tmp_path):
    languages(modules, tmp_path)  # ours alone
    modules.localization.localizations |= {"ja_JP": ["a.json", "b.json"], "fr_FR": "f.json"}
    package.register()
    assert modules.localization.localizations == {"de_DE": str(OURS), "ja_JP": ["a.json", "b.json"], "fr_FR": "f.json"}
    broken = translation("{", tmp_path / "localizations" / "de_DE.json")
    package.register()
    assert modules.localization.localizations["de_DE"] == str(broken)


IMPORTED = """
import sys, types, time
sys.path[:0] = [{root!r}, {hosts!r}]
from unittest import mock
before = set(sys.modules)
from lora_core.doors import load_package
package = load_package("lora_loom_a1111", __import__("pathlib").Path({root!r}) / "a1111_extension")
import lora_loom_a1111.webui
heavy = {{"torch", "numpy", "PIL", "gradio", "starlette", "fastapi"}} & {{n.partition(".")[0] for n in sys.modules}}
print(sorted(heavy))
"""


def test_registering_imports_nothing_heavy():
    code = IMPORTED.format(root=str(ROOT), hosts=str(ROOT / "tests" / "hosts"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
