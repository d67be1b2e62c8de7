"""LoRA Loom: train, merge, inspect and use kohya-format LoRAs, independent of any host."""

__version__ = "0.1.0"
