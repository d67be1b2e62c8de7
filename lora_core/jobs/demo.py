"""The demo: one training from shipped pictures, drawn and measured."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.settings import problems, setting


@dataclass(frozen=True)
class DemoJob:
    """Train the shipped character on the shipped base and draw what it learned into `output_dir/index.html`."""

    output_dir: str = setting("out/demo", "Folder for the demo", widget="save_folder")
    base: str = setting("", "Base model", "Empty: the shipped demo base.", widget="checkpoint", advanced=True)
    pictures: str = setting(
        "",
        "Pictures",
        "Empty: the shipped character. Folders held_out and ordinary beside it are used too.",
        widget="folder",
        advanced=True,
    )
    steps: int = setting(200, "Training steps", min=1, max=100_000)
    samples: int = setting(32, "Samples per measurement", min=2, max=1024, step=2)
    seed: int = setting(1, "Seed", min=0, max=2**31)
    device: str = setting("auto", "Device", advanced=True)

    def problems(self) -> list[str]:
        """Every fault that can be told without opening a file."""
        return problems(self) + ([] if self.output_dir else ["No folder for the demo is named: set output_dir."])
