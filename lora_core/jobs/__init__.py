"""The kinds of work that LoRA Loom does, each a frozen value that survives a trip through JSON."""

from lora_core.jobs.generate import GenerateJob, InpaintJob, LoraUse
from lora_core.jobs.train import Subset, TrainJob

__all__ = ["GenerateJob", "InpaintJob", "LoraUse", "Subset", "TrainJob"]
