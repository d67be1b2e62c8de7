"""A1111's prompt editing: [from:to:when] and [a|b], as a list of texts and the step until which each is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lora_core.errors import ConfigError

DEEPEST = 100
_TOKEN = re.compile(r"(?:[^\\\[\]():|]|\\.)+|[\[\]():|]")
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.[0-9]*|\.?[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


@dataclass(frozen=True)
class Timing:
    """Steps of the first pass; `hires_steps` set: those of the second, whose fractions count from 1 to 2.

    `old`: as A1111 before 1.6 counted, all numbers below 1 as fractions and the second pass like the first.
    """

    steps: int
    hires_steps: int | None = None
    old: bool = False

    @property
    def total(self) -> int:
        return self.steps if self.hires_steps is None or self.old else self.hires_steps

    def step_of(self, when: str) -> int:
        """A number with a point is a fraction of the steps, one without counts steps."""
        if self.old:
            return min(self.steps, int(float(when) * (self.steps if float(when) < 1 else 1)))
        second = self.hires_steps is not None
        if "." in when:
            return min(self.total, int((float(when) - second) * self.total))
        return min(self.total, int(float(when) - (self.steps if second else 0)))


@dataclass(frozen=True)
class Edit:
    """[before:after:when]"""

    before: Node
    after: Node
    when: str


@dataclass(frozen=True)
class Alternate:
    """[a|b|c]: one each step"""

    options: tuple[Node, ...]


Node = tuple["str | Edit | Alternate", ...]


def schedule(prompt: str, timing: Timing) -> list[tuple[int, str]]:
    """(last step, text) in order; the last entry's step is the number of steps.

    A prompt that the language cannot read (a stray "|", a backslash at the end) is taken as it is, as A1111 does.
    """
    tree = _Reader(prompt).prompt()
    if tree is None:
        return [(timing.total, prompt)]
    ends = sorted({timing.total, *_ends(tree, timing)})
    return [(end, "".join(_at(tree, end, timing))) for end in ends]


def edits_moved(prompt: str, timing: Timing) -> bool:
    """Whether A1111 before 1.6 used another text than today in some step of a pass."""
    today, before = schedule(prompt, timing), schedule(prompt, replace(timing, old=True))
    steps = range(1, timing.total + 1)
    return any(text_at(today, step) != text_at(before, step) for step in steps)


def text_at(course: list[tuple[int, str]], step: int) -> str:
    """The text of a step in what `schedule` gives; steps count from 1. Behind the end A1111 takes the first."""
    return next((text for end, text in course if step <= end), course[0][1])


def _ends(tree: Node, timing: Timing) -> Iterator[int]:
    for node in tree:
        if isinstance(node, Edit):
            if timing.step_of(node.when) >= 1:
                yield timing.step_of(node.when)
            yield from _ends(node.before + node.after, timing)
        elif isinstance(node, Alternate):
            yield from range(1, timing.total + 1)
            for option in node.options:
                yield from _ends(option, timing)


def _at(tree: Node, step: int, timing: Timing) -> Iterator[str]:
    for node in tree:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Edit):
            yield from _at(node.before if step <= timing.step_of(node.when) else node.after, step, timing)
        else:
            yield from _at(node.options[(step - 1) % len(node.options)], step, timing)


class _Reader:
    """Recursive descent; what is no complete edit, alternation or emphasis is plain text at the outermost level."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        self.whole = "".join(self.tokens) == text
        self.known: dict[int, tuple[Node, int] | None] = {}
        self.depth = 0

    def prompt(self) -> Node | None:
        if not self.whole:
            return None
        found: list[str | Edit | Alternate] = []
        at = 0
        while at < len(self.tokens):
            group = self.group(at)
            if group is None and self.tokens[at] == "|":
                return None
            nodes, at = ((self.tokens[at],), at + 1) if group is None else group
            found += nodes
        return tuple(found)

    def group(self, at: int) -> tuple[Node, int] | None:
        """What the bracket at a token opens, and the token after its end."""
        if self.tokens[at] not in "([":
            return None
        if at not in self.known:
            if self.depth == DEEPEST:
                raise ConfigError(f"The prompt nests its brackets more than {DEEPEST} deep.")
            self.depth += 1
            self.known[at] = self.round(at) if self.tokens[at] == "(" else self.square(at)
            self.depth -= 1
        return self.known[at]

    def inner(self, at: int) -> tuple[Node, int]:
        """Texts and groups up to the first token that is neither."""
        found: list[str | Edit | Alternate] = []
        while at < len(self.tokens):
            token = self.tokens[at]
            if token in ")]:|":
                break
            group = self.group(at) if token in "([" else ((token,), at + 1)
            if group is None:
                break
            found += group[0]
            at = group[1]
        return tuple(found), at

    def parts(self, at: int, separator: str) -> tuple[list[Node], list[str], int]:
        """Inner prompts between separators, the source of each, and the token where they end."""
        nodes, sources = [], []
        while True:
            node, end = self.inner(at)
            nodes.append(node)
            sources.append("".join(self.tokens[at:end]))
            if self.token(end) != separator:
                return nodes, sources, end
            at = end + 1

    def token(self, at: int) -> str:
        return self.tokens[at] if at < len(self.tokens) else ""

    def round(self, at: int) -> tuple[Node, int] | None:
        parts, _, end = self.parts(at + 1, ":")
        if self.token(end) != ")" or len(parts) > 2:
            return None
        colon: Node = (":",) if len(parts) == 2 else ()
        return ("(", *parts[0], *colon, *(parts[1] if len(parts) == 2 else ()), ")"), end + 1

    def square(self, at: int) -> tuple[Node, int] | None:
        readers: dict[str, Callable[[int], tuple[Node, int] | None]] = {"|": self.alternate, ":": self.edit}
        node, end = self.inner(at + 1)
        if self.token(end) == "]":
            return ("[", *node, "]"), end + 1
        return readers[self.token(end)](at + 1) if self.token(end) in readers else None

    def alternate(self, at: int) -> tuple[Node, int] | None:
        parts, _, end = self.parts(at, "|")
        return ((Alternate(tuple(parts)),), end + 1) if self.token(end) == "]" else None

    def edit(self, at: int) -> tuple[Node, int] | None:
        parts, sources, end = self.parts(at, ":")
        when = _NUMBER.fullmatch(sources[-1])
        if self.token(end) != "]" or len(parts) > 3 or when is None:
            return None
        before = parts[0] if len(parts) == 3 else ()
        return (Edit(before, parts[-2], when.group(1)),), end + 1
