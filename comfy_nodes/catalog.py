"""All nodes, in the order of the menu."""

from __future__ import annotations

from . import dataset, epochs, generate, inpaint, recipe, routes, tools, train, use
from .declare import Node

NODES: tuple[Node, ...] = (
    *train.NODES,
    *dataset.NODES,
    *epochs.NODES,
    *use.NODES,
    *generate.NODES,
    *inpaint.NODES,
    *recipe.NODES,
    *tools.NODES,
)


def begin() -> None:
    """What happens once, when ComfyUI has asked for the nodes."""
    routes.register()
