"""The demo that `make demo` runs: a LoRA from shipped pictures, drawn and measured on one page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_core.commands import Commands
    from lora_core.events import Event
    from lora_core.jobs.demo import DemoJob


def run_demo(job: DemoJob, commands: Commands | None = None) -> Iterator[Event]:
    """See `lora_core.demo.story.run_demo`; the engine is imported when the demo runs."""
    from lora_core.demo.story import run_demo as story

    return story(job, commands)
