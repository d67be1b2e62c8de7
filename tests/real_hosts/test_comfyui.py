"""The whole of ComfyUI, started on the CPU with LoRA Loom in its custom_nodes, asked over HTTP.

Set COMFYUI_DIR and COMFYUI_PYTHON; COMFYUI_SD15 names an SD 1.5 checkpoint for the tests of ComfyUI's own loader.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from comfyui_server import ROOT, Server, as_prompt, install_pack, messages
from PIL import Image

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

BASE = "demo_base (demo)"
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
SHORT = {"total_steps": 2, "steps": 2, "batch_count": 1, "strengths": "1"}
FREEZE = ["-m", "pip", "freeze", "--all"]


def python() -> str:
    return os.environ.get("COMFYUI_PYTHON", "python3")


@pytest.fixture(scope="module")
def frozen():
    return subprocess.run([python(), *FREEZE], capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory, frozen):
    folder = os.environ.get("COMFYUI_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("COMFYUI_DIR does not name a folder with the real program")
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("models/checkpoints", "models/loras", "input", "output", "user", "temp"):
        (base / name).mkdir(parents=True)
    if os.environ.get("COMFYUI_SD15"):
        (base / "models/checkpoints/sd15.safetensors").symlink_to(os.environ["COMFYUI_SD15"])
    pack = install_pack(base)
    prepared = subprocess.run([python(), str(pack / "install.py"), "--strict"], capture_output=True, text=True)
    if prepared.returncode:
        pytest.skip(f"the engine could not be prepared: {prepared.stdout}{prepared.stderr}")
    running = Server.start(Path(folder), python(), base)
    yield running
    running.stop()


def training(server, **values):
    short = {"base": BASE, "total_steps": 3, "resolution": 64, "trigger": "armin_vicerre", "preview_prompts": "x"}
    return {
        "data": server.node("LoraLoomDataset", folder="armin_vicerre (demo)"),
        "train": server.node("LoraLoomTrain", dataset=["data", 0], **{**short, **values}),
    }


def test_all_nodes_are_there_and_nothing_of_the_host_changed(server, frozen):
    infos = server.get("/object_info")
    recorded = json.loads((ROOT / "tests/data/comfyui_nodes.json").read_text("utf-8"))
    assert recorded.keys() <= infos.keys()
    for name in recorded:
        assert infos[name]["python_module"] == "custom_nodes.lora-loom" and infos[name]["description"]
    assert "IMPORT FAILED" not in next(line for line in server.text().splitlines() if "lora-loom" in line)
    assert subprocess.run([python(), *FREEZE], capture_output=True, text=True).stdout == frozen
    assert server.get("/workflow_templates")["lora-loom"]
    words = server.get("/i18n")
    assert words["zh"]["nodeDefs"]["LoraLoomTrain"]["display_name"] == "训练 LoRA"


def test_the_start_takes_less_than_50_milliseconds(server):
    probe, pack = ROOT / "tests/real_hosts/probes/comfyui_import.py", server.base / "custom_nodes/lora-loom"
    command = [python(), str(probe), os.environ["COMFYUI_DIR"], str(pack)]
    count, *took = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert int(count) > 30 and min(map(float, took)) < 50


def test_the_page_gets_scripts_help_and_templates(server):
    import urllib.request

    def fetched(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
            return answer.read()

    assert "/extensions/lora-loom/lora_loom.js" in server.get("/extensions")
    assert b"registerExtension" in fetched("/extensions/lora-loom/lora_loom.js")
    assert b"# Train LoRA" in fetched("/extensions/lora-loom/docs/LoraLoomTrain.md")
    for path in EXAMPLES:
        name = path.name.replace(" ", "%20")
        assert json.loads(fetched(f"/api/workflow_templates/lora-loom/{name}"))["nodes"]
        assert fetched(f"/api/workflow_templates/lora-loom/{name.removesuffix('.json')}.jpg")[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_workflows_run(server, path):
    prompt = as_prompt(json.loads(path.read_text("utf-8")), server.get("/object_info"))
    for node in prompt.values():
        node["inputs"] |= {
            k: v for k, v in SHORT.items() if k in node["inputs"] and not isinstance(node["inputs"][k], list)
        }
        if node["class_type"] == "LoraLoomTrain":
            node["inputs"]["resolution"] = 64
    outputs = server.run(prompt)
    pictures = [shown for said in outputs.values() for shown in said.get("images", ())]
    assert pictures
    for shown in pictures:
        with Image.open(server.picture(shown)) as picture:
            assert picture.size[0] >= 64
    assert not any("Traceback" in line for line in server.text().partition("got prompt")[2].splitlines())


def test_pictures_hold_the_graph_and_the_parameters(server):
    drawn = server.node("LoraLoomGenerate", base=BASE, prompt="1boy", width=64, height=64, steps=2, name="made/by us")
    shown = server.run({"1": drawn})["1"]["images"][0]
    with Image.open(server.picture(shown)) as picture:
        assert json.loads(picture.text["prompt"])["1"]["class_type"] == "LoraLoomGenerate"
        assert "workflow" in picture.text and "Steps: 2" in picture.text["parameters"]


def test_a_training_is_cancelled_within_a_step_and_kept(server):
    prompt = training(server, name="cancelled", total_steps=50_000)
    id = server.queue(prompt)
    job = until(lambda: next((j for j in server.get("/lora_loom/jobs")["jobs"] if j["title"] == "cancelled"), None))
    until(lambda: len(server.get(f"/lora_loom/jobs/{job['id']}")["losses"]) >= 2)
    server.post("/interrupt")
    done = server.wait(id)
    assert "execution_interrupted" in messages(done) and "execution_error" not in messages(done)
    shown = server.get(f"/lora_loom/jobs/{job['id']}")
    assert shown["state"] == "stopped" and shown["resumable"]
    assert list((server.base / "models/loras").glob("cancelled*.safetensors"))
    listed = server.get("/object_info/LoraLoader")["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert any(name.startswith("cancelled") for name in listed)
    states = [path.name for path in server.base.rglob("state*.safetensors")]
    assert states and not set(states) & {Path(name).name for name in listed}
    again = server.queue(prompt)
    goes_on = until(lambda: next((j for j in server.get("/lora_loom/jobs")["jobs"] if j["state"] == "running"), None))
    curve = until(lambda: server.get(f"/lora_loom/jobs/{goes_on['id']}")["losses"])
    server.post("/interrupt")
    server.wait(again)
    assert curve[0][0] == 1 and curve[-1][0] > shown["losses"][-1][0], "queued again, it goes on where it ended"


def test_a_mistake_is_a_sentence_on_the_node(server):
    (server.base / "input" / "empty").mkdir(exist_ok=True)
    prompt = training(server, name="nothing")
    prompt["data"]["inputs"] |= {"folder": "empty"}
    done = server.wait(server.queue(prompt))
    said = messages(done)["execution_error"]
    assert "picture" in said and "Traceback" not in said


def test_memory_comes_back_after_success_failure_and_cancel(server):
    def end(kind):
        prompt = training(server, name=f"memory_{kind}", total_steps=50_000 if kind == "cancel" else 2)
        if kind == "failure":
            prompt["data"]["inputs"] |= {"folder": "empty"}
        id = server.queue(prompt)
        if kind == "cancel":
            title = f"memory_{kind}"
            job = until(lambda: next((j for j in server.get("/lora_loom/jobs")["jobs"] if j["title"] == title), None))
            until(lambda: server.get(f"/lora_loom/jobs/{job['id']}")["losses"])
            server.post("/interrupt")
        server.wait(id)

    (server.base / "input" / "empty").mkdir(exist_ok=True)
    end("success")
    before, child = resident(server.process.pid), [resident(pid) for pid in children(server)]
    for kind in ("success", "failure", "cancel", "success"):
        end(kind)
    assert resident(server.process.pid) < before + 60 and len(children(server)) == len(child) == 1
    assert resident(children(server)[0]) < child[0] + 120


def resident(pid) -> float:
    """MiB of memory that a process holds for itself."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def until(ready, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError("it did not happen in time")


@pytest.mark.skipif(not os.environ.get("COMFYUI_SD15"), reason="COMFYUI_SD15 names no checkpoint")
def test_the_hosts_own_loader_and_models_before_and_after_a_training(server):
    def drawn(prefix, lora=None):
        prompt = picture(server, prefix)
        if lora:
            links = {"model": ["model", 0], "clip": ["model", 1]}
            prompt["lora"] = server.node("LoraLoader", lora_name=lora, **links)
            prompt["text"]["inputs"]["clip"], prompt["sample"]["inputs"]["model"] = ["lora", 1], ["lora", 0]
        return pixels(server, prompt)

    before = drawn("before")
    prompt = training(server, base="sd15.safetensors", name="full", total_steps=1) | picture(server, "native")
    prompt["native"] = server.node("LoraModelLoader", model=["model", 0], lora=["train", 0], strength_model=1.0)
    prompt["sample"]["inputs"]["model"] = ["native", 0]
    assert pixels(server, prompt), "what Train gives out fits ComfyUI's own Load LoRA Model"
    assert drawn("after") == before
    assert drawn("with", "full.safetensors") != b""
    assert "lora key not loaded" not in server.text() and "ERROR lora" not in server.text()
    server.run(training(server, name="narrow", total_steps=1))
    for name, fits in (("full", True), ("narrow", False)):
        prompt = picture(server, name)
        links = {"model": ["model", 0], "clip": ["model", 1]}
        prompt["load"] = server.node("LoraLoomLoad", lora=f"{name}.safetensors", **links)
        prompt["sample"]["inputs"]["model"], prompt["text"]["inputs"]["clip"] = ["load", 0], ["load", 1]
        said = messages(server.wait(server.queue(prompt))).get("execution_error", "")
        assert not said if fits else "was made for a model of other sizes" in said, said


def picture(server, prefix):
    """A prompt of ComfyUI's own nodes that draws a picture."""
    return {
        "model": server.node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        "text": server.node("CLIPTextEncode", clip=["model", 1], text="a cat"),
        "empty": server.node("EmptyLatentImage", width=64, height=64),
        "sample": server.node(
            "KSampler",
            model=["model", 0],
            positive=["text", 0],
            negative=["text", 0],
            latent_image=["empty", 0],
            seed=5,
            steps=2,
        ),
        "decode": server.node("VAEDecode", samples=["sample", 0], vae=["model", 2]),
        "save": server.node("SaveImage", images=["decode", 0], filename_prefix=prefix),
    }


def pixels(server, prompt):
    with Image.open(server.picture(server.run(prompt)["save"]["images"][0])) as drawn:
        return drawn.tobytes()


def test_killing_the_server_ends_its_child(server):
    server.queue(training(server, name="orphan", total_steps=50_000))
    job = until(lambda: next((j for j in server.get("/lora_loom/jobs")["jobs"] if j["title"] == "orphan"), None))
    until(lambda: len(server.get(f"/lora_loom/jobs/{job['id']}")["losses"]) >= 1)
    assert children(server)
    server.process.kill()
    server.process.wait(30)
    until(lambda: not children(server), 60)


def children(server) -> list[str]:
    """Processes of this pack's worker."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if "lora_core.worker" in line and str(server.base) in line:
            found.append(place.parent.name)
    return found
