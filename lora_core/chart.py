"""The loss chart: training loss, held-out loss and saves over the steps, with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Union

from PIL import Image, ImageDraw

from lora_core.drawing import INK, MUTED, PAPER, RULE, Color, text_width, write
from lora_core.events import Event, Loss, Saved

Point = tuple[int, float]
Maybe = tuple[int, Union[float, None]]

BLUE: Color = (38, 99, 204)
PALE_BLUE: Color = (190, 209, 242)
ORANGE: Color = (214, 98, 22)
GREEN: Color = (32, 132, 92)
SHARP = 2


@dataclass(frozen=True)
class LossCurve:
    """Points (step, value). Values that are None or not finite are left out of the picture."""

    losses: Sequence[Maybe] = ()
    averages: Sequence[Maybe] = ()
    held_out: Sequence[Maybe] = ()
    saves: Sequence[int] = ()

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> LossCurve:
        """The curve of a training's events; other events are passed over."""
        seen = list(events)
        losses = [e for e in seen if isinstance(e, Loss)]
        return cls(
            losses=[(e.step, e.loss) for e in losses if e.loss is not None],
            averages=[(e.step, e.average) for e in losses if e.average is not None],
            held_out=[(e.step, e.held_out) for e in losses if e.held_out is not None],
            saves=[e.step for e in seen if isinstance(e, Saved) and e.kind == "lora"],
        )


@dataclass(frozen=True)
class Panel:
    """A rectangle of the chart in logical pixels with its ranges of steps and values."""

    box: tuple[int, int, int, int]
    steps: tuple[float, float]
    values: tuple[float, float]

    def at(self, step: float, value: float) -> tuple[float, float]:
        """Place of a point in pixels of the enlarged canvas; values beyond the range stay at its edge."""
        left, top, right, bottom = self.box
        low, high = self.values
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        x = left + (step - self.steps[0]) / (self.steps[1] - self.steps[0]) * (right - left)
        return x * SHARP, (bottom - share * (bottom - top)) * SHARP


def loss_chart(curve: LossCurve, title: str = "Loss", size: tuple[int, int] = (960, 460)) -> Image.Image:
    """The chart as RGB of `size`. Training and held-out loss have a panel each, with its own scale."""
    canvas = Image.new("RGB", (size[0] * SHARP, size[1] * SHARP), PAPER)
    write(canvas, (24 * SHARP, 16 * SHARP), title, 20 * SHARP)
    losses, averages, held_out = (_finite(points) for points in (curve.losses, curve.averages, curve.held_out))
    trained = bool(losses or averages)
    if not trained and not held_out:
        write(canvas, (size[0] * SHARP // 2, size[1] * SHARP // 2), "no steps yet", 15 * SHARP, MUTED, "middle")
        return canvas.reduce(SHARP)
    last = max([step for step, _ in (*losses, *averages, *held_out)] + list(curve.saves))
    steps = (0.0, float(max(1, last)))
    split = size[0] * 6 // 10 if trained and held_out else size[0] if trained else 20
    if trained:
        box = (72, 112, split - 28, size[1] - 52)
        _training_panel(canvas, Panel(box, steps, _range(losses, averages)), (losses, averages), curve.saves)
    if held_out:
        box = (split + 52, 112, size[0] - 28, size[1] - 52)
        _held_out_panel(canvas, Panel(box, steps, _range((), held_out)), held_out, curve.saves)
    return canvas.reduce(SHARP)


def _training_panel(
    canvas: Image.Image, panel: Panel, points: tuple[Sequence[Point], Sequence[Point]], saves: Sequence[int]
) -> None:
    _frame(canvas, panel, "Training loss", [("each step", PALE_BLUE), ("average", BLUE), *_save_legend(saves)])
    _line(canvas, panel, points[0], PALE_BLUE, 1)
    _line(canvas, panel, points[1], BLUE, 3)
    _saves(canvas, panel, saves)


def _held_out_panel(canvas: Image.Image, panel: Panel, points: Sequence[Point], saves: Sequence[int]) -> None:
    _frame(canvas, panel, "Held-out loss", [("pictures never trained on", ORANGE), *_save_legend(saves)])
    _saves(canvas, panel, saves)
    _line(canvas, panel, points, ORANGE, 3)
    _dots(canvas, panel, points, ORANGE)


def _save_legend(saves: Sequence[int]) -> list[tuple[str, Color]]:
    return [("saved", GREEN)] if saves else []


def _finite(points: Sequence[Maybe]) -> list[Point]:
    return [(step, value) for step, value in points if value is not None and math.isfinite(value)]


def _range(noisy: Sequence[Point], smooth: Sequence[Point]) -> tuple[float, float]:
    """The values to show: all of the smooth ones, and the noisy ones without the outermost 2 % at either end."""
    ordered = sorted(value for _, value in noisy)
    cut = len(ordered) // 50
    shown = ordered[cut : len(ordered) - cut] + [value for _, value in smooth]
    low, high = min(shown), max(shown)
    pad = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - pad) if low >= 0 else low - pad), high + pad


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _spell(value: float, values: Sequence[float]) -> str:
    """A tick's number with just the decimals that its neighbours need."""
    step = values[1] - values[0] if len(values) > 1 else abs(value) or 1.0
    if max(abs(v) for v in values) >= 1e6 or step < 1e-5:
        return f"{value:.1e}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _frame(canvas: Image.Image, panel: Panel, name: str, legend: Sequence[tuple[str, Color]]) -> None:
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = (edge * SHARP for edge in panel.box)
    write(canvas, (left, top - 54 * SHARP), name, 14 * SHARP)
    x = left
    for label, color in legend:
        draw.line((x, top - 24 * SHARP, x + 16 * SHARP, top - 24 * SHARP), color, 3 * SHARP)
        write(canvas, (x + 22 * SHARP, top - 32 * SHARP), label, 12 * SHARP, MUTED)
        x += 38 * SHARP + text_width(label, 12 * SHARP)
    levels = ticks(*panel.values)
    for value in levels:
        y = round(panel.at(0, value)[1])
        draw.line((left, y, right, y), RULE, SHARP)
        write(canvas, (left - 8 * SHARP, y - 8 * SHARP), _spell(value, levels), 12 * SHARP, MUTED, "right")
    marks = sorted({round(step) for step in ticks(*panel.steps, about=max(2, (panel.box[2] - panel.box[0]) // 90))})
    for step in marks:
        x = round(panel.at(step, 0)[0])
        draw.line((x, bottom, x, bottom + 4 * SHARP), MUTED, SHARP)
        write(canvas, (x, bottom + 7 * SHARP), f"{step:,}", 12 * SHARP, MUTED, "middle")
    draw.line((left, bottom, right, bottom), MUTED, SHARP)
    write(canvas, ((left + right) // 2, bottom + 24 * SHARP), "step", 12 * SHARP, MUTED, "middle")


def _line(canvas: Image.Image, panel: Panel, points: Sequence[Point], color: Color, width: int) -> None:
    places = [panel.at(*point) for point in points]
    if len(places) == 1:
        _dots(canvas, panel, points, color)
    elif places:
        ImageDraw.Draw(canvas).line(places, color, width * SHARP, joint="curve")


def _dots(canvas: Image.Image, panel: Panel, points: Sequence[Point], color: Color) -> None:
    """A dot at each point; the first and the last one tell their value."""
    draw = ImageDraw.Draw(canvas)
    places = [panel.at(*point) for point in points]
    r = 4 * SHARP
    for x, y in places:
        draw.ellipse((x - r, y - r, x + r, y + r), color, PAPER, SHARP)
    labels = [f"{value:#.3g}" for _, value in points]
    x, y = places[-1]
    falling = len(places) > 1 and places[-2][1] < y
    write(
        canvas, (round(x) - 6 * SHARP, round(y) + (6 if falling else -22) * SHARP), labels[-1], 12 * SHARP, INK, "right"
    )
    if len(places) > 1:
        write(canvas, (round(places[0][0]) + 2 * SHARP, round(places[0][1]) - 22 * SHARP), labels[0], 12 * SHARP)


def _saves(canvas: Image.Image, panel: Panel, saves: Sequence[int]) -> None:
    """A dashed line with a flag at each save."""
    draw = ImageDraw.Draw(canvas)
    _, top, _, bottom = (edge * SHARP for edge in panel.box)
    for step in sorted(set(saves)):
        x = round(panel.at(step, 0)[0])
        for y in range(top, bottom, 8 * SHARP):
            draw.line((x, y, x, min(bottom, y + 4 * SHARP)), GREEN, SHARP)
        draw.polygon((x, top - 2 * SHARP, x - 5 * SHARP, top - 10 * SHARP, x + 5 * SHARP, top - 10 * SHARP), GREEN)
