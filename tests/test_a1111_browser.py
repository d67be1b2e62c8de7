"""The A1111 page driven in a real Chromium: start the demo's training, watch, reload, pause, stop, find the LoRA."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "hosts"))

from cdp import browser
from web_packages import HOSTS, cases


@pytest.mark.parametrize("host", HOSTS)
def test_the_page_in_chromium(host):
    if browser() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    if importlib.util.find_spec("diffusers") is None:
        pytest.skip("the engine is not installed here")
    done = cases(host, "gradio_browser.py")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
