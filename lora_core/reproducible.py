"""The same sums on every run: what the arithmetic libraries have to be told before they are loaded."""

from __future__ import annotations

import os

# Intel MKL's conditional numerical reproducibility. Without it the order of its sums follows the place of the arrays in
# memory, and with several threads two runs of one training differ in the last bits.
ENVIRONMENT = {"MKL_CBWR": "AUTO"}


def ask() -> None:
    """Ask for it in this process and its children; a choice that the user made stays. Call before torch is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
