"""The page in a real Chromium; test_a1111_browser.py runs this with the interpreter of one host's gradio."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from cdp import Page
from fake_a1111 import DEMO
from PIL import Image

HERE = Path(__file__).resolve().parent
PANEL = "#lora_loom_page_train .loom-panel"
STEP = f"""(document.querySelector("{PANEL}").innerText.match(/step (\\d+) \\/ (\\d+)/) || [0, 0])[1] | 0"""
STEPS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The tab over a fake host with a real desk: (address, the host's folder)."""
    root, port = tmp_path_factory.mktemp("host"), free_port()
    log = open(root / "server.log", "wb")  # noqa: SIM115
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, str(HERE / "launch_tab.py"), str(root), str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/lora-loom-test/style.css", timeout=5)
                break
            except OSError:
                assert process.poll() is None, (root / "server.log").read_text("utf-8", "replace")
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/", root
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


@pytest.fixture
def page(server):
    with Page(server[0]) as opened:
        opened.until("!!window.loraLoom && !!document.querySelector('#lora_loom_demo')", 120)
        yield opened
        assert opened.errors == []


def set_number(page, name, value):
    """Type into a number field or a slider's number."""
    page.run(f"""(() => {{
        const field = document.querySelector("#lora_loom_train_{name} input");
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(field, "{value}");
        field.dispatchEvent(new Event("input", {{bubbles: true}}));
        field.dispatchEvent(new Event("blur", {{bubbles: true}}));
    }})()""")


def test_a_training_is_started_watched_left_found_again_and_stopped(page, server):
    address, root = server
    page.until("document.querySelector('#lora_loom_page_train').innerText.includes('No training yet')")
    page.click("#lora_loom_demo")
    page.until("document.querySelectorAll('.loom-captions textarea').length === 12", 90)
    set_number(page, "steps", STEPS)
    set_number(page, "save_every_steps", 5)
    time.sleep(1)
    page.click("#lora_loom_start")
    page.until(f"{STEP} >= 3", 240)
    assert page.run(f"document.querySelector('{PANEL}').innerText.includes('{STEPS}')")
    points = "document.querySelector('.loom-line.average')?.getAttribute('points').split(' ').length || 0"
    before = page.until(points)
    page.until(f"{points} > {before + 2}", 240)

    page.open(address)  # a reload: nothing is kept in the page
    page.until(f"!!window.loraLoom && document.querySelector('{PANEL}')?.innerText.includes('demo_character')", 120)
    page.until(f"document.querySelector('{PANEL} [data-act=stop]') !== null")
    page.until("document.querySelector('.loom-line.average') !== null")

    page.click(f"{PANEL} [data-act=pause]")
    page.until(f"document.querySelector('{PANEL} .loom-state').innerText === 'Paused'")
    page.click(f"{PANEL} [data-act=resume]")
    page.until(f"document.querySelector('{PANEL} .loom-state').innerText === 'Running'")
    page.click(f"{PANEL} [data-act=stop]")
    page.until(f"document.querySelector('{PANEL} .loom-state').innerText === 'Stopped'", 240)
    [name] = [path.stem for path in (root / "models" / "Lora").glob("demo_character*.safetensors")][-1:]
    assert page.until(f"document.querySelector('{PANEL} [data-act=again]').innerText") == "Resume"

    page.run("loraLoom.open('library')")
    page.click("#lora_loom_library_refresh")
    book = f"[...document.querySelectorAll('.loom-book')].find((b) => b.dataset.value === '{name}')"
    page.until(f"!!{book}", 60)
    page.run(f"{book}.click()")
    page.until("document.querySelector('#lora_loom_page_library .loom-table')?.innerText.includes('ComfyUI')", 60)


def test_captions_are_edited_in_place_and_faults_are_red_sentences(page, tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "green").save(tmp_path / f"{name}.png")
    page.click("#lora_loom_start")
    page.until("document.querySelector('.loom-error')?.innerText.includes('No pictures are named')")
    page.run(f"""(() => {{
        const field = document.querySelector("#lora_loom_train_folder input, #lora_loom_train_folder textarea");
        Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, {str(tmp_path)!r});
        field.dispatchEvent(new Event("input", {{bubbles: true}}));
    }})()""")
    time.sleep(0.5)
    page.click("#lora_loom_look")
    page.until("document.querySelectorAll('.loom-captions textarea').length === 2", 60)
    assert page.run("document.querySelector('[data-loom-captions]').disabled")
    page.run("""(() => {
        const field = document.querySelector(".loom-captions textarea[data-name='a.png']");
        field.value = "Grün, 'x' <b>";
        field.dispatchEvent(new Event("input", {bubbles: true}));
        document.querySelector("[data-loom-captions]").click();
    })()""")
    page.until("document.querySelector('.loom-good')?.innerText.includes('1 captions saved')", 60)
    assert (tmp_path / "a.txt").read_text("utf-8") == "Grün, 'x' <b>\n"
    assert not (tmp_path / "b.txt").exists()


def test_a_mask_painted_in_the_browser_reaches_the_job(page, server, tmp_path):
    page.run("loraLoom.open('inpaint')")
    editor = "#lora_loom_inpaint_editor"
    page.until(f"document.querySelector('{editor} input[type=file]') !== null")
    with Image.open(DEMO / "armin_vicerre" / "armin_vicerre_01.png") as small:
        small.resize((512, 512)).save(tmp_path / "large.png")  # 4.40's palette lies over a small one
    page.files(f"{editor} input[type=file]", [tmp_path / "large.png"])
    time.sleep(4)
    if page.run(f"!!document.querySelector('{editor} button[aria-label^=Draw]')"):
        page.click(f"{editor} button[aria-label^=Draw]")
    time.sleep(1)
    page.run(f"document.querySelector('{editor}').scrollIntoView({{block: 'center'}})")
    box = page.run(f"""(() => {{
        const all = [...document.querySelectorAll('{editor} canvas')];
        const r = all.map((c) => c.getBoundingClientRect()).filter((r) => r.width > 60 && r.height > 60).pop();
        return [r.x, r.y, r.width, r.height];
    }})()""")
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    page.drag([(x - 20 + i * 4, y) for i in range(11)])
    time.sleep(1.5)
    page.click("#lora_loom_inpaint_generate")
    page.until("document.querySelector('#lora_loom_page_inpaint .loom-panel .loom-state') !== null", 120)
    masks = sorted((server[1] / "lora_loom" / "inpaint").glob("*/mask.png"))
    with Image.open(masks[-1]) as mask, Image.open(masks[-1].with_name("picture.png")) as picture:
        assert mask.size == picture.size and mask.mode == "L"
        found = mask.getbbox()
        centre = (found[0] + found[2]) / 2 / mask.width, (found[1] + found[3]) / 2 / mask.height
        assert abs(centre[0] - 0.5) < 0.15 and abs(centre[1] - 0.5) < 0.15
        assert (found[2] - found[0]) > (found[3] - found[1])


def test_a_jpegs_recipe_is_read_as_it_was_dropped(page, tmp_path):
    exif, told = Image.Exif(), "a cat\nSteps: 9, Sampler: Euler a, CFG scale: 6.5, Seed: 424242, Size: 128x64"
    exif[0x8769] = {0x9286: b"UNICODE\0" + told.encode("utf_16_be")}
    Image.new("RGB", (128, 64), "red").save(tmp_path / "made.jpg", exif=exif)
    page.run("loraLoom.open('recipes')")
    page.until("document.querySelector('#lora_loom_recipe_picture input[type=file]') !== null")
    page.files("#lora_loom_recipe_picture input[type=file]", [tmp_path / "made.jpg"])
    page.until("document.querySelector('#lora_loom_page_recipes .loom-facts')?.innerText.includes('424242')", 60)
    assert page.run("document.querySelector('#lora_loom_recipe_text textarea').value").startswith("a cat")
