"""Who may call our routes: the host's logins, this origin alone, small bodies. Plain ASGI, for every FastAPI."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from secrets import compare_digest
from typing import Any
from urllib.parse import urlsplit

MAX_BODY = 1 << 20
KEY_HEADER = "x-lora-loom"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Access:
    """What the host asks of a caller. `page_key`: sent by our own page, which only logged-in people get.

    `api`, `page`: passwords by user (--api-auth, --gradio-auth); `sessions`: gradio's logged-in tokens; `origins`:
    other origins that the host allows; `public`: whether the server is reached under names that we cannot know.
    """

    page_key: str = ""
    api: Mapping[str, str] = field(default_factory=dict)
    page: Mapping[str, str] = field(default_factory=dict)
    sessions: Mapping[str, Any] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    public: bool = False


def header(scope: Scope, name: str) -> str:
    wanted = name.encode("latin-1")
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted), "")


def refusal(scope: Scope, access: Access) -> tuple[int, str] | None:
    """Status and sentence for a request that is not let through."""
    fault = foreign(scope, access)
    if fault:
        return 403, fault
    if not known(scope, access):
        return 401, "A user name and password are needed: those of --api-auth or --gradio-auth."
    if scope["method"] in ("POST", "PUT", "PATCH") and not is_json(header(scope, "content-type")):
        return 415, "Send JSON, with the header Content-Type: application/json."
    length = header(scope, "content-length")
    if length and (not length.isdigit() or int(length) > MAX_BODY):
        return 413, f"The request is larger than {MAX_BODY >> 20} MB."
    return None


def foreign(scope: Scope, access: Access) -> str:
    """Why a request comes from another site; "" when it comes from ours, or from no browser."""
    host = header(scope, "host")
    origin = header(scope, "origin")
    if origin and (origin in access.origins or "*" in access.origins):
        return ""
    if not access.public and not is_local(hostname(f"//{host}")):
        return f"The server is called {host!r}, but it serves this computer only; --listen opens it."
    if origin and netloc(origin) != host.lower():
        return "Requests from other sites are refused."
    if header(scope, "sec-fetch-site") not in ("", "same-origin", "none"):
        return "Requests from other sites are refused."
    return ""


def hostname(url: str) -> str:
    with contextlib.suppress(ValueError):
        return (urlsplit(url).hostname or "").lower()
    return ""


def netloc(url: str) -> str:
    """Host and port of an address, "?" for what is none."""
    with contextlib.suppress(ValueError):
        return urlsplit(url).netloc.lower() or "?"
    return "?"


def is_local(name: str) -> bool:
    """Whether a host's name or address means this computer, whoever resolves it."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    return name.lower() == "localhost"


def known(scope: Scope, access: Access) -> bool:
    """Whether the caller has a password, a session of the page, or the page's key; anyone where none is asked for."""
    if not access.api and not access.page:
        return True
    key = header(scope, KEY_HEADER)
    if access.page_key and key and compare_digest(key.encode(), access.page_key.encode()):
        return True
    user, password = basic(header(scope, "authorization"))
    for logins in (access.api, access.page):
        if user in logins and compare_digest(password.encode(), logins[user].encode()):
            return True
    return any(token in access.sessions for token in session_tokens(header(scope, "cookie")))


def basic(value: str) -> tuple[str, str]:
    scheme, _, text = value.partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            user, _, password = base64.b64decode(text.strip(), validate=True).decode("utf-8").partition(":")
            return user, password
    return "", ""


def session_tokens(cookies: str) -> list[str]:
    """Values of gradio's cookies: access-token in 3.41, with the app's id behind it in 4.40."""
    pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
    return [value for name, _, value in pairs if name.startswith("access-token") and value]


def is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


class Guard:
    """An ASGI app in front of our routes. `access` is asked anew for each request."""

    def __init__(self, app: Callable[..., Awaitable[None]], access: Callable[[], Access]) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        fault = refusal(scope, self.access())
        if fault is not None:
            await refuse(send, *fault)
            return
        await self.app(scope, limited(receive), send)


def limited(receive: Receive) -> Receive:
    """The body's messages, until they are too many bytes: then it counts as broken off."""
    left = MAX_BODY

    async def next_message() -> MutableMapping[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return next_message


async def refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="LoRA Loom"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": sentence}).encode()})
