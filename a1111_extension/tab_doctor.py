"""The page "Doctor": what works here, what to do about the rest, and the engine's installation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from lora_core import doctor, overlay_install
from lora_core.errors import LoomError

from . import compat
from .page import Page, heading, quiet, sentence


class DoctorTab:
    """Builds the page and holds its handlers."""

    def __init__(self, page: Page) -> None:
        heading("Doctor", "Python, host, folders, engine, device, and a training of two steps")
        with gr.Row(elem_classes="loom-row"):
            self.look = gr.Button("Examine", variant="primary", elem_id="lora_loom_examine")
            self.install = gr.Button("Install the engine", elem_id="lora_loom_install")
        gr.HTML(quiet(
            "The engine is a folder of our own (diffusers, transformers, peft); the host's packages stay as they are. "
            "Installing needs the internet once."
        ))  # fmt: skip
        self.told = gr.HTML("", elem_id="lora_loom_findings")
        compat.on(self.look.click, self.examined, None, [self.told])
        compat.on(self.install.click, self.installed, None, [self.told])

    def examined(self) -> Iterator[str]:
        """The findings, as they are made."""
        found: list[doctor.Finding] = []
        yield quiet("Looking ...")
        for finding in doctor.findings():
            found.append(finding)
            yield findings_html(found) + quiet("Looking ...")
        wrong = sum(not finding.ok for finding in found)
        verdict = "All is well." if not wrong else f"{wrong} of {len(found)} need attention."
        cls = "loom-good" if not wrong else "loom-error"
        yield findings_html(found) + f'<p class="{cls}">{verdict}</p>'

    def installed(self) -> Iterator[str]:
        """What the installer says, line by line."""
        lines: list[str] = []
        for line in told(lambda say: overlay_install.prepare(installer=overlay_install.Installer(say=say))):
            if isinstance(line, LoomError):
                yield log_html(lines) + sentence(line)
                return
            lines.append(line)
            yield log_html(lines) + quiet("Installing ...")
        yield log_html(lines) + '<p class="loom-good">The engine is ready.</p>'


def told(work: Callable[[Callable[[str], None]], Any]) -> Iterator[str | LoomError]:
    """Run `work(say)` in a thread and yield what it says; last its LoomError, if it raised one."""
    said: queue.Queue[str | LoomError | None] = queue.Queue()

    def run() -> None:
        try:
            work(said.put)
        except LoomError as error:
            said.put(error)
        finally:
            said.put(None)

    threading.Thread(target=run, name="lora-loom-install", daemon=True).start()
    while (line := said.get()) is not None:
        yield line


def findings_html(found: list[doctor.Finding]) -> str:
    rows = "".join(
        f'<tr><td><i class="{"loom-yes" if f.ok else "loom-no"}"></i>{escape(f.name)}</td>'
        f"<td>{escape(f.text)}</td></tr>"
        for f in found
    )
    return f'<table class="loom-table">{rows}</table>'


def log_html(lines: list[str]) -> str:
    return f'<pre class="loom-pre">{escape(chr(10).join(lines))}</pre>' if lines else ""
