"""Before any test imports torch."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_core import reproducible

reproducible.ask()
