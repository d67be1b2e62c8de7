"""The A1111 page driven in a real Chromium: start the demo's training, watch, reload, pause, stop, find the LoRA."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "hosts"))

from cdp import browser
from gradio_venv import HOSTS, python_of, run_tests


@pytest.mark.parametrize("host", HOSTS)
def test_the_page_in_chromium(host):
    python, reason = python_of(host)
    if python is None:
        pytest.skip(reason)
    if browser() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    if importlib.util.find_spec("diffusers") is None:
        pytest.skip("the engine is not installed here")
    status, output = run_tests(python, "gradio_browser.py", seconds=1500)
    assert status == 0, output
