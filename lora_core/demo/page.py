"""The demo's page: one HTML file with relative links, no script, nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from lora_core.demo.figures import BAR, Figures, clock

TEMPLATE = Path(__file__).parents[1] / "assets" / "demo" / "page.html"


@dataclass(frozen=True)
class Shown:
    """A picture on the page: its path relative to the page, its size, and what stands below it."""

    path: str
    size: tuple[int, int]
    caption: str = ""

    def html(self, css: str = "") -> str:
        width, height = self.size
        text = escape(self.caption)
        tag = f'<img src="{escape(self.path)}" width="{width}" height="{height}" alt="{text}" title="{text}">'
        return f'<figure class="{css}">{tag}</figure>'


@dataclass(frozen=True)
class Gallery:
    """The pictures of the page."""

    training: Sequence[Shown]
    others: Sequence[Shown]
    grid: Shown
    loss: Shown
    inpainting: Shown


def page(figures: Figures, gallery: Gallery) -> str:
    """The HTML text."""
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        trigger=escape(figures.trigger),
        tiles="\n".join(tile(*values) for values in _tiles(figures)),
        training="\n".join(shown.html("thumb") for shown in gallery.training),
        others="\n".join(shown.html("thumb") for shown in gallery.others),
        grid=gallery.grid.html(),
        loss=gallery.loss.html(),
        inpainting=gallery.inpainting.html(),
        rows="\n".join(_row(name, value) for name, value in figures.rows()),
        lora=escape(figures.lora.name),
        sha256=figures.lora.sha256,
        base_sha256=figures.base.sha256,
    )


def _tiles(figures: Figures) -> list[tuple[str, str, str, str]]:
    t, m = figures.trained, figures.measured
    return [
        (
            f"{m.with_lora.value:.0%}",
            "show the character",
            f"{m.with_lora} new prompts at strength 1.0; without the LoRA {m.without_lora}",
            "good" if figures.passed() else "bad",
        ),
        (
            f"{m.change:.1%}",
            "change without the trigger",
            f"another seed changes {m.change_of_seed:.0%}; {m.leaked} samples show the character",
            "",
        ),
        (f"{t.held_out_before:.3f} → {t.held_out_after:.3f}", "held-out loss", "pictures never trained on", ""),
        (
            clock(t.seconds),
            "of training",
            f"{t.steps} steps, {t.seconds_per_step:.2f} s each; the whole demo {clock(figures.seconds)}",
            "",
        ),
    ]


def tile(number: str, name: str, detail: str, css: str = "") -> str:
    """One large figure."""
    return (
        f'<div class="tile {css}"><strong>{escape(number)}</strong><span>{escape(name)}</span>'
        f"<small>{escape(detail)}</small></div>"
    )


def _row(name: str, value: str) -> str:
    css = ' class="sub"' if name.startswith(" ") else ""
    return f"<tr{css}><th>{escape(name.strip())}</th><td>{escape(value)}</td></tr>"


def verdict(figures: Figures) -> str:
    """One sentence on whether the demo reached its bar."""
    share = figures.measured.with_lora
    if figures.passed():
        return f"The LoRA taught the character: {share} samples show it."
    return f"The character appears in {share} samples only; the bar is {BAR:.0%}."
