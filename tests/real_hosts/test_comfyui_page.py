"""ComfyUI's own page in Chromium with LoRA Loom's panel: live curve, previews, buttons, a reload in the middle.

Set COMFYUI_DIR and COMFYUI_PYTHON, and COMFYUI_FRONTEND where the page is not installed with ComfyUI; needs Chromium
and `websockets`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from comfyui_server import ROOT

sys.path.insert(0, str(ROOT / "tests" / "hosts"))
pytest.importorskip("websockets")
import cdp
from test_comfyui import frozen, server  # noqa: F401  (two fixtures)

pytestmark = [
    pytest.mark.real_host,
    pytest.mark.slow,
    pytest.mark.skipif(cdp.browser() is None, reason="there is no Chromium"),
]

READY = "!!(window.app?.graph && window.app.extensions?.some(e => e.name === 'LoraLoom'))"
PANEL = "window.app.graph.nodes.find(n => n.type === 'LoraLoomTrain').loraLoom"
KEEP = ("LoraLoomTrain", "LoraLoomDataset")
VALUES = {"total_steps": 2000, "resolution": 64, "name": "page"}


def panel(page, what):
    return page.run(f"{PANEL}.{what}")


def press(page, act):
    page.until(f"!{PANEL}.root.querySelector('[data-act={act}]').disabled")
    page.run(f"{PANEL}.root.querySelector('[data-act={act}]').click()")


def loaded(page):
    """The example with its training alone, made long."""
    graph = json.loads((ROOT / "example_workflows/1 Train and use.json").read_text("utf-8"))
    page.run(f"window.app.loadGraphData({json.dumps(graph)})")
    page.until("window.app.graph.nodes.some(n => n.type === 'LoraLoomTrain')")
    page.run(f"for (const n of [...app.graph.nodes]) if (!{json.dumps(KEEP)}.includes(n.type)) app.graph.remove(n)")
    page.run(
        f"for (const [k, v] of Object.entries({json.dumps(VALUES)}))"
        " app.graph.nodes.find(n => n.type === 'LoraLoomTrain').widgets.find(w => w.name === k).value = v"
    )


def test_the_panel_lives_through_a_training(server, tmp_path):  # noqa: F811
    with cdp.Page(f"http://127.0.0.1:{server.port}", 120) as page:
        page.size(1200, 1050)
        page.until(READY, 120)
        page.run("app.graph.clear(); app.graph.add(LiteGraph.createNode('LoraLoomTrain')); null")
        widgets = "app.graph.nodes.find(n => n.type === 'LoraLoomTrain').widgets"
        assert page.run(f"{widgets}.find(w => w.name === 'seed').linkedWidgets[0].value") == "fixed"
        loaded(page)
        assert panel(page, "stage.textContent") == "Nothing trained yet"
        page.run("app.queuePrompt(0)")
        page.until(f"{PANEL}.state.losses.length >= 3 && {PANEL}.chart.querySelectorAll('polyline').length >= 1", 300)
        marks = panel(page, "state.marks.length")
        press(page, "save")
        page.until(f"{PANEL}.state.marks.length > {marks}", 120)
        press(page, "sample")
        page.until(f"{PANEL}.previews.children.length >= 2", 300)
        press(page, "pause")
        page.until(f"{PANEL}.state.state === 'paused'", 120)
        held = panel(page, "state.losses.length")
        page.run("window.before = true")
        page.call("Page.reload")
        page.until(f"!window.before && {READY} && !!{PANEL}?.state?.losses?.length", 180)
        assert panel(page, "state.state") == "paused" and panel(page, "state.losses.length") == held
        assert panel(page, "previews.children.length") >= 2
        page.until(f"[...{PANEL}.previews.querySelectorAll('img')].every(i => i.complete && i.naturalWidth > 0)")
        press(page, "pause")
        page.until(f"{PANEL}.state.losses.length > {held + 2}", 300)
        press(page, "stop")
        page.until(f"{PANEL}.state.over && {PANEL}.state.state === 'stopped'", 300)
        assert "go on" in panel(page, "note.textContent") and panel(page, "buttons.pause.textContent") == "Go on"
        page.screenshot(tmp_path / "stopped.png")
        reached = panel(page, "state.losses.at(-1)[0]")
        press(page, "pause")
        page.until(f"{PANEL}.state.state === 'running' && {PANEL}.state.losses.at(-1)?.[0] > {reached}", 300)
        assert panel(page, "state.losses[0][0]") == 1, "the curve continues that of the stopped training"
        page.run("fetch('/api/interrupt', {method: 'POST'})")
        page.until(f"{PANEL}.state.over", 300)
        assert not [error for error in page.errors if "lora" in error.lower()]
    assert list((Path(server.base) / "models/loras").glob("page*.safetensors"))
