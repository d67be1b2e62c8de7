"""What a job draws with, as its pictures tell it: the hashes of the base, the VAE, the LoRAs and the embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_core.embeddings import EmbeddingFolders
from lora_core.engine.lora_uses import NamedLora, job_embeddings
from lora_core.engine.models import Models
from lora_core.engine.request import SampleRequest
from lora_core.file_identity import hash_later
from lora_core.infotext_fields import Drawn
from lora_core.jobs.generate import GenerateJob
from lora_core.tensors import data_hash, read_header


@dataclass(frozen=True)
class Origin:
    """`base` and `vae` wait for their files to be hashed. `widths`: those of the text encoders."""

    base: Callable[[], str]
    vae: Callable[[], str]
    loras: tuple[tuple[str, str], ...]
    embeddings: EmbeddingFolders
    widths: tuple[int, ...]

    def drawn(self, batch: SampleRequest, place: int) -> Drawn:
        """What picture number `place` of a batch adds to its job, after the batch was drawn."""
        return Drawn(
            seed=batch.seeds[place],
            subseed=batch.subseeds[place],
            lora_hashes=self.loras,
            embedding_hashes=tuple(self.embeddings.used_hashes(self.widths).items()),
            model_hash=self.base(),
            vae_hash=self.vae(),
            position=place,
        )


def origin_of(job: GenerateJob, models: Models, named: Sequence[NamedLora]) -> Origin:
    """Begins to hash the files, beside other work."""
    base, vae = hash_later(job.base), hash_later(job.vae) if job.vae else str
    widths = tuple(shape.width for shape in models.architecture.text_encoders)
    return Origin(base, vae, tuple(lora_digests(named)), job_embeddings(job), widths)


def lora_digests(named: Sequence[NamedLora]) -> list[tuple[str, str]]:
    """A1111's hash of each LoRA: the one in its metadata, else of its bytes behind the header."""
    return [(n.name, read_header(n.path).metadata.get("sshs_model_hash") or data_hash(n.path)) for n in named]
