"""Before any test imports torch."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypothesis import settings

from lora_core import reproducible

reproducible.ask()
# The same examples each time, on machines of any speed; others: --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
