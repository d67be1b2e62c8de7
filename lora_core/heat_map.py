"""A picture of where a LoRA acts: the norm of its change by block and kind of layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from PIL import Image, ImageDraw

from lora_core.block_weights import block_names, block_of
from lora_core.drawing import INK, MARGIN, MUTED, PAPER, Color, text_width, write

CELL = (74, 30)
HOT: Color = (200, 30, 60)
ROWS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"),
    *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v"),
    *("attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "time_emb_proj"),
    *("conv_shortcut", "conv"),
)


def kind_of_layer(canonical: str) -> str:
    """The row of a layer."""
    return next((row for row in ROWS if canonical.endswith(f".{row}")), "other")


def cells(norms: Mapping[str, float], family: str) -> dict[tuple[str, str], float]:
    """(row, column) -> root of the sum of squared norms; text encoders are columns of their own."""
    squares: dict[tuple[str, str], float] = {}
    for canonical, norm in norms.items():
        label = block_of(canonical, family)
        column = {"text_encoder": "TE1", "text_encoder_2": "TE2"}.get(canonical.partition(".")[0], label)
        place = (kind_of_layer(canonical), column)
        squares[place] = squares.get(place, 0.0) + norm**2
    return {place: math.sqrt(value) for place, value in squares.items()}


def heat_map(norms: Mapping[str, float], family: str, title: str = "|dW| by block and layer") -> Image.Image:
    """Rows: kinds of layers, columns: blocks from input to output; the colour goes from white to the largest norm."""
    found = cells(norms, family)
    order = ("TE1", "TE2", *block_names(family), "UNET")
    columns = [name for name in order if any(column == name for _, column in found)]
    rows = [name for name in (*ROWS, "other") if any(row == name for row, _ in found)]
    left = MARGIN + max((text_width(row, 14) for row in rows), default=0) + 12
    top = MARGIN + 54
    size = (left + CELL[0] * len(columns) + MARGIN, top + CELL[1] * len(rows) + MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    write(canvas, (MARGIN, MARGIN - 6), title, 18, INK)
    largest = max((v for v in found.values() if math.isfinite(v)), default=0.0) or 1.0
    for x, column in enumerate(columns):
        write(canvas, (left + x * CELL[0] + 8, top - 22), column, 14, MUTED)
    for y, row in enumerate(rows):
        write(canvas, (MARGIN, top + y * CELL[1] + 6), row, 14, INK)
        for x, column in enumerate(columns):
            if (row, column) in found:
                _cell(canvas, (left + x * CELL[0], top + y * CELL[1]), found[row, column], largest)
    return canvas


def _cell(canvas: Image.Image, corner: tuple[int, int], value: float, largest: float) -> None:
    share = min(value / largest, 1.0) if math.isfinite(value) else 1.0
    color = tuple(round(p + (h - p) * share) for p, h in zip(PAPER, HOT))
    box = (corner[0], corner[1], corner[0] + CELL[0] - 2, corner[1] + CELL[1] - 2)
    ImageDraw.Draw(canvas).rectangle(box, fill=color)
    write(canvas, (corner[0] + 8, corner[1] + 6), f"{value:.3g}", 13, PAPER if share > 0.55 else INK)
