"""AUTOMATIC1111's door: the extension itself is a package, which this loads under a name of its own."""

from pathlib import Path

from lora_core.doors import load_package

LoraLoom = load_package("lora_loom_a1111", Path(__file__).resolve().parents[1] / "a1111_extension").register()
