"""What a picture tells about how it was made: a job to make it again, and what the job could not take over."""

from __future__ import annotations

from dataclasses import dataclass, field

from lora_core.jobs.generate import GenerateJob

GENERATE, IMG2IMG, INPAINT = "generate", "img2img", "inpaint"


@dataclass(frozen=True)
class Wanted:
    """The files that the picture was made with, as (name, hash); either may be "". LoRAs and embeddings by name."""

    base: tuple[str, str] = ("", "")
    vae: tuple[str, str] = ("", "")
    loras: tuple[tuple[str, str], ...] = ()
    embeddings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """`job` is of the class that `kind` says ("generate", "img2img" or "inpaint").

    Its files are bare names until `recipes.match_files` has found them. `unmapped`: one sentence for each thing of the
    picture that the job does not repeat; `assumed`: for each that the picture leaves open. `source` says in words where
    the recipe was read.
    """

    job: GenerateJob
    kind: str
    unmapped: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    source: str = ""
    wanted: Wanted = field(default_factory=Wanted)
