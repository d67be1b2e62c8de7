"""The demo that `make demo` runs."""

from lora_core.demo.story import run_demo

__all__ = ["run_demo"]
