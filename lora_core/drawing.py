"""Pictures about pictures, with Pillow alone: captioned grids, side-by-side strips and the loss chart (`chart.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

PAPER: Color = (255, 255, 255)
INK: Color = (31, 35, 43)
MUTED: Color = (104, 112, 125)
RULE: Color = (226, 229, 234)
MARGIN = 24
GAP = 10


@dataclass(frozen=True)
class GridText:
    """What is written on a grid: captions of columns (above) and rows (left), a title and a smaller line below it."""

    columns: Sequence[str] = ()
    rows: Sequence[str] = ()
    title: str = ""
    subtitle: str = ""
    row_width: int = 220


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at `size` pixels; before Pillow 10.1, or without FreeType, its one bitmap font."""
    try:
        return ImageFont.load_default(size=size)
    except TypeError:
        return ImageFont.load_default()


def text_mask(text: str, size: int) -> Image.Image:
    """One line of text as an "L" picture, 255 where ink goes, about 1.3 * size high.

    The bitmap font of old Pillows knows Latin-1 alone and one size; it is enlarged, other letters become "?".
    """
    font = _font(size)
    scalable = isinstance(font, ImageFont.FreeTypeFont)
    if not scalable:
        text = text.encode("latin-1", "replace").decode("latin-1")
    width = max(1, round(font.getlength(text)))
    height = round(size * 1.3) if scalable else 13
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    if scalable:
        return mask
    factor = size / 11
    return mask.resize((max(1, round(width * factor)), round(height * factor)), Image.Resampling.BICUBIC)


def text_width(text: str, size: int) -> int:
    """Width of one line in pixels."""
    return text_mask(text, size).width if text else 0


def wrap(text: str, size: int, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces, or inside a word that is wider than a line."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines += _break_word(word, size, width)
    return lines


def _break_word(word: str, size: int, width: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def write(
    target: Image.Image,
    place: tuple[int, int],
    lines: Sequence[str] | str,
    size: int = 15,
    color: Color = INK,
    anchor: str = "left",
) -> None:
    """Write lines downwards from `place` (x, top). `anchor`: x is the "left" edge, the "middle" or the "right" edge."""
    x, y = place
    share = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor]
    for line in [lines] if isinstance(lines, str) else lines:
        mask = text_mask(line, size)
        target.paste(color, (round(x - mask.width * share), y), mask)
        y += round(size * 1.35)


def block_height(lines: Sequence[str], size: int) -> int:
    """Height of lines as `write` sets them."""
    return round(size * 1.35) * len(lines)


def fitted(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    """The picture as RGB inside `cell` (w, h), its shape kept: small ones grow by whole factors, large ones shrink."""
    flat = flatten(picture)
    factor = min(cell[0] / flat.width, cell[1] / flat.height)
    if factor >= 1:
        whole = int(factor)
        return flat.resize((flat.width * whole, flat.height * whole), Image.Resampling.NEAREST)
    size = (max(1, round(flat.width * factor)), max(1, round(flat.height * factor)))
    return flat.resize(size, Image.Resampling.LANCZOS)


def flatten(picture: Image.Image) -> Image.Image:
    """Any mode as RGB; transparency shows a light grey."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (*RULE, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return picture.convert("RGB")


def picture_grid(
    pictures: Sequence[Sequence[Image.Image | None]], text: GridText | None = None, cell: tuple[int, int] = (192, 192)
) -> Image.Image:
    """Rows of pictures with captions, each picture within (w, h) pixels; None leaves its place empty."""
    text = text or GridText()
    shown = [[None if picture is None else fitted(picture, cell) for picture in row] for row in pictures]
    members = [picture for row in shown for picture in row if picture is not None]
    width = max((picture.width for picture in members), default=cell[0])
    height = max((picture.height for picture in members), default=cell[1])
    canvas, left, top = _grid_canvas(text, (max(map(len, shown), default=0), len(shown)), (width, height))
    for row, line in enumerate(shown):
        y = top + row * (height + GAP)
        if row < len(text.rows):
            _row_caption(canvas, text.rows[row], (MARGIN, y, text.row_width, height))
        for column, picture in enumerate(line):
            _place(canvas, picture, (left + column * (width + GAP), y, width, height))
    return canvas


def _grid_canvas(text: GridText, count: tuple[int, int], cell: tuple[int, int]) -> tuple[Image.Image, int, int]:
    """An empty grid of (columns, rows) with titles and column captions, and the left and top of its first cell."""
    left = MARGIN + (text.row_width + GAP if text.rows else 0)
    width = max(left + count[0] * (cell[0] + GAP) - GAP, 320) + MARGIN
    titles = wrap(text.title, 24, width - 2 * MARGIN)
    subtitles = wrap(text.subtitle, 15, width - 2 * MARGIN)
    heads = [wrap(caption, 15, cell[0]) for caption in text.columns]
    top = MARGIN + block_height(titles, 24) + block_height(subtitles, 15) + (GAP if titles or subtitles else 0)
    first = top + max((block_height(lines, 15) for lines in heads), default=0) + (4 if heads else 0)
    canvas = Image.new("RGB", (width, first + count[1] * (cell[1] + GAP) - GAP + MARGIN), PAPER)
    write(canvas, (MARGIN, MARGIN), titles, 24)
    write(canvas, (MARGIN, MARGIN + block_height(titles, 24)), subtitles, 15, MUTED)
    for column, lines in enumerate(heads):
        write(canvas, (left + column * (cell[0] + GAP) + cell[0] // 2, top), lines, 15, INK, "middle")
    return canvas, left, first


def _row_caption(canvas: Image.Image, caption: str, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    size = next((s for s in (15, 13, 11) if block_height(wrap(caption, s, width), s) <= height), 11)
    lines = wrap(caption, size, width)
    room = max(1, height // round(size * 1.35))
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1] + " ..."]
    write(canvas, (x, y + (height - block_height(lines, size)) // 2), lines, size)


def _place(canvas: Image.Image, picture: Image.Image | None, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    if picture is None:
        ImageDraw.Draw(canvas).rectangle((x, y, x + width - 1, y + height - 1), outline=RULE)
    else:
        canvas.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))


def strip(
    pictures: Sequence[Image.Image], captions: Sequence[str], title: str = "", cell: tuple[int, int] = (256, 256)
) -> Image.Image:
    """Pictures side by side, each under its caption: an inpainting, or before and after."""
    return picture_grid([list(pictures)], GridText(columns=captions, title=title), cell)


def mask_overlay(picture: Image.Image, mask: Image.Image, color: Color = (232, 60, 90)) -> Image.Image:
    """The picture with the white part of the mask tinted, to show what is repainted."""
    base = flatten(picture)
    where = mask.convert("L").resize(base.size, Image.Resampling.NEAREST).point([v * 55 // 100 for v in range(256)])
    return Image.composite(Image.new("RGB", base.size, color), base, where)
