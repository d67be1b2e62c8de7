"""The tab "LoRA Loom" with its pages."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from .host_api import Host
from .page import Bridge, Handlers, Page
from .tab_choose import ChooseTab
from .tab_doctor import DoctorTab
from .tab_inpaint import InpaintTab
from .tab_library import LibraryTab
from .tab_merge import MergeTab
from .tab_recipes import RecipesTab
from .tab_train import TrainTab

TITLE, ELEM_ID = "LoRA Loom", "lora_loom"
PAGES = (
    ("Train", TrainTab),
    ("Choose", ChooseTab),
    ("Library", LibraryTab),
    ("Merge", MergeTab),
    ("Inpaint", InpaintTab),
    ("Recipes", RecipesTab),
    ("Doctor", DoctorTab),
)


def build(host: Host) -> list[tuple[gr.Blocks, str, str]]:
    """What `on_ui_tabs` wants: (Blocks, title, elem_id)."""
    page = Page(host)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(
            f'<span data-key="{escape(host.page_key())}"></span>', elem_id="lora_loom_key", elem_classes="loom-hidden"
        )
        with gr.Tabs(elem_id="lora_loom_tabs"):
            for title, build_page in PAGES:
                with gr.Tab(title, elem_id=f"lora_loom_page_{title.lower()}"):
                    build_page(page)
        keep_lists_fresh(page)
    keep_out_of_ui_config(blocks)
    return [(blocks, TITLE, ELEM_ID)]


def keep_lists_fresh(page: Page) -> None:
    """The lists of all pages are read again by any Refresh button, and when a job has ended."""
    handlers, library = Handlers.make(), page.shared["library"]
    ended = Bridge.make("loom_fresh")
    for trigger in (ended.go.click, page.shared["train"].refresh.click, library.refresh.click):
        handlers.bind(trigger, page.fresh_lists, (), page.fresh_lists())
    handlers.bind(ended.go.click, library.searched, {library.search}, [library.shelf])


def keep_out_of_ui_config(blocks: Any) -> None:
    """A1111 stores defaults of widgets by label and would bring back old ones after an update."""
    for block in blocks.blocks.values():
        block.do_not_save_to_config = True
