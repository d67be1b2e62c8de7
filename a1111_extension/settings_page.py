"""Our page in the host's settings."""

from __future__ import annotations

from .host_api import Option

SECTION = ("lora_loom", "LoRA Loom")
OPTIONS = (
    Option("lora_folder", "", "Folder for new LoRAs", help="Empty: the host's own LoRA folder."),
    Option(
        "work_folder", "", "Working folder", help="States, caches and previews of trainings. Empty: beside the jobs."
    ),
    Option(
        "memory_plan",
        "auto",
        "Unload the host's model before a job",
        choices=("auto", "always", "never"),
        help="auto: where a graphics card is shared. The model comes back after the job.",
    ),
    Option(
        "while_drawing",
        "auto",
        "While the host draws a picture, a running job",
        choices=("auto", "pause", "go on"),
        help="auto: it pauses where a graphics card is shared.",
    ),
    Option(
        "picture_folders",
        "",
        "Folders that the REST API may read pictures from",
        help="One a line, besides the host's own folders. With --listen and its kin the pages of this tab may read "
        "these only, too; without, they may name any folder.",
    ),
    Option("engine_minutes", 5, "Minutes that the engine keeps its models", help="0: it ends after each job."),
    Option(
        "metadata",
        "full",
        "Metadata in new LoRAs",
        choices=("full", "minimal"),
        help="minimal: only what hosts need. Neither holds a path or a name of this computer.",
    ),
    Option("low_memory", False, "This card has little memory", help="Trainings start with memory-saving settings."),
)
