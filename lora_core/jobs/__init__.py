"""The kinds of work that LoRA Loom does, each a frozen value that survives a trip through JSON."""

from lora_core.jobs.choose import ChooseJob, KeepJob
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob, LoraUse
from lora_core.jobs.train import Subset, TrainJob

__all__ = ["ChooseJob", "GenerateJob", "Img2ImgJob", "InpaintJob", "KeepJob", "LoraUse", "Subset", "TrainJob"]
