"""HTML of a dataset: what was found, and a card for each picture with its caption to edit."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lora_core.caption_edit import CaptionRow
from lora_core.errors import FileError
from lora_core.thumbnails import data_uri

if TYPE_CHECKING:
    from lora_core.engine.dataset_report import DatasetReport

PER_PAGE = 24
THUMBNAIL = 176


def report_html(report: DatasetReport) -> str:
    """Figures in a line, then what a person should act on, then the rest folded."""
    lonely = [b for b in report.buckets if b.count == 1]
    tiles = [
        (str(report.pictures), "pictures"),
        (f"{report.captioned} / {report.pictures}", "with a caption"),
        (str(len(report.buckets)), "sizes"),
        (str(report.held_out), "held out"),
    ]
    shown = "".join(f"<div><b>{escape(number)}</b><span>{escape(name)}</span></div>" for number, name in tiles)
    warnings = [f'<p class="loom-warning">{escape(line)}</p>' for line in report.warnings()]
    if lonely and len(report.buckets) > 1:
        sizes = ", ".join(f"{b.size[0]} x {b.size[1]}" for b in lonely[:6])
        warnings.append(f'<p class="loom-warning">Only one picture each has the size {sizes}: they train alone.</p>')
    rest = "".join(f"<li>{escape(line)}</li>" for line in report.text() if line not in report.warnings())
    more = f'<details class="loom-more"><summary>Details</summary><ul>{rest}</ul></details>'
    return f'<div class="loom-tiles">{shown}</div>{"".join(warnings)}{more}'


def cards_html(rows: Sequence[CaptionRow], page: int, save: str, turn: str) -> str:
    """One page of cards; `save` and `turn` name the bridges for changed captions and for another page."""
    pages = max(1, -(-len(rows) // PER_PAGE))
    page = min(max(0, page), pages - 1)
    shown = rows[page * PER_PAGE : (page + 1) * PER_PAGE]
    cards = "".join(card(row) for row in shown)
    return (
        f'<div class="loom-captions">{cards}</div>'
        f'<div class="loom-cards-bar">{turner(page, pages, turn)}'
        f'<button type="button" class="loom-button" data-loom-captions="{escape(save)}" disabled>Save captions</button>'
        "</div>"
    )


def turner(page: int, pages: int, turn: str) -> str:
    if pages < 2:
        return "<span></span>"
    buttons = "".join(
        f'<button type="button" class="loom-button" data-loom-tell="{escape(turn)}" data-value="{to}"'
        f"{'' if 0 <= to < pages else ' disabled'}>{sign}</button>"
        for sign, to in (("‹", page - 1), ("›", page + 1))
    )
    return f'<span class="loom-turner">{buttons}<span>{page + 1} / {pages}</span></span>'


def card(row: CaptionRow) -> str:
    try:
        picture = f'<img alt="" src="{data_uri(row.path, THUMBNAIL)}">'
    except FileError:
        picture = '<span class="loom-broken">✕</span>'
    missing = "" if row.caption else ' class="loom-empty"'
    return (
        f'<label class="loom-card">{picture}'
        f'<span class="loom-file" title="{escape(row.name)}">{escape(row.name)}</span>'
        f'<textarea data-name="{escape(row.name)}" rows="3" spellcheck="false"{missing} placeholder="no caption">'
        f"{escape(row.caption)}</textarea></label>"
    )
