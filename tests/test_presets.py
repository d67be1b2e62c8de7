"""The presets' bake-off: its jobs can run, its style can be told from anything else, its page names its own rows."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import preset_rows, presets, style_world
from benchmarks.preset_tables import written
from lora_core.demo.features import PALETTE, has_character
from lora_core.demo.plan import ASSETS
from lora_core.goals import Wish, effective_rate, settings_for
from lora_core.settings import leaf_values

PAGE = Path(__file__).parents[1] / "docs" / "presets.md"
GOALS = ("character", "style")


@pytest.mark.parametrize("goal", GOALS)
def test_every_row_is_a_job_that_sees_as_many_pictures(goal, tmp_path):
    where = presets.world(goal, 4, tmp_path)
    chosen = preset_rows.rows(goal, where.count)
    assert len({row.name for row in chosen}) == len(chosen) >= 12
    for row in chosen:
        job = presets.job_for(row, where, 480, tmp_path)
        assert job.problems() == [], row.name
        assert job.length.steps * job.dataset.batch_size * job.optimization.accumulation == pytest.approx(480, abs=6)
        assert not job.saves.judge_saves and not job.saves.save_every_steps
    assert presets.mark_of(job, 4) != presets.mark_of(job, 8)


def test_the_first_row_is_the_goal_itself():
    for goal in GOALS:
        first = preset_rows.rows(goal, 12)[0]
        assert first.values == settings_for(Wish(goal, pictures=12))
        small = next(row for row in preset_rows.rows(goal, 12) if "rank 4" in row.name)
        assert effective_rate(small.values) == pytest.approx(effective_rate(first.values))


def test_the_style_is_told_from_ordinary_portraits(tmp_path):
    pictures, held_out = style_world.write_style(ASSETS / "ordinary", tmp_path)
    styled = sorted([*pictures.glob("*.png"), *held_out.glob("*.png")])
    assert len(styled) == 24 and len(list(held_out.glob("*.png"))) == style_world.HELD_OUT
    for path in styled:
        picture, caption = np.asarray(Image.open(path)), path.with_suffix(".txt").read_text()
        assert all(style_world.has_style(picture).values()) and not all(has_character(picture).values())
        assert caption.startswith(style_world.TRIGGER)
        named = next(c for c in PALETTE["background"] if f"{c} background" in caption)
        assert style_world.background_ink(picture, named)
        assert sum(style_world.background_ink(picture, c) for c in PALETTE["background"]) <= 3
    for folder in ("ordinary", "armin_vicerre"):
        for path in (ASSETS / folder).glob("*.png"):
            assert not style_world.has_style(np.asarray(Image.open(path).convert("RGB")))["rules"]


def test_convergence_is_nine_tenths_of_the_best_gain():
    assert presets.converged([(0, 1.0), (10, 0.5), (20, 0.2), (30, 0.1), (40, 0.3)]) == 30
    assert presets.converged([(0, 1.0), (10, 0.15), (20, 0.1)]) == 10
    assert presets.converged([(0, 1.0), (10, 1.2)]) is None and presets.converged([]) is None


def test_tables_are_put_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- style -->\nold\n<!-- end -->\nb\n")
    written(page, {"style": "| new |"})
    assert page.read_text() == "a\n<!-- style -->\n| new |\n<!-- end -->\nb\n"
    with pytest.raises(ValueError, match="character"):
        written(page, {"character": "x"})


@pytest.mark.parametrize("goal", GOALS)
def test_the_page_shows_rows_as_they_are_declared(goal):
    text = PAGE.read_text("utf-8").partition(f"<!-- {goal} -->")[2].partition("<!-- end -->")[0]
    shown = re.findall(r"^\| ([^|]+?) \| [^|]+ \| (\d+) / ([\d.]+)", text, re.MULTILINE)
    declared = {row.name: row.values for row in preset_rows.rows(goal, 20)}
    assert {name for name, _, _ in shown} <= declared.keys() and shown[0][0] == "ours"
    for name, rank, alpha in shown:
        assert (int(rank), float(alpha)) == (declared[name]["rank"], declared[name]["alpha"]), name
    assert leaf_values(presets.TrainJob()).keys() >= declared["ours"].keys()
