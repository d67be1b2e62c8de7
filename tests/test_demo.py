"""The demo: its detectors on its own pictures, its figures, its page, and a whole run on a tiny base."""

import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import checkpoint

from lora_core.commands import Commands
from lora_core.demo import inpainting, measure, plan, shots, story
from lora_core.demo.features import background_colour, has_character
from lora_core.demo.figures import Figures, FileFact, Measured, Share, Trained, clock
from lora_core.demo.page import Gallery, Shown, page, verdict
from lora_core.engine.models import load_models
from lora_core.errors import ConfigError, FileError, Interrupted
from lora_core.events import Event, Finished, Loss, Progress, Stage
from lora_core.jobs.demo import DemoJob
from lora_core.lora import Lora
from lora_core.run import run
from lora_core.tensors import read_header

SHIPPED = sorted((plan.ASSETS / plan.NAME).glob("*.png"))
HELD_OUT = sorted((plan.ASSETS / "held_out").glob("*.png"))


def figures(hits: int = 30) -> Figures:
    measured = Measured(Share(hits, 32), Share(0, 32), Share(1, 32), Share(31, 32), 0.031, 0.2, 0.25)
    trained = Trained(300, 4, 16, 12, 24, 0.2, 61.0, 0.1, 0.08, 264)
    facts = FileFact("a.safetensors", 2**20, "ab" * 32), FileFact("base.safetensors", 2**24, "cd" * 32)
    return Figures("armin_vicerre", trained, measured, *facts, 130.0, "2 CPU cores")


def test_the_shipped_pictures_show_the_character_and_their_captions_name_it() -> None:
    assert len(SHIPPED) == 12 and len(HELD_OUT) == 4
    for path in (*SHIPPED, *HELD_OUT):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        assert all(has_character(pixels).values())
        assert caption.startswith(plan.NAME) and f"{background_colour(pixels)} background" in caption


def test_the_other_pictures_lack_the_character_and_the_trigger() -> None:
    others = sorted((plan.ASSETS / "ordinary").glob("*.png"))
    assert len(others) == 24
    for path in others:
        assert not any(has_character(np.asarray(Image.open(path).convert("RGB"))).values())
        assert plan.NAME not in path.with_suffix(".txt").read_text(encoding="utf-8")


def test_detectors_want_hair_and_patch() -> None:
    pixels = np.asarray(Image.open(SHIPPED[0]).convert("RGB")).copy()
    other_hair = np.where((pixels == (255, 20, 160)).all(axis=2, keepdims=True), (110, 63, 28), pixels).astype(np.uint8)
    assert has_character(other_hair) == {"hair": False, "eye_patch": True}
    no_patch = pixels.copy()
    no_patch[5 * 8 : 8 * 8, 4 * 8 : 7 * 8] = (255, 230, 200)
    assert has_character(no_patch) == {"hair": True, "eye_patch": False}


def test_difference_of_pictures() -> None:
    black, white = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (255, 255, 255))
    assert measure.difference(black, black) == 0 and measure.difference(black, white) == 1


def test_shots_are_paired_by_prompt_and_seed() -> None:
    listed = shots.shot_list(DemoJob(samples=6, seed=3))
    for with_lora, without in ((listed.character, listed.character_base), (listed.ordinary, listed.ordinary_base)):
        assert [(s.prompt, s.seed) for s in with_lora] == [(s.prompt, s.seed) for s in without]
        assert {s.strength for s in with_lora} == {1.0} and {s.strength for s in without} == {0.0}
    assert all(plan.NAME in s.prompt for s in listed.character)
    assert not any(plan.NAME in s.prompt for s in listed.ordinary)
    assert len({s.prompt for s in listed.character}) > 3
    strengths = [s.strength for s in listed.all()]
    assert strengths == sorted(strengths) and len(set(listed.all())) == len(strengths)


def test_prompts_of_the_measurement_are_not_captions_of_the_training() -> None:
    tags = {frozenset(p.with_suffix(".txt").read_text(encoding="utf-8").strip().split(", ")) for p in SHIPPED}
    asked = [frozenset(prompt.split(", ")) for prompt in plan.character_prompts(32, 10_000)]
    assert sum(prompt in tags for prompt in asked) <= 4


@pytest.mark.parametrize("hits, passed", [(25, False), (26, True)])
def test_the_bar_is_eighty_percent(hits: int, passed: bool) -> None:
    assert figures(hits).passed() is passed
    assert f"{hits} of 32" in verdict(figures(hits))


def test_lines_are_aligned_and_tell_the_figures() -> None:
    lines = figures().lines()
    assert len({re.search(r"\S\s{2,}\S", line.lstrip()) is not None for line in lines}) == 1
    text = "\n".join(lines)
    for part in ("30 of 32", "3.1%", "0.1000 -> 0.0800 (-20.0 %)", "2 min 10 s", "264 modules", "abab"):
        assert part in text


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (187, "3 min 07 s")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


class Links(HTMLParser):
    """Every src and href, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_escapes_what_it_shows_and_stays_offline() -> None:
    odd = Shown("grid.png", (4, 4), '<b>"&')
    text = page(figures(), Gallery([odd], [odd], odd, odd, odd))
    links = Links(text)
    assert not links.open and "<b>" not in text and "&lt;b&gt;&quot;&amp;" in text
    assert not [link for link in links.found if "//" in link or link.startswith("/")]
    assert "$" not in text.replace("${", "$")


def events_of(job: DemoJob, commands: Commands | None = None) -> Iterator[Event]:
    return run(job, commands)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sampling steps, two prompts: the whole way in seconds."""
    for module in (plan, shots):
        monkeypatch.setattr(module, "SAMPLING_STEPS", 2)
        monkeypatch.setattr(module, "GRID_PROMPTS", plan.GRID_PROMPTS[-2:])


def test_a_whole_demo_on_a_tiny_base(tmp_path: Path, short: None) -> None:
    out = tmp_path / "demo"
    job = DemoJob(str(out), base=str(checkpoint("sd15")), steps=3, samples=2, device="cpu")
    events = list(events_of(job))
    end = events[-1]
    assert isinstance(end, Finished) and Path(end.outputs[0]) == out / "index.html"
    links = Links((out / "index.html").read_text(encoding="utf-8"))
    assert len(links.found) == 12 + 24 + 3 + 1 and all((out / link).is_file() for link in links.found)
    lora = out / "armin_vicerre.safetensors"
    assert len(read_header(lora).tensors) == 264 * 3
    known = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert known["lora"]["sha256"] == hashlib.sha256(lora.read_bytes()).hexdigest()
    assert known["measured"]["with_lora"]["total"] == 2 and known["trained"]["held_out_before"] > 0
    assert end.report["lines"] and any(isinstance(e, Loss) for e in events)
    drawing = events[events.index(Stage("Drawing")) : events.index(Stage("Inpainting"))]
    done = [e.done for e in drawing if isinstance(e, Progress)]
    assert done == sorted(done) and done[-1] >= 8
    picture, result = (Image.open(out / "inpainting" / n) for n in ("picture.png", "result-00001.png"))
    outside = np.asarray(inpainting.head_mask()) == 0
    assert np.array_equal(np.asarray(picture)[outside], np.asarray(result.convert("RGB"))[outside])


def test_a_second_demo_replaces_the_first(tmp_path: Path) -> None:
    (tmp_path / "armin_vicerre.safetensors").write_bytes(b"old")
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    story.clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]


def test_faults_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is missing"):
        list(events_of(DemoJob(str(tmp_path), base=str(tmp_path / "none.safetensors"))))
    with pytest.raises(ConfigError, match="output_dir"):
        list(events_of(DemoJob("")))


def test_a_stop_ends_the_drawing(short: None) -> None:
    models = load_models(checkpoint("sd15"), torch.float32, "cpu")
    commands = Commands()
    drawing = shots.draw(models, Lora({}, {}, "sd1"), [shots.Shot("a portrait", 1, 0.0)], commands)
    assert isinstance(next(drawing), Progress)
    commands.stop = True
    with pytest.raises(Interrupted):
        next(drawing)
