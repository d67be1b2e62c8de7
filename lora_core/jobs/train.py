"""The training job: everything a run needs, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.jobs.dataset import Captions, Dataset, Subset
from lora_core.jobs.network import Network
from lora_core.jobs.noise import NoiseAndLoss
from lora_core.jobs.optimization import OPTIMIZERS, SCHEDULES, Optimization
from lora_core.jobs.saves import Saves
from lora_core.settings import group, problems, setting

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Captions",
    "Dataset",
    "Network",
    "NoiseAndLoss",
    "Optimization",
    "Saves",
    "Subset",
    "TrainJob",
    "name_problems",
]

DTYPES = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Length:
    steps: int = setting(0, "Steps", "Optimizer steps; 0 = as many as the epochs make.", min=0, max=10_000_000)
    epochs: int = setting(10, "Epochs", "Times that every picture is seen; used when steps is 0.", min=1, max=100_000)
    time_budget: float = setting(
        0.0,
        "Time budget (minutes)",
        "The speed is measured first; steps that would take longer are left out. 0 = none.",
        min=0,
        max=100_000,
    )


@dataclass(frozen=True)
class Memory:
    device: str = setting("auto", "Device", "auto, cpu, cuda, cuda:1, mps, ...", advanced=True)
    dtype: str = setting(
        "auto", "Precision of the base", "auto: bf16 where the device is fast with it.", choices=DTYPES
    )
    gradient_checkpointing: bool = setting(False, "Gradient checkpointing", "Less memory, about a third slower.")
    cache_dir: str = setting(
        "", "Cache folder", "Empty: a folder beside the run's state.", widget="save_folder", advanced=True
    )
    cache_text: bool = setting(
        True,
        "Cache text encoder outputs",
        "Used when captions are fixed and no text encoder is trained.",
        advanced=True,
    )
    threads: int = setting(0, "CPU threads", "0 = as torch decides.", min=0, max=1024, advanced=True)


@dataclass(frozen=True)
class TrainJob:
    """Train a kohya-format LoRA. Written: `output_dir/name.safetensors`, saves as `name-000123.safetensors`."""

    base: str = setting("", "Base model", "Checkpoint (.safetensors, .ckpt) or diffusers folder.", widget="checkpoint")
    name: str = setting("lora", "Name", "File name of the LoRA, also what the hosts show.")
    output_dir: str = setting("", "Folder for the LoRA", widget="save_folder")
    work_dir: str = setting(
        "", "Working folder", "State, cache, previews and log. Empty: output_dir/name.loom", widget="save_folder"
    )
    vae: str = setting("", "VAE", "Another VAE file instead of the base's own.", widget="file", advanced=True)
    seed: int = setting(0, "Seed", "The same seed gives the same training.", min=0, max=2**63 - 1)
    resume: bool = setting(True, "Resume", "Go on from the state of an interrupted run of the same job.")
    dataset: Dataset = group(Dataset, "Dataset")
    captions: Captions = group(Captions, "Captions")
    network: Network = group(Network, "Network")
    optimization: Optimization = group(Optimization, "Optimizer")
    length: Length = group(Length, "Length")
    noise: NoiseAndLoss = group(NoiseAndLoss, "Noise and loss")
    saves: Saves = group(Saves, "Saves and previews")
    memory: Memory = group(Memory, "Memory")

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        found = problems(self)
        if not self.base:
            found.append("No base model is named: set base to a checkpoint file or a diffusers folder.")
        if not self.output_dir:
            found.append("No folder for the LoRA is named: set output_dir.")
        if not self.dataset.folder and not self.dataset.subsets:
            found.append("No pictures are named: set the dataset's folder.")
        if not self.network.train_unet and not self.network.train_text_encoder and not self.network.token_vectors:
            found.append("Neither the UNet nor the text encoder is trained: switch one on.")
        if self.network.token_vectors:
            found += word_problems(self.captions.trigger)
        found += self.network.problems() + self.optimization.problems()
        if self.optimization.finds_rate and not self.has_one_rate():
            name = self.optimization.optimizer.capitalize()
            found.append(
                f"{name} takes one learning rate: leave the text encoders' empty, or set them to 0 or the same."
            )
        found += self.dataset.problems() + self.noise.problems() + self.saves.problems()
        if self.captions.max_tokens % 75:
            found.append("Caption length (max_tokens) must be 75, 150 or 225.")
        return found + name_problems(self.name)

    def has_one_rate(self) -> bool:
        """Whether all parts that are trained have the same learning rate."""
        o, n = self.optimization, self.network
        rates = {o.text_encoder_lr, o.text_encoder_2_lr} if n.train_text_encoder and n.train_unet else set()
        return rates <= {None, 0, o.learning_rate}


def word_problems(trigger: str) -> list[str]:
    """Why a trigger cannot be the name of new tokens (token_vectors)."""
    word = trigger.strip()
    if word and all(c.isalnum() or c in "_-" for c in word):
        return []
    return [f"Trained as new tokens (token_vectors), the trigger has to be one word of letters and digits: {word!r}."]


def name_problems(name: str) -> list[str]:
    """Characters that a file system or A1111's prompt syntax <lora:name:1> cannot take."""
    bad = sorted(set(name) & set('<>:"/\\|?*=,[](){}\0'))
    if not name.strip() or name.strip(". ") != name:
        return [f"The name {name!r} cannot be a file name: it is empty or begins or ends with a dot or a space."]
    if bad or any(ord(c) < 32 for c in name):
        what = " ".join(bad) or "control characters"
        return [f"The name {name!r} holds {what}, which prompts or file systems cannot take."]
    return []
