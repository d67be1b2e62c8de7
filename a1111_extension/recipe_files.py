"""Recipes with the files that the host has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_core.errors import LoomError
from lora_core.jobs.generate import GenerateJob
from lora_core.recipes import Recipe, match_files

if TYPE_CHECKING:
    from .host_api import Host


def with_files(recipe: Recipe, host: Host) -> Recipe:
    """The recipe with the host's models, LoRAs and embeddings in place of their names."""
    folders = (*host.checkpoint_folders(), *host.lora_folders(), *host.embedding_folders())
    return match_files(recipe, [folder for folder in folders if folder.is_dir()])


def job_told(parameters: str, host: Host) -> GenerateJob | None:
    """The job of A1111's parameters, None where they are none. A model that is not here is left open."""
    from lora_core.recipe_a1111 import recipe_a1111

    try:
        recipe = with_files(recipe_a1111(parameters), host)
    except LoomError:
        return None
    return recipe.job
