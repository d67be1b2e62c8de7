"""From prompt segments to chunks of 75 tokens, by each host's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_core.errors import ConfigError
from lora_core.prompt_a1111 import Segment
from lora_core.prompt_comfyui import Word

BOS, EOS, COMMA = 49406, 49407, 267
CHUNK = 75
BACKTRACK = 20  # tokens; A1111's "Prompt word wrap length limit"
LONG_WORD = 8  # tokens; ComfyUI cuts longer ones at the end of a chunk

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True)
class Placed:
    """Rows `first` to `first + count` of an embedding stand from `position` on (0 is BOS)."""

    position: int
    name: str
    first: int
    count: int


@dataclass(frozen=True)
class Chunk:
    """77 token ids with BOS, EOS and EOS as padding (0 below embeddings), and their weights."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    vectors: tuple[Placed, ...] = ()


EMPTY = Chunk((BOS, *[EOS] * (CHUNK + 1)), (1.0,) * (CHUNK + 2))


@dataclass(frozen=True)
class Match:
    """An embedding found among token ids: its name, how many vectors it has, how many ids name it."""

    name: str
    vectors: int
    ids: int


class _Writer:
    """Collects tokens into chunks."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.vectors: list[Placed] = []

    @property
    def room(self) -> int:
        return CHUNK - len(self.tokens)

    def add(self, tokens: Sequence[int], weight: float) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def place(self, name: str, first: int, count: int, weight: float) -> None:
        if count:
            self.vectors.append(Placed(len(self.tokens) + 1, name, first, count))
        self.add([0] * count, weight)

    def close(self) -> None:
        tokens = (BOS, *self.tokens, *[EOS] * (self.room + 1))
        weights = (1.0, *self.weights, *[1.0] * (self.room + 1))
        self.chunks.append(Chunk(tokens, weights, tuple(self.vectors)))
        self.tokens, self.weights, self.vectors = [], [], []

    def carry(self, start: int) -> None:
        """Close the chunk before token `start`; what comes after opens the next one, embeddings' vectors excepted."""
        tokens, weights = self.tokens[start:], self.weights[start:]
        self.tokens, self.weights = self.tokens[:start], self.weights[:start]
        self.close()
        self.tokens, self.weights = tokens, weights


def a1111_chunks(
    segments: Sequence[Segment], tokenize: Tokenize, find: Callable[[Sequence[int], int], Match | None]
) -> list[Chunk]:
    """A1111: full chunks end at the last comma where that is at most 20 tokens back; BREAK begins a new chunk.

    `find(ids, position)` looks for an embedding's name. Raises ConfigError for one that is longer than a chunk.
    """
    out, comma = _Writer(), -1
    for segment in segments:
        if segment.new_chunk:
            out.close()
            comma = -1
            continue
        ids, position = tokenize(segment.text), 0
        while position < len(ids):
            if ids[position] == COMMA:
                comma = len(out.tokens)
            elif out.room == 0 and comma != -1 and len(out.tokens) - comma <= BACKTRACK:
                out.carry(comma + 1)
                comma = -1
            match = find(ids, position)
            if out.room < (_checked(match).vectors if match else 1):
                out.close()
                comma = -1
            if match is None:
                out.add(ids[position : position + 1], segment.weight)
            else:
                out.place(match.name, 0, match.vectors, segment.weight)
            position += match.ids if match else 1
    if out.tokens or not out.chunks:
        out.close()
    return out.chunks


def _checked(match: Match) -> Match:
    if match.vectors > CHUNK:
        raise ConfigError(f"The embedding {match.name} has {match.vectors} vectors; at most {CHUNK} fit into a prompt.")
    return match


@dataclass(frozen=True)
class _Group:
    """Token ids, or an embedding's name and its number of vectors."""

    ids: tuple[int, ...]
    weight: float
    name: str = ""
    vectors: int = 0

    def __len__(self) -> int:
        return self.vectors or len(self.ids)


def comfyui_chunks(words: Sequence[Word], tokenize: Tokenize, find: Callable[[str], int | None]) -> list[Chunk]:
    """ComfyUI: a word of fewer than 8 tokens that does not fit goes to the next chunk whole, a longer one is cut.

    `find(name)` is the number of an embedding's vectors. Raises ConfigError for a name that it does not know.
    """
    out = _Writer()
    for group in _groups(words, tokenize, find):
        done = 0
        while len(group) - done > out.room:
            if len(group) >= LONG_WORD:
                done += _put(out, group, done, out.room)
            out.close()
        _put(out, group, done, len(group) - done)
    out.close()
    return out.chunks


def _put(out: _Writer, group: _Group, first: int, count: int) -> int:
    if group.vectors:
        out.place(group.name, first, count, group.weight)
    else:
        out.add(group.ids[first : first + count], group.weight)
    return count


def _groups(words: Sequence[Word], tokenize: Tokenize, find: Callable[[str], int | None]) -> list[_Group]:
    found: list[_Group] = []
    for word in words:
        text = word.text
        if word.embedding:
            name, vectors, text = _embedding(text, find)
            if vectors:
                found.append(_Group((), word.weight, name, vectors))
            if not text:
                continue
        found.append(_Group(tuple(tokenize(text)), word.weight))
    return found


def _embedding(text: str, find: Callable[[str], int | None]) -> tuple[str, int, str]:
    """The embedding that the text begins with, its number of vectors, and the text behind; commas end a name."""
    name, *rest = text.split() or [""]
    vectors, after = find(name), " ".join(rest)
    if vectors is None and name != name.strip(","):
        bare = name.strip(",")
        name, vectors, after = bare, find(bare), f"{name[len(bare) :]} {after}"
    if vectors is None and name:
        raise ConfigError(
            f"The prompt names an embedding {name!r} that is not there, or that is not for this kind of base model: "
            "look into the embedding folders (embedding_dirs)."
        )
    return name, vectors or 0, after
