"""What a prompt tells the UNet at each of its evaluations, in the arithmetic of either host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from lora_core.embeddings import Embedding
from lora_core.engine.models import Models
from lora_core.engine.prompt import Conditioning
from lora_core.engine.prompt_texts import encode_a1111, encode_comfyui
from lora_core.prompt_a1111 import alternatives, without_comments
from lora_core.prompt_schedule import Timing, schedule


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are read. `steps` as the user gives them: `second_order` samplers evaluate the UNet twice a step.

    `hires_steps` set: this is the second pass of A1111's Hires. fix, and `steps` are those of the first.
    `padding`: how A1111 brings prompt and negative prompt to one length: "none", with the "empty" prompt, or with the
    "last" token again (its options "Pad prompt/negative prompt" and "(v0)").
    """

    arithmetic: str = "a1111"
    clip_skip: int = 1
    emphasis: str = "original"
    steps: int = 20
    second_order: bool = False
    hires_steps: int | None = None
    padding: str = "none"
    embeddings: Mapping[str, Embedding] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def timing(self) -> Timing:
        calls = 2 if self.second_order else 1
        return Timing(self.steps * calls, None if self.hires_steps is None else self.hires_steps * calls)


@dataclass(frozen=True)
class Conds:
    """The conditioning of one evaluation, each Conditioning of one row: context [1,t,d], pooled [1,p].

    `positive` holds for each picture its rows and their weights: the clean latents are
    negative + sum(weight * cfg * (row - negative)). All positive rows are of one length; `negative`, the same for every
    picture, may be of another. It is None where it has no influence (cfg 1).
    """

    positive: tuple[tuple[tuple[Conditioning, float], ...], ...]
    negative: Conditioning | None


Course = Sequence[tuple[float, Conditioning]]  # (last evaluation, conditioning), in order


@dataclass
class Guidance:
    """The conditioning of a batch over all evaluations of the UNet, and the guidance scale."""

    positive: tuple[tuple[tuple[Course, float], ...], ...]
    negative: Course | None
    cfg: float
    options: PromptOptions
    empty: Conditioning | None = None
    _made: dict[tuple[int, ...], Conds] = field(default_factory=dict)

    def at(self, call: int) -> Conds:
        """What holds after `call` evaluations; the same object as before when nothing has changed."""
        courses = [course for picture in self.positive for course, _ in picture]
        courses += [self.negative] if self.negative is not None else []
        key = tuple(_entry(course, call) for course in courses)
        if key not in self._made:
            self._made[key] = self._conds(call)
        return self._made[key]

    def _conds(self, call: int) -> Conds:
        rows = tuple(tuple((c[_entry(c, call)][1], w) for c, w in picture) for picture in self.positive)
        negative = None if self.negative is None else self.negative[_entry(self.negative, call)][1]
        if self.options.arithmetic == "comfyui":
            return _repeated(Conds(rows, negative))
        return _padded(_stretched(Conds(rows, negative)), self.options.padding, self.empty)


def _entry(course: Course, call: int) -> int:
    """The first entry that has not ended; the first of all when every one has, as in A1111."""
    return next((i for i, (end, _) in enumerate(course) if call <= end), 0)


@torch.no_grad()
def guidance_of(models: Models, options: PromptOptions, prompts: Sequence[str], negative: str, cfg: float) -> Guidance:
    """Encode the prompts of a batch and their negative prompt.

    Raises ConfigError for what cannot be read and KeyMismatch for a clip skip that goes past the encoder's layers.
    """
    if options.arithmetic == "comfyui":
        return _comfyui(models, options, prompts, negative, cfg)
    courses = {prompt: _a1111_courses(models, options, prompt) for prompt in dict.fromkeys(prompts)}
    plain = all(sum(weight for _, weight in course) == 1 for course in courses.values())
    against = None
    if cfg != 1 or not plain:
        against = _course(models, options, without_comments(negative), True)
    empty = encode_a1111(models, [""], options)[0] if options.padding == "empty" else None
    return Guidance(tuple(courses[prompt] for prompt in prompts), against, cfg, options, empty)


def _comfyui(models: Models, options: PromptOptions, prompts: Sequence[str], negative: str, cfg: float) -> Guidance:
    wanted = {*prompts} if cfg == 1 else {*prompts, negative}
    encoded: dict[str, Course] = {text: [(math.inf, encode_comfyui(models, text, options))] for text in wanted}
    positive = tuple(((encoded[text], 1.0),) for text in prompts)
    return Guidance(positive, None if cfg == 1 else encoded[negative], cfg, options)


def _a1111_courses(models: Models, options: PromptOptions, prompt: str) -> tuple[tuple[Course, float], ...]:
    parts = alternatives(without_comments(prompt))
    courses = {text: _course(models, options, text, False) for text in dict.fromkeys(text for text, _ in parts)}
    return tuple((courses[text], weight) for text, weight in parts)


def _course(models: Models, options: PromptOptions, text: str, negative: bool) -> Course:
    """One prompt over time; its texts are encoded together. SDXL's empty negative prompt is all zeros."""
    steps = schedule(text, options.timing)
    texts = [part for _, part in steps]
    encoded = encode_a1111(models, texts, options)
    if negative and models.architecture.family == "sdxl" and not any(texts):
        encoded = [Conditioning(torch.zeros_like(c.context), _zeros(c.pooled)) for c in encoded]
    return [(end, row) for (end, _), row in zip(steps, encoded)]


def _zeros(pooled: torch.Tensor | None) -> torch.Tensor | None:
    return None if pooled is None else torch.zeros_like(pooled)


def _stretched(conds: Conds) -> Conds:
    """A1111: shorter rows of a batch repeat their last token."""
    length = max(row.context.shape[1] for picture in conds.positive for row, _ in picture)
    rows = tuple(tuple((_last_repeated(row, length), w) for row, w in picture) for picture in conds.positive)
    return Conds(rows, conds.negative)


def _last_repeated(row: Conditioning, length: int) -> Conditioning:
    missing = length - row.context.shape[1]
    if missing <= 0:
        return row
    return Conditioning(torch.cat([row.context, row.context[:, -1:].expand(-1, missing, -1)], dim=1), row.pooled)


def _padded(conds: Conds, padding: str, empty: Conditioning | None) -> Conds:
    """A1111's options that give prompt and negative prompt one length; "last" cuts a negative that is longer."""
    if conds.negative is None or padding == "none":
        return conds
    length = conds.positive[0][0][0].context.shape[1]
    negative = conds.negative
    if padding == "last":
        cut = Conditioning(negative.context[:, :length], negative.pooled)
        return Conds(conds.positive, _last_repeated(cut, length))
    assert empty is not None
    longest = max(length, negative.context.shape[1])
    rows = tuple(tuple((_with_empty(row, longest, empty), w) for row, w in picture) for picture in conds.positive)
    return Conds(rows, _with_empty(negative, longest, empty))


def _with_empty(row: Conditioning, length: int, empty: Conditioning) -> Conditioning:
    chunks = (length - row.context.shape[1]) // empty.context.shape[1]
    return Conditioning(torch.cat([row.context, *[empty.context] * chunks], dim=1), row.pooled)


def _repeated(conds: Conds) -> Conds:
    """ComfyUI: each row is repeated to the common multiple of all lengths, which leaves cross-attention as it was."""
    rows = [row for picture in conds.positive for row, _ in picture] + ([conds.negative] if conds.negative else [])
    length = math.lcm(*(row.context.shape[1] for row in rows))

    def repeated(row: Conditioning) -> Conditioning:
        return Conditioning(row.context.repeat(1, length // row.context.shape[1], 1), row.pooled)

    positive = tuple(tuple((repeated(row), weight) for row, weight in picture) for picture in conds.positive)
    return Conds(positive, None if conds.negative is None else repeated(conds.negative))
