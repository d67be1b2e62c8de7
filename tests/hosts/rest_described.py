"""Schemathesis: made-up requests to every route are answered as docs/openapi.json says, and never with a 500."""

import hypothesis
import pytest
import schemathesis
from fake_a1111 import FakeHost, extension
from fastapi import FastAPI
from schemathesis.specs.openapi.checks import ignored_auth

from lora_core.desk import Desk
from lora_core.remote import Child

extension()

from lora_loom_a1111 import api  # noqa: E402


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    host = FakeHost(folder / "host", Desk(folder / "jobs", Child(python="/no/such/python")))
    app = FastAPI()
    api.mount(app, host)
    yield app
    host.desk.close(2)


@pytest.fixture
def described(app):
    return schemathesis.from_asgi("/lora-loom/v1/openapi.json", app, headers={"host": "127.0.0.1"})


schema = schemathesis.from_pytest_fixture("described")


@schema.parametrize()
@hypothesis.settings(max_examples=6, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_every_operation(case):
    response = case.call_asgi(headers={**(case.headers or {}), "host": "127.0.0.1"})
    case.validate_response(response, excluded_checks=(ignored_auth,))  # a host without passwords asks for none
