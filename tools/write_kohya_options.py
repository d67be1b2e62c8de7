"""Writes docs/kohya_options.md from the tables of lora_core. Run it after changing one of them:

python tools/write_kohya_options.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lora_core import kohya_dataset, kohya_gui, kohya_network, kohya_optimizer  # noqa: E402
from lora_core.kohya_options import GROUPS  # noqa: E402
from lora_core.kohya_row import Option  # noqa: E402

PAGE = ROOT / "docs" / "kohya_options.md"
INTRODUCTION = """# kohya's options

`python -m lora_core train --kohya FILE` reads what users of kohya's trainer have: a TOML file of options
(`--config_file`), a dataset config (`--dataset_config`) or a JSON preset of the kohya_ss GUI. What the file does not
say is as in sd-scripts; flags behind it override it. `--print-config` shows the job that comes out of it.

Nothing is dropped quietly. *done*: the same meaning. *differently*: the purpose is met in another way. *not needed*:
the result is the same without it. *not supported*: the sentence says what is done instead. Whoever uses an option of
the last three kinds, or one that is not known, is told so when the file is read.

This page is written by `tools/write_kohya_options.py` from the tables that the reader itself uses.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    parts += [table(title, ("option", "default", "", "here", ""), map(option, rows)) for title, rows in GROUPS.items()]
    parts.append(table("Network arguments", ("network_args", "", ""), network_arguments()))
    parts.append(table("Optimizers", ("optimizer_type", "optimizer"), optimizers()))
    parts.append(table("Dataset config: a dataset", ("key", "as the option"), dataset()))
    parts.append(table("Dataset config: a subset", ("key", "setting of the subset, or what becomes of it"), subset()))
    parts.append(table("Presets of kohya_ss: names of the GUI", ("key", "what becomes of it"), gui()))
    return "\n".join(parts)


def table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"## {title}", "", row(head), row(("---",) * len(head)), *map(row, rows), ""]
    return "\n".join(lines)


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def code(name: str) -> str:
    return f"`{name}`"


def option(o: Option) -> tuple[str, ...]:
    default = "" if o.default in (None, "") else code(str(o.default))
    return code(o.name), default, o.how, ", ".join(map(code, o.settings)), o.sentence


def network_arguments() -> Iterable[tuple[str, str, str]]:
    for name, sentence in kohya_network.NETWORK_ARGUMENTS.items():
        yield code(name), "not supported" if sentence else "done", sentence


def optimizers() -> Iterable[tuple[str, str]]:
    for name, ours in kohya_optimizer.OPTIMIZERS.items():
        yield code(name or "(empty)"), code(ours)
    yield "a class by its full name", "`optimizer_class`"


def dataset() -> Iterable[tuple[str, str]]:
    for name, ours in kohya_dataset.DATASET_OPTIONS.items():
        yield code(name), code(ours)


def subset() -> Iterable[tuple[str, str]]:
    for name, (field, _) in kohya_dataset.SUBSET_FIELDS.items():
        yield code(name), code(field)
    for name in kohya_dataset.WHOLE_DATASET:
        yield code(name), kohya_dataset.ELSEWHERE
    for name, sentence in kohya_dataset.REFUSED.items():
        yield code(name), sentence
    yield "all other options", "As in the tables above, told with their place."


def gui() -> Iterable[tuple[str, str]]:
    for name, ours in kohya_gui.RENAMED.items():
        yield code(name), f"{code(ours)}."
    for rows in (kohya_gui.TRANSLATED, kohya_gui.WITHOUT_EFFECT, kohya_gui.REFUSED):
        for name, sentence in rows.items():
            yield code(name), sentence
    yield "keys of Flux, SD3, Lumina, HunyuanImage, Anima", "Named; a preset for such a model is refused."


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), "utf-8")
