"""The ComfyUI adapter in a stand-in for ComfyUI: every node built and run, values -> job -> events -> outputs."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import fake_comfy
from hosts.fake_comfy import Patcher, defaults, run_node
from PIL import Image
from safetensors.torch import save_file

from lora_core.confine import READ_WIDGETS
from lora_core.errors import ConfigError, EngineMissing, FileError, KeyMismatch, LoomError
from lora_core.families import reference
from lora_core.jobs import ChooseJob, GenerateJob, InpaintJob, TrainJob
from lora_core.jobs.files import MetadataJob
from lora_core.keys import lora_targets
from lora_core.lora import Lora, LoraModule
from lora_core.lora_file import write_lora
from lora_core.lora_metadata import Summary, minimal_metadata
from lora_core.settings import describe

ROOT = Path(__file__).resolve().parents[1]
DEMO_SET, DEMO_BASE = "armin_vicerre (demo)", "demo_base (demo)"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


class Loaded:
    """The pack in a running stand-in: `nodes` by id, `part("work")` for one of its modules."""

    def __init__(self, comfy, pack):
        self.comfy, self.pack = comfy, pack
        self.nodes = fake_comfy.nodes_of(pack)

    def part(self, name):
        return importlib.import_module(f"{self.pack.__name__}.comfy_nodes.{name}")

    def run(self, id, page=None, **values):
        node = self.nodes[f"LoraLoom{id}"]
        return run_node(node, defaults(node, **values), page=page)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """One queue with one child for all tests: starting a child takes seconds."""
    from lora_core.desk import Desk
    from lora_core.remote import Child

    with Desk(tmp_path_factory.mktemp("jobs"), Child(idle=120)) as made:
        yield made


@pytest.fixture
def loom(tmp_path, monkeypatch, desk):
    with fake_comfy.running(tmp_path / "comfy") as comfy:
        loaded = Loaded(comfy, fake_comfy.load_pack(comfy.base))
        work = loaded.part("work")
        monkeypatch.setattr(work.overlay, "engine", lambda: None)
        monkeypatch.setattr(work, "desk", lambda: desk)
        yield loaded
    for name in [n for n in sys.modules if n.startswith(loaded.pack.__name__)]:
        del sys.modules[name]


def make_lora(path, family="sd1", blocks=("*",), seed=3):
    """A LoRA of rank 2 on the attention layers of the true architecture."""
    targets = [k for k in lora_targets(reference(family)) if "attn2.to_q" in k.canonical or "q_proj" in k.canonical]
    generator = torch.Generator().manual_seed(seed)
    modules = {
        k.canonical: LoraModule(
            torch.randn((2, *k.shape[1:]), generator=generator), torch.randn((k.shape[0], 2), generator=generator), 2.0
        )
        for k in targets
    }
    metadata = minimal_metadata(Summary(family, 2, 2.0, path.stem)) | {"ss_output_name": path.stem}
    write_lora(path, Lora(modules, {}, family), targets, torch.float16, metadata)
    return targets


# --- what the host sees


def test_the_schema_of_every_node_is_as_recorded(loom):
    found = {}
    for id, node in sorted(loom.nodes.items()):
        schema = node.define_schema()
        assert schema.node_id == id and id.startswith("LoraLoom") and schema.category.startswith("LoRA Loom/")
        assert schema.display_name and schema.description
        names = [port.id for port in schema.inputs]
        assert len(names) == len(set(names))
        kinds = [str(out.type) if isinstance(out.type, str) else "list" for out in schema.outputs]
        sockets = {p.id: f"{p.type}{'?' * p.optional}" for p in schema.inputs if p.type not in WIDGETS or p.optional}
        found[id] = {"sockets": sockets, "outputs": kinds}
    recorded = Path(__file__).parent / "data" / "comfyui_nodes.json"
    fixed = {k: v for k, v in found.items() if "Options" not in loom.nodes[k].define_schema().category}
    assert fixed == json.loads(recorded.read_text("utf-8")), f"write {json.dumps(fixed, indent=1)} if this is meant"


def test_every_node_has_a_help_page_and_words(loom):
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    words = {x: json.loads((ROOT / "locales" / x / "nodeDefs.json").read_text("utf-8")) for x in ("en", "zh", "ja")}
    for id in loom.nodes:
        assert id in pages
        assert words["en"][id]["display_name"] and (
            words["en"][id]["inputs"] or not loom.nodes[id].define_schema().inputs
        )
        for language in ("zh", "ja"):
            assert words[language][id]["display_name"] != words["en"][id]["display_name"], f"{id} in {language}"
    for language in ("zh", "ja"):
        missing = texts_of(words["en"]).keys() - texts_of(words[language]).keys()
        english = {texts_of(words["en"])[place] for place in missing}
        assert not english, f"write these into tools/comfyui_words.tsv and run tools/comfyui_texts.py: {english}"


def texts_of(data, place=()):
    """{(node, "inputs", "base", "tooltip"): text} of a nodeDefs.json."""
    if isinstance(data, str):
        return {place: data}
    return {k: v for key, part in data.items() for k, v in texts_of(part, (*place, key)).items()}


def test_the_start_of_comfyui_loads_neither_jobs_nor_libraries(tmp_path):
    """A start that reads nodes.json is short; jobs, Pillow and the work of nodes come when a node first runs."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fake_comfy; from pathlib import Path\n"
        "with fake_comfy.running(Path(sys.argv[2])) as comfy:\n"
        "    before = set(sys.modules)\n"
        "    nodes = fake_comfy.nodes_of(fake_comfy.load_pack(comfy.base))\n"
        "    [node.define_schema() for node in nodes.values()]\n"
        "    print(len(nodes), *sorted(m.partition('lora-loom.')[2] or m for m in set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", script, str(ROOT / "tests" / "hosts"), str(tmp_path)]
    count, *loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if "lora_core" in name or "comfy_nodes" in name}
    adapter = {"declare", "host", "lists", "menu", "routes", "schema"}
    core = {"lora_core", "lora_core.errors", "lora_core.doors"}
    assert int(count) > 30 and own == core | {"comfy_nodes"} | {f"comfy_nodes.{name}" for name in adapter}
    assert not {name.partition(".")[0] for name in loaded} & {"PIL", "diffusers", "transformers", "peft", "safetensors"}


def test_what_the_nodes_say_is_written_from_their_declarations(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import comfyui_texts

    for path, text in comfyui_texts.files().items():
        assert path.read_text("utf-8") == text, f"run tools/comfyui_texts.py: {path.name} is out of date"


def test_the_example_workflows_fit_the_nodes(monkeypatch):
    """The page stores widgets by their place: after a new setting, run tools/comfyui_workflows.py and _texts.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import comfyui_workflows

    for path, text in comfyui_workflows.files().items():
        assert path.read_text("utf-8") == text, f"run tools/comfyui_workflows.py: {path.name} is out of date"
        assert path.with_suffix(".jpg").exists()


def test_every_declared_setting_has_a_widget_somewhere(loom):
    shown = {i: {p.id for p in n.define_schema().inputs} for i, n in loom.nodes.items()}
    of_training = set().union(
        *(
            names
            for i, names in shown.items()
            if loom.nodes[i].define_schema().category.endswith(("Training", "Options"))
        )
    )
    hidden = {"output_dir", "work_dir", "cache_dir", "folder", "optimizer_class", "schedule_class"}
    renamed = {"folder": "folder"}
    assert {s.name for s in describe(TrainJob)} - of_training <= hidden | set(renamed)
    of_inpaint = shown["LoraLoomInpaint"] | shown["LoraLoomSoftInpaint"] | {"soft_inpainting"}
    ours = {"output_dir", "lora_dirs", "embedding_dirs", "picture_format", "save_text"}
    assert {s.name for s in describe(InpaintJob) if s.group != "hires"} - of_inpaint <= ours
    assert not any(name.startswith("hires") for name in of_inpaint), "hires fix is for pictures from nothing"
    assert {s.name for s in describe(GenerateJob)} - shown["LoraLoomGenerate"] <= ours


def test_bounds_choices_and_help_come_from_the_declarations(loom):
    ports = {p.id: p for p in loom.nodes["LoraLoomGenerate"].define_schema().inputs}
    for s in describe(GenerateJob):
        if s.name in ports and s.declaration.min is not None and s.name not in ("width", "height"):
            assert ports[s.name].said["min"] == s.declaration.min and ports[s.name].said["max"] == s.declaration.max
        if s.name in ports and s.declaration.choices:
            assert tuple(ports[s.name].said["options"]) == s.declaration.choices
    learning_rate = {p.id: p for p in loom.nodes["LoraLoomOptimizer"].define_schema().inputs}["learning_rate"]
    assert 0 < learning_rate.said["round"] <= 1e-6 and learning_rate.said["step"] <= 1e-4


def test_defaults_of_the_widgets_are_the_defaults_of_the_jobs(loom):
    values = loom.part("widgets").values_of
    for id, job in (("Generate", GenerateJob), ("Optimizer", TrainJob), ("Memory", TrainJob), ("Noise", TrainJob)):
        given = defaults(loom.nodes[f"LoraLoom{id}"])
        chosen = [s for s in loom.part("widgets").settings(job) if s.name in given and s.name not in ("base", "name")]
        assert chosen and values(chosen, given) == {s.name: s.default for s in chosen}


def test_hosts_without_the_api_v3_get_classes_of_the_old_kind(tmp_path):
    with fake_comfy.running(tmp_path, v3=False):
        sys.modules["comfy_api"] = None
        pack = fake_comfy.load_pack(tmp_path)
        nodes, titles = fake_comfy.nodes_of(pack), pack.NODE_DISPLAY_NAME_MAPPINGS
        assert len(nodes) == len(titles) > 25
        train = nodes["LoraLoomTrain"]
        inputs = train.INPUT_TYPES()
        assert inputs["required"]["goal"][0] == ["character", "style", "object", "custom"]
        assert train.RETURN_TYPES[0] == "LORA_MODEL" and train.OUTPUT_NODE
        node = nodes["LoraLoomMemory"]()
        values = {k: v[1].get("default") for k, v in node.INPUT_TYPES()["required"].items()}
        (chosen,) = node.execute(**values, unique_id="3")
        assert chosen.values["gradient_checkpointing"] is False


def test_hosts_with_the_api_v3_see_no_old_mappings(loom):
    assert not hasattr(loom.pack, "NODE_CLASS_MAPPINGS") and loom.pack.WEB_DIRECTORY == "./web"


# --- training


def dataset(loom, **values):
    return loom.run("Dataset", **{"folder": DEMO_SET, **values}).values[0]


def training(loom, **values):
    short = {"total_steps": 3, "resolution": 64, "name": "tiny", "base": DEMO_BASE, "trigger": "armin_vicerre"}
    return {"dataset": dataset(loom), **short, **values}


def test_training_gives_the_lora_its_name_a_plot_and_previews(loom):
    saves = loom.run("Saves", preview_every_steps=2, preview_steps=2, state_every_steps=0).values[0]
    result = loom.run("Train", **training(loom, options_saves=saves, preview_prompts="armin_vicerre"))
    lora, name, plot, previews, report = result.values
    path = loom.comfy.base / "models" / "loras" / name
    assert name == "tiny.safetensors" and path.is_file()
    assert len(lora) > 500 and all(v.isfinite().all() for v in lora.values())
    assert plot.shape[0] == 1 and plot.shape[-1] == 3 and previews.shape[0] >= 1
    assert "3 steps" in report and result.ui["lora_loom"]
    assert loom.comfy.unloads == 1
    assert [b for b in loom.comfy.bars if b[:2] == (3, 3)]
    told = [data for event, data in loom.comfy.sent if event == "lora_loom"]
    events = [e for data in told for e in data.get("events", ())]
    assert {"Loss", "Progress", "Saved", "Preview", "Finished"} <= {e["event"] for e in events}
    assert str(loom.comfy.base) not in json.dumps(told), "no path goes to a page"
    listed = sys.modules["folder_paths"].get_filename_list("loras")
    assert "tiny.safetensors" in listed and not [n for n in listed if "state" in n]


def test_stop_ends_the_training_keeps_the_lora_and_the_node_counts_as_interrupted(loom, monkeypatch):
    work = loom.part("work")
    show = work.Page.show

    def stop_after_two(page, rows):
        show(page, rows)
        if any(type(e).__name__ == "Loss" and e.step >= 2 for _, e in rows):
            loom.comfy.stop = True

    monkeypatch.setattr(work.Page, "show", stop_after_two)
    told = loom.nodes["LoraLoomTrain"].fingerprint_inputs
    assert told(name="tiny") == told(name="never") == ""
    with pytest.raises(fake_comfy.Interrupted):
        loom.run("Train", **training(loom, total_steps=5000))
    assert told(name="tiny") == work.desk().tickets()[-1].id, "ComfyUI must not take the stopped run's results as final"
    listed = sys.modules["folder_paths"].get_filename_list("loras")
    assert listed and all(name.startswith("tiny") for name in listed)
    states = list(loom.comfy.base.rglob("state*.safetensors"))
    assert states and not [p for p in states if any(p.is_relative_to(r) for r in loom.part("host").folders("loras"))]
    ticket = work.desk().tickets()[-1]
    assert ticket.state == "stopped" and ticket.resumable
    loom.comfy.stop = False
    with pytest.raises(fake_comfy.Interrupted):
        loom.run("Train", **training(loom, total_steps=5000))
    before, again = (ask(loom, "get", "/lora_loom/jobs/{id}", id=t.id) for t in work.desk().tickets()[-2:])
    own = [e.step for _, e in work.desk().events(again["id"]) if type(e).__name__ == "Loss"]
    assert own[0] > 2, "queued again, it goes on"
    steps = [point[0] for point in again["losses"]]
    assert steps == list(range(1, own[-1] + 1)), "and its curve continues the first one"
    assert [p for p in again["losses"] if p[0] < own[0]] == before["losses"]


def test_a_stop_that_the_progress_bar_hears_is_not_lost(loom):
    """ComfyUI's bar raises at a stop and takes the flag down, which the waiting node would then never see."""
    host = loom.part("host")
    bar = host.Bar("1")
    loom.comfy.stop = True
    bar.show(1, 2)
    assert host.interrupted()


def test_option_nodes_replace_what_the_goal_sets(loom):
    train_job = loom.part("run_train").train_job
    base = {k: v for k, v in defaults(loom.nodes["LoraLoomTrain"]).items()} | training(loom, total_steps=80)
    by_goal = train_job(base)
    assert by_goal.network.rank == 16 and by_goal.optimization.learning_rate == 5e-4 and by_goal.length.steps == 80
    network = loom.run("Network", rank=4, alpha=2.0).values[0]
    job = train_job({**base, "options_network": network})
    assert (job.network.rank, job.network.alpha, job.optimization.learning_rate) == (4, 2.0, 5e-4)
    stronger = train_job({**base, "options_network": loom.run("Network", rank=4, alpha=4.0).values[0]})
    assert stronger.optimization.learning_rate == 2.5e-4  # times alpha, by rank: as the goal's
    assert train_job({**base, "time_budget": 20.0}).length.time_budget == 20.0
    assert job.saves.preview_prompts == ("armin_vicerre",) and job.captions.trigger == "armin_vicerre"
    plain = train_job({**base, "goal": "custom"})
    assert plain.optimization == TrainJob().optimization and plain.length.steps == 80


def test_failures_are_the_childs_sentence(loom):
    with pytest.raises(LoomError, match=r"holds no pictures|no picture|No pictures"):
        empty = loom.comfy.folder("input/empty")
        assert empty.is_dir()
        chosen = loom.run("Dataset", folder="empty").values[0]
        loom.run("Train", **training(loom, dataset=chosen))


def test_a_missing_engine_says_what_to_click(loom, monkeypatch):
    def missing():
        raise EngineMissing("The training engine is not installed yet.")

    monkeypatch.setattr(loom.part("work").overlay, "engine", missing)
    for id in ("Train", "Generate"):
        values = training(loom) if id == "Train" else {"base": DEMO_BASE}
        with pytest.raises(EngineMissing, match="Try fix"):
            loom.run(id, **values)
    assert loom.comfy.unloads == 0


def test_datasets_from_images_with_captions_and_masks(loom):
    ramp = torch.linspace(0, 1, 64)[:, None, None].expand(64, 48, 3)
    pictures = [torch.stack([ramp, ramp.flip(0) ** 2]), torch.rand(1, 64, 64, 3)]
    masks = [torch.ones(2, 64, 48), torch.ones(1, 64, 64)]
    lists = {"validation_split": [0.0], "repeats": [2]}
    node = loom.nodes["LoraLoomDatasetFromImages"]
    made = run_node(node, {"images": pictures, "captions": ["a\nb\nc"], "masks": masks, **lists}).values[0]
    folder = Path(made.folder)
    assert folder.is_relative_to(loom.comfy.base / "output")
    assert [p.read_text() for p in sorted(folder.glob("*.txt"))] == ["a", "b", "c"]
    with Image.open(folder / "0001.png") as picture:
        assert np.array_equal(np.asarray(picture), (pictures[0][0] * 255).round().byte().numpy())
    assert len(list(Path(made.values["masks"]).glob("*.png"))) == 3 and made.values["repeats"] == 2
    with pytest.raises(ConfigError, match="2 captions for 3 pictures"):
        run_node(node, {"images": pictures, "captions": ["a\nb"], **lists})
    report = loom.run("DatasetReport", dataset=made, width=64, height=64)
    assert "3 pictures" in report.values[0] and report.values[1].shape[-1] == 3


def test_a_changed_folder_is_trained_anew(loom):
    folder = loom.comfy.folder("input/cats")
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    told = loom.nodes["LoraLoomDataset"].fingerprint_inputs
    values = {"folder": "cats", "other_folder": "", "held_out": "none"}
    before = told(**values)
    assert told(**values) == before
    (folder / "a.txt").write_text("a cat")
    assert told(**values) != before


# --- LoRAs on MODEL and CLIP


def model_and_clip(targets, config="SD15"):
    """Weights under ComfyUI's names for the true architecture's targets."""
    from lora_core.keys_unet import unet_modules

    ldm = {f"unet.{m.name}": m.ldm for m in unet_modules(reference("sd1").unet)}
    unet = {f"diffusion_model.{ldm[k.canonical]}.weight": k for k in targets if k.canonical.startswith("unet.")}
    text = {f"clip_l.transformer.{k.canonical.partition('.')[2]}.weight": k for k in targets if k.canonical[0] == "t"}
    made = [({w: torch.zeros(k.shape) for w, k in p.items()}, {k.kohya: w for w, k in p.items()}) for p in (unet, text)]
    return Patcher(*made[0], config), Patcher(*made[1], config)


def test_loading_patches_model_and_clip_with_block_weights(loom):
    path = loom.comfy.base / "models" / "loras" / "a.safetensors"
    targets = make_lora(path)
    model, clip = model_and_clip(targets)
    result = loom.run("Load", model=model, clip=clip, lora="a.safetensors", strength=0.5, blocks="IN*=0.5,TE=0")
    patched_model, patched_clip = result.values[:2]
    strengths = {key: strength for key, (strength, _) in patched_model.patches.items()}
    assert len(strengths) == len(model.weights) and not model.patches
    assert {s for k, s in strengths.items() if "input_blocks" in k} == {0.25}
    assert {s for k, s in strengths.items() if "output_blocks" in k} == {0.5}
    assert {s for s, _ in patched_clip.patches.values()} == {0.0}
    separate = loom.run("Load", model=model, clip=clip, lora="a.safetensors", strength=1.0, text_strength=0.3)
    assert {s for s, _ in separate.values[1].patches.values()} == {0.3}


def test_a_lora_of_another_family_or_one_that_matches_nothing_is_an_error(loom):
    folder = loom.comfy.base / "models" / "loras"
    targets = make_lora(folder / "a.safetensors")
    model, clip = model_and_clip(targets, "SDXL")
    with pytest.raises(KeyMismatch, match=r"made for Stable Diffusion 1\.x models; this MODEL is"):
        loom.run("Load", model=model, clip=clip, lora="a.safetensors")
    model, clip = model_and_clip(targets)
    key = next(iter(model.weights))
    model.weights[key] = torch.zeros(7, 5)
    shown = loom.run("Load", model=model, clip=clip, lora="a.safetensors").ui["text"][0]
    assert "1 are of other sizes and are left out" in shown
    for key in model.weights:
        model.weights[key] = torch.zeros(7, 5)
    with pytest.raises(KeyMismatch, match=r"model of other sizes: \d+ of its \d+ layers"):
        loom.run("Load", model=model, clip=clip, lora="a.safetensors")
    with pytest.raises(KeyMismatch, match="changes nothing here"):
        loom.run("Load", model=Patcher({}, {}), clip=None, lora="a.safetensors")


def test_a_file_written_anew_under_its_name_is_read_anew(loom):
    path = loom.comfy.base / "models" / "loras" / "a.safetensors"
    targets = make_lora(path, seed=1)
    model, clip = model_and_clip(targets)
    told = loom.nodes["LoraLoomLoad"].fingerprint_inputs
    before, first = told(lora="a.safetensors"), loom.run("Load", model=model, clip=clip, lora="a.safetensors")
    make_lora(path, seed=2)
    again = loom.run("Load", model=model, clip=clip, lora="a.safetensors")
    assert told(lora="a.safetensors") != before
    key = next(iter(model.weights))
    assert not torch.equal(first.values[0].patches[key][1][0], again.values[0].patches[key][1][0])


def test_stacks_are_applied_in_order(loom):
    folder = loom.comfy.base / "models" / "loras"
    targets = make_lora(folder / "a.safetensors")
    make_lora(folder / "b.safetensors", seed=9)
    one = loom.run("Stack", lora="a.safetensors", strength=0.5).values[0]
    two = loom.run("Stack", lora="b.safetensors", strength=2.0, loras=one).values[0]
    assert [(Path(u.path).name, u.strength) for u in two] == [("a.safetensors", 0.5), ("b.safetensors", 2.0)]
    model, clip = model_and_clip(targets)
    assert {s for s, _ in loom.run("Apply", model=model, clip=clip, loras=two).values[0].patches.values()} == {2.0}


# --- tools


def test_tools_write_listed_files_and_never_over_others(loom):
    folder = loom.comfy.base / "models" / "loras"
    make_lora(folder / "a.safetensors")
    make_lora(folder / "b.safetensors", seed=9)
    stack = loom.run("Stack", lora="b.safetensors", loras=loom.run("Stack", lora="a.safetensors").values[0]).values[0]
    names = [loom.run("Merge", loras=stack, name="both").values[0] for _ in range(2)]
    assert names == ["both.safetensors", "both-2.safetensors"]
    for id, more in (("Resize", {"rank": 1}), ("Convert", {"to": "diffusers"}), ("Repair", {})):
        name, report = loom.run(id, lora="a.safetensors", name=f"{id}d", base="none", **more).values
        assert (folder / name).is_file() and name in report
    with pytest.raises(ConfigError, match=r"cannot be a file name|prompts or file systems"):
        loom.run("Repair", lora="a.safetensors", name="../x", base="none")


def test_inspect_gives_a_report_and_a_heat_map(loom):
    make_lora(loom.comfy.base / "models" / "loras" / "a.safetensors")
    result = loom.run("Inspect", lora="a.safetensors", base="none")
    report, picture = result.values
    assert "ComfyUI applies it fully" in report and picture.shape[0] == 1 and picture.max() > 0.5
    shown = result.ui["images"][0]
    assert (loom.comfy.base / shown["type"] / shown["subfolder"] / shown["filename"]).is_file()


def test_metadata_is_shown_and_edited_in_place(loom):
    path = loom.comfy.base / "models" / "loras" / "a.safetensors"
    make_lora(path)
    loom.run("Metadata", lora="a.safetensors", title="A title", trigger="sks", cover=torch.rand(1, 32, 32, 3))
    from lora_core.tensors import read_header

    metadata = read_header(path).metadata
    assert metadata["modelspec.title"] == "A title" and metadata["modelspec.trigger_phrase"] == "sks"


# --- pictures


def test_pictures_carry_the_graph_and_the_parameters_and_come_back_as_a_recipe(loom):
    page = {"workflow": {"nodes": [1]}}
    small = {"width": 64, "height": 64, "steps": 2, "seed": 5, "prompt": "armin_vicerre", "base": DEMO_BASE}
    result = loom.run("Generate", page=page, batch_count=2, name="sub/loom", **small)
    images, parameters = result.values
    assert images.shape == (2, 64, 64, 3) and "Seed: 5" in parameters and "Seed: 6" in parameters
    shown = result.ui["images"]
    assert [s["subfolder"] for s in shown] == ["sub", "sub"] and shown[0]["type"] == "output"
    path = loom.comfy.base / "output" / "sub" / shown[0]["filename"]
    with Image.open(path) as picture:
        assert json.loads(picture.text["workflow"]) == page["workflow"]
        assert json.loads(picture.text["prompt"])["1"]["class_type"] == "LoraLoomGenerate"
        assert "Seed: 5" in picture.text["parameters"]
        assert np.array_equal(np.asarray(picture), (images[0] * 255).round().byte().numpy())
    (loom.comfy.folder("input") / "made.png").write_bytes(path.read_bytes())
    recipe = loom.run("Recipe", picture="made.png").values
    assert recipe[1] == "armin_vicerre" and recipe[3:7] == (64, 64, 5, 2)
    again = loom.run("Generate", recipe=recipe[0], base=DEMO_BASE, save="only show")
    assert torch.equal(again.values[0][0], images[0])


def test_inpainting_keeps_what_is_outside_the_mask(loom):
    image = torch.rand(1, 64, 64, 3).mul(255).round() / 255
    mask = torch.zeros(1, 64, 64)
    mask[:, 24:40, 24:40] = 1
    small = {"steps": 2, "mask_blur": 0, "base": DEMO_BASE, "prompt": "armin_vicerre", "save": "only show"}
    drawn = loom.run("Inpaint", image=image, mask=mask, **small).values[0]
    assert drawn.shape == image.shape
    outside = mask[0] == 0
    assert torch.equal((drawn[0][outside] * 255).round(), (image[0][outside] * 255).round())
    assert not torch.equal(drawn[0][~outside], image[0][~outside])


def test_plan_and_paste_leave_the_very_floats_outside_the_mask(loom):
    image = torch.rand(1, 96, 128, 3)
    mask = torch.zeros(1, 96, 128)
    mask[:, 40:56, 60:90] = 1
    values = {"image": image, "mask": mask, "width": 64, "height": 64, "inpaint_area": "only masked", "mask_blur": 2}
    plan, working, small, latent = loom.run("InpaintPlan", **values).values
    assert working.shape == (1, 64, 64, 3) and small.shape == (1, 64, 64) and latent is None
    pasted = loom.run("InpaintPaste", plan=plan, drawn=torch.zeros(2, 64, 64, 3)).values[0]
    assert pasted.shape == (2, 96, 128, 3)
    changed = (pasted[0] != image[0]).any(-1)
    assert changed.any() and torch.equal(pasted[0][~changed], image[0][~changed])
    assert not changed[:30].any() and not changed[:, :40].any()

    class Vae:
        def encode(self, pixels):
            return torch.ones(1, 4, pixels.shape[1] // 8, pixels.shape[2] // 8)

    latent = loom.run("InpaintPlan", vae=Vae(), masked_content="latent nothing", **values).values[3]
    assert set(latent["noise_mask"].unique().tolist()) <= {0.0, 1.0} and latent["noise_mask"].shape == (1, 1, 8, 8)
    assert torch.equal(latent["samples"], (1 - latent["noise_mask"]).expand(1, 4, 8, 8))


# --- paths


HOSTILE = [
    "../secret",
    "/etc",
    "C:\\Windows",
    "C:secret",
    "\\\\server\\share",
    "//server/share",
    "a\0b",
    "~/secret",
    "a/../../b",
]


# Inputs that name files besides those that are chosen from lists and those declared as files or folders.
NAMES = {"name", "other_folder", "lora_name"}


def inputs_with_paths(loom):
    """[(node, input)] of every input that names a file or folder."""
    import lora_core.jobs.files as files
    import lora_core.jobs.tools as tools

    jobs = [TrainJob, GenerateJob, InpaintJob, ChooseJob]
    jobs += [c for m in (files, tools) for n, c in vars(m).items() if n.endswith("Job")]
    declared = {s.name for job in jobs for s in describe(job) if s.declaration.widget in READ_WIDGETS}
    found = []
    for node in loom.part("catalog").NODES:
        found += [
            (node.id, p.name) for p in node.inputs if p.listed or (p.type == "STRING" and p.name in declared | NAMES)
        ]
    return [(id.removeprefix("LoraLoom"), name) for id, name in found]


def fitting(loom, id, sets):
    """Values for the sockets of a node that has them."""
    node = loom.nodes[f"LoraLoom{id}"]
    named = {"model": None, "lora": "a.safetensors", "base": DEMO_BASE, "tuned": DEMO_BASE, "name": "x", "prompts": "x"}
    one = {"image": torch.rand(1, 64, 64, 3), "mask": torch.ones(1, 64, 64)}
    every = {
        "dataset": sets[0],
        "loras": sets[1],
        "steps": 1,
        "width": 64,
        "height": 64,
        "total_steps": 1,
        **one,
        **named,
    }
    asked = {p.id for p in node.define_schema().inputs}
    return {k: v for k, v in every.items() if k in asked}


@pytest.mark.parametrize("path", HOSTILE)
def test_no_graph_reaches_outside_the_hosts_folders(loom, path):
    """Every input of every node that names a file, with every kind of hostile path."""
    make_lora(loom.comfy.base / "models" / "loras" / "a.safetensors")
    sets = dataset(loom), loom.run("Stack", lora="a.safetensors").values[0]
    found = inputs_with_paths(loom)
    assert len(found) > 45 and {("Saves", "thumbnail"), ("Batches", "metadata_file"), ("Img2Img", "vae")} <= set(found)
    for id, name in found:
        values = {**fitting(loom, id, sets), name: path}
        with pytest.raises(LoomError) as refused:
            result = loom.run(id, **values)
            assert id in ("Batches", "Saves"), f"{id} took {name} = {path!r}"
            loom.run("Train", **training(loom, **{f"options_{GROUPS[id]}": result.values[0]}))
        assert "Traceback" not in str(refused.value)
    assert not work_files(loom.comfy.base.parent) - {"comfy"}


GROUPS = {"Batches": "dataset", "Saves": "saves"}


def work_files(folder):
    return {path.name for path in folder.iterdir()}


def test_what_comes_from_nodes_cannot_be_written_into_a_graph(loom):
    """An API prompt may hold any JSON in the place of a link."""
    hostile = {"optimizer_class": "os.system", "cache_dir": "/etc"}
    for name in ("options_optimization", "options_memory"):
        with pytest.raises(ConfigError, match="must be connected"):
            loom.run("Train", **training(loom, **{name: hostile}))
    for given in ({"folder": "/etc"}, "/etc"):
        with pytest.raises(ConfigError, match="must be connected"):
            loom.run("DatasetReport", dataset=given)
    with pytest.raises(ConfigError, match="must be connected"):
        loom.run("Merge", loras=[{"path": "/etc/x"}], name="x")
    with pytest.raises(ConfigError, match="must be connected"):
        loom.run("Generate", recipe={"job": {}}, base=DEMO_BASE)


def test_links_out_of_the_input_folder_are_not_followed_and_allowed_folders_are(loom, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (64, 64)).save(outside / "a.png")
    (loom.comfy.folder("input") / "link").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        dataset(loom, other_folder="link")
    with pytest.raises(ConfigError, match=r"settings\.json"):
        dataset(loom, other_folder=str(outside))
    settings = loom.part("places").settings_file()
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps({"allowed_folders": [str(outside)]}))
    assert dataset(loom, other_folder=str(outside)).folder == str(outside.resolve())
    settings.write_text("{")
    with pytest.raises(FileError, match=r"settings\.json cannot be read"):
        dataset(loom, other_folder=str(outside))


def test_a_folder_that_is_linked_into_those_of_loras_is_written_too(loom, tmp_path):
    other = tmp_path / "other disk"
    other.mkdir()
    (other / "a.safetensors").touch()
    loras = loom.part("places").lora_folder()
    (loras / "linked").symlink_to(other)
    job = MetadataJob(str(loras / "linked" / "a.safetensors"))
    assert loom.part("places").checked(job).lora == str(other / "a.safetensors")
    with pytest.raises(ConfigError, match="outside the folders"):
        loom.part("places").checked(MetadataJob(str(tmp_path / "a.safetensors")))


def test_a_picture_prefix_cannot_leave_the_output_folder(loom):
    small = {"width": 64, "height": 64, "steps": 1, "base": DEMO_BASE}
    for name in ("../../x", "/tmp/x", "a/../../x"):
        with pytest.raises(ConfigError, match="as in Save Image"):
            loom.run("Generate", name=name, **small)
    assert not list(loom.comfy.base.parent.glob("x*"))


# --- routes


def ask(loom, method, path, **parts):
    """The answer of a route's own function."""
    found = loom.part("routes")
    name = {"/lora_loom/jobs": "jobs", "/lora_loom/jobs/{id}": "job", "/lora_loom/jobs/{id}/files/{number}": "file"}
    assert (method, path) in loom.comfy.routes
    return getattr(found, name.get(path, "command"))(parts)


def test_routes_speak_of_jobs_by_id_and_never_of_paths(loom):
    saves = loom.run("Saves", preview_every_steps=2, preview_steps=1, state_every_steps=0).values[0]
    loom.run("Train", **training(loom, options_saves=saves, total_steps=2))
    listed = ask(loom, "get", "/lora_loom/jobs")["jobs"]
    id = listed[-1]["id"]
    assert listed[-1]["node"] == "1" and listed[-1]["over"]
    shown = ask(loom, "get", "/lora_loom/jobs/{id}", id=id)
    assert str(loom.comfy.base) not in json.dumps([listed, shown])
    assert len(shown["losses"]) == 2 and shown["previews"]
    number = str(shown["previews"][0]["file"])
    assert ask(loom, "get", "/lora_loom/jobs/{id}/files/{number}", id=id, number=number).suffix == ".png"
    lora = next(m["file"] for m in shown["marks"] if m["kind"] == "lora")
    for wrong in (str(lora), "99", "-99"):
        assert ask(loom, "get", "/lora_loom/jobs/{id}/files/{number}", id=id, number=wrong) is None
    assert ask(loom, "get", "/lora_loom/jobs/{id}", id="../../etc") is None
    for id_, command in ((id, "save"), (id, "close"), ("0" * 12, "stop")):
        with pytest.raises(ValueError):
            ask(loom, "post", "/lora_loom/jobs/{id}/{command}", id=id_, command=command)


def test_only_host_py_imports_the_host():
    import ast

    hosts = {"comfy", "comfy_api", "folder_paths", "server", "nodes", "aiohttp"}
    for path in (ROOT / "comfy_nodes").glob("*.py"):
        names = {
            (n.module or "").partition(".")[0] if isinstance(n, ast.ImportFrom) else a.name.partition(".")[0]
            for n in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(n, (ast.Import, ast.ImportFrom)) and not getattr(n, "level", 0)
            for a in n.names
        }
        assert path.name == "host.py" or not names & hosts, path.name


def test_the_grid_compares_the_saves_of_one_training_though_another_has_its_name(loom, tmp_path):
    same_training, tensors = loom.part("run_epochs").same_training, {"x.lora_down.weight": torch.ones(1)}
    for session, names in (("1", ("cat-000010", "cat")), ("2", ("cat-000010-2", "cat-000020", "cat-2"))):
        for name in names:
            save_file(tensors, tmp_path / f"{name}.safetensors", {"ss_session_id": session})
    save_file(tensors, tmp_path / "owl-000010.safetensors")
    for name, stems in (("cat", ["cat-000010", "cat"]), ("cat-2", ["cat-000010-2", "cat-000020", "cat-2"])):
        chosen = same_training(tmp_path / f"{name}.safetensors")
        assert chosen == {"loras": tuple(str(tmp_path / f"{stem}.safetensors") for stem in stems)}
    told = same_training(tmp_path / "owl-000010.safetensors")
    assert told == {"folder": str(tmp_path), "name": "owl"}
