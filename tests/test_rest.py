"""The REST API with the web packages of A1111 and of Forge, and against its own OpenAPI description."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(Path(__file__).parent / "hosts"))

from web_packages import HOSTS, cases  # noqa: E402


@pytest.mark.parametrize("host", HOSTS)
def test_rest(host):
    done = cases(host, "rest_cases.py")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_every_answer_is_as_described():
    done = cases("schemathesis", "rest_described.py")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_description_in_docs_is_up_to_date():
    script = [sys.executable, str(ROOT / "tools" / "write_openapi.py"), "--print"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8")) == json.loads(done.stdout), (
        "run python tools/write_openapi.py"
    )
