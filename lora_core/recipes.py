"""From a picture of either host back to the job that draws it again."""

from __future__ import annotations

import json
from pathlib import Path

from lora_core.errors import FileError
from lora_core.picture_text import PictureText, read_picture_text
from lora_core.recipe_a1111 import recipe_a1111
from lora_core.recipe_comfyui import Drawing, recipe_comfyui
from lora_core.recipe_match import match_files
from lora_core.recipe_values import Recipe, Wanted

__all__ = ["Recipe", "Wanted", "match_files", "recipe_of"]


def recipe_of(path: str | Path) -> Recipe:
    """The recipe in a picture (PNG, JPEG, WebP, AVIF, GIF) or in a .txt of A1111's parameters.

    A1111's text is believed before a graph, because some programs write both and the text is the plainer one; a graph
    with LoRA Loom's own nodes, or none beside it, is read instead. Raises FileError for a file that is missing, no
    picture, or without a recipe.
    """
    path = Path(path)
    found = read_picture_text(path)
    texts = found.texts
    prompt, workflow = texts.get("prompt", ""), texts.get("workflow", "")
    if texts.get("parameters"):
        return recipe_a1111(texts["parameters"], f"A1111's parameters ({found.place})")
    if prompt.lstrip().startswith("{") or workflow:
        return recipe_comfyui(prompt, workflow, Drawing(path.name, found.size), f"ComfyUI's graph ({found.place})")
    if texts.get("Software") == "NovelAI" and texts.get("Comment"):
        return recipe_a1111(_novelai(found), f"NovelAI's comment ({found.place})")
    raise FileError(
        f"{path.name} holds no recipe: it was saved without one, or the program that it went through removed it."
    )


def _novelai(found: PictureText) -> str:
    """NovelAI's JSON comment in A1111's words, as A1111 itself reads it."""
    try:
        data = json.loads(found.texts["Comment"])
        prompt, negative = found.texts.get("Description") or data.get("prompt", ""), data.get("uc", "")
        values = f"Steps: {data['steps']}, Sampler: {data['sampler']}, CFG scale: {data['scale']}, Seed: {data['seed']}"
    except (ValueError, KeyError, AttributeError, TypeError):
        raise FileError("NovelAI's comment in the picture is damaged.") from None
    size = f"Size: {found.size[0]}x{found.size[1]}"
    return f"{prompt}\nNegative prompt: {negative}\n{values}, {size}, Clip skip: 2, ENSD: 31337"
