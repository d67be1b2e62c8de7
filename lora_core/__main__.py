"""`python -m lora_core VERB`, see `lora_core.cli`."""

import sys

from lora_core.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
