"""The tab on its own, in a plain gradio, for looking at it and for browser tests: python launch_tab.py FOLDER PORT."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import fastapi  # noqa: E402
import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fake_a1111 import ROOT, FakeHost, extension  # noqa: E402
from starlette.responses import HTMLResponse, Response  # noqa: E402

HEAD = '<script src="lora-loom-test/lora_loom.js"></script><link rel="stylesheet" href="lora-loom-test/style.css">'
A1111_STYLE = ".gradio-container{max-width:unset!important} footer{display:none!important}"


class Injected:
    """Puts our script and style into the page, as the hosts do."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/":
            return await self.app(scope, receive, send)
        parts, start = [], {}

        async def collect(message):
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, collect)
        body = b"".join(parts).replace(b"</head>", f"{HEAD}<style>{A1111_STYLE}</style></head>".encode())
        await HTMLResponse(body.decode(), status_code=start["status"])(scope, receive, send)


def routes(app, host):
    """The page's routes, as `api.py` gives them in the hosts."""

    @app.get("/lora-loom-test/{name}")
    def asset(name: str):
        path = ROOT / ("javascript" if name.endswith(".js") else "") / name
        kind = "text/javascript" if name.endswith(".js") else "text/css"
        return Response(path.read_text("utf-8") if path.is_file() else "", media_type=kind)

    extension()
    from lora_loom_a1111 import api

    api.mount(app, host)


def make_app(host):
    app = fastapi.FastAPI()
    extension()
    from lora_loom_a1111 import tabs

    routes(app, host)
    [(blocks, title, elem_id)] = tabs.build(host)
    theme = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    with gr.Blocks(title="WebUI", analytics_enabled=False, theme=theme) as demo, gr.Tabs(elem_id="tabs"):
        with gr.TabItem(title, id=elem_id, elem_id=f"tab_{elem_id}"):
            blocks.render()
        with gr.TabItem("txt2img", id="txt2img"):
            gr.Textbox(label="Prompt")
    demo.queue()
    mounted = gr.mount_gradio_app(app, demo, path="/")
    return Injected(mounted)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    host = FakeHost(options.folder)
    try:
        uvicorn.run(make_app(host), host="127.0.0.1", port=options.port, log_level="warning")
    finally:
        host.desk.close(5)


if __name__ == "__main__":
    main()
