"""The AUTOMATIC1111 and Forge adapter, loaded as `lora_loom_a1111`. Modules here import each other relatively."""

from __future__ import annotations

from typing import Any


def register() -> type:
    """Announce our tabs, settings and routes to the WebUI. Called at its start and again at each "Reload UI".

    Returns the script class that scripts/lora_loom.py must hold for the WebUI to find it.
    """
    from . import host_pages

    host_pages.share_languages()
    host_pages.on("after_component", component_made)
    host_pages.on("ui_tabs", our_tab)
    host_pages.on("ui_train_tabs", train_tab)
    host_pages.on("ui_settings", settings)
    host_pages.on("app_started", routes)
    return host_pages.script_class(picture_begins)


def component_made(component: Any, **made_with: Any) -> None:
    from .webui import webui

    webui().component_made(component, made_with.get("elem_id"))


def our_tab() -> list[tuple[Any, str, str]]:
    from .host_pages import uncollected

    with uncollected():
        from . import tabs
        from .webui import webui

        return tabs.build(webui())


def train_tab(_: Any) -> None:
    """A pointer in A1111's own Train tab; Forge has none."""
    from . import pointer

    pointer.build()


def settings() -> None:
    from .host_pages import add_option
    from .settings_page import OPTIONS

    for option in OPTIONS:
        add_option(option)


def routes(_: Any, app: Any) -> None:
    from .api import mount
    from .webui import webui

    mount(app, webui())


def picture_begins(p: Any) -> None:
    from .webui import webui

    webui().picture_begins(p)
