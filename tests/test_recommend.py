"""Which save and strength is recommended, and what is said about it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lora_core.recommend import CellScore, Field, recommend


def cell(step: int, strength: float = 1.0, **figures: float) -> CellScore:
    return CellScore(f"s{step}.safetensors", step, strength, **figures)


def chosen(*cells: CellScore, base: float | None = 0.3) -> tuple[int, float]:
    found = recommend(Field(cells, base))
    return int(found.file[1:].partition(".")[0]), found.strength


def test_more_likeness_wins() -> None:
    assert chosen(cell(10, likeness=0.2), cell(20, likeness=0.9), cell(30, likeness=0.5)) == (20, 1.0)


def test_of_equal_ones_the_earliest() -> None:
    assert chosen(cell(10, likeness=0.5), cell(20, likeness=0.90), cell(30, likeness=0.92)) == (20, 1.0)


def test_of_equal_strengths_the_one_nearest_to_1() -> None:
    assert chosen(cell(10, 0.6, likeness=0.9), cell(10, 1.0, likeness=0.9), cell(10, 1.2, likeness=0.91)) == (10, 1.0)


def test_leaks_copies_and_overfitting_cost() -> None:
    good = cell(10, likeness=0.8, leak=0.1, copies=0.0, held_out=0.1)
    assert chosen(good, cell(20, likeness=1.0, leak=0.9, copies=0.0, held_out=0.1)) == (10, 1.0)
    assert chosen(good, cell(20, likeness=1.0, leak=0.1, copies=0.5, held_out=0.1)) == (10, 1.0)
    assert chosen(good, cell(20, likeness=1.0, leak=0.1, copies=0.0, held_out=0.25)) == (10, 1.0)
    assert chosen(good, cell(20, likeness=1.0, leak=0.1, copies=0.0, held_out=0.1)) == (20, 1.0)


def test_a_weaker_use_of_an_overdone_save() -> None:
    cells = [cell(50, 0.6, likeness=0.95, leak=0.2), cell(50, 1.0, likeness=1.3, leak=0.9)]
    found = recommend(Field(tuple(cells)))
    assert found.strength == 0.6
    assert any("Stronger, it changes more where the trigger is missing" in reason for reason in found.reasons)


def test_without_figures_something_is_still_said() -> None:
    found = recommend(Field((cell(10), cell(20))))
    assert found.file == "s10.safetensors" and len(found.warnings) == 1 and "look at the grid" in found.warnings[0]


def test_warnings() -> None:
    assert "train longer" in recommend(Field((cell(10, likeness=0.1),))).warnings[0]
    assert "more steps" in recommend(Field((cell(10, likeness=0.2), cell(20, likeness=0.6)))).warnings[0]
    assert "leaks" in recommend(Field((cell(10, likeness=0.9, leak=0.8),))).warnings[0]
    assert "repeat a training picture" in recommend(Field((cell(10, likeness=0.9, copies=0.4),))).warnings[0]
    assert recommend(Field((cell(10, likeness=0.9, leak=0.1, copies=0.0),))).warnings == ()


def test_overfitting_is_measured_between_the_best_and_the_base() -> None:
    cells = (cell(10, held_out=0.2), cell(20, held_out=0.1), cell(30, held_out=0.15), cell(40, held_out=0.4))
    field = Field(cells, 0.3)
    assert [round(field.overfit(c), 6) for c in cells] == [0.5, 0.0, 0.25, 1.5]
    assert Field((cell(1, held_out=0.4),), 0.3).overfit(cell(1, held_out=0.4)) == 0.0


FIGURE = st.one_of(st.none(), st.floats(-2, 5))


@given(st.lists(st.builds(CellScore, st.text(min_size=1, max_size=3), st.integers(0, 99), st.floats(-2, 2), FIGURE,
                          FIGURE, FIGURE, FIGURE, FIGURE), min_size=1, max_size=12), FIGURE)  # fmt: skip
def test_the_chosen_cell_is_among_the_best(cells: list[CellScore], base: float | None) -> None:
    field = Field(tuple(cells), base)
    found = recommend(field)
    mine = next(c for c in cells if (c.file, c.strength) == (found.file, found.strength) and
                abs(field.total(c) - found.score) < 1e-3)  # fmt: skip
    assert field.total(mine) >= max(map(field.total, cells)) - 0.031
    assert all(reason.endswith(".") for reason in (*found.reasons, *found.warnings))


def test_nothing_hangs_on_the_order() -> None:
    cells = [cell(s, w, likeness=s * w / 30, leak=w / 4) for s in (10, 20, 30) for w in (0.5, 1.0)]
    assert recommend(Field(tuple(cells))) == recommend(Field(tuple(reversed(cells))))
