"""All nodes as they are declared, in the order of the menu. Loads every job; ComfyUI's start reads `menu` instead."""

from __future__ import annotations

from . import dataset, epochs, generate, inpaint, recipe, tools, train, use
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


def node(id: str) -> Node:
    return next(node for node in NODES if node.id == id)
