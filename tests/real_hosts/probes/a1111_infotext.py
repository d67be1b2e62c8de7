"""Read infotexts and pictures with AUTOMATIC1111's own parser, and save pictures with its own writer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from common import report, request


def start(host: str, data: str) -> None:
    """Start the webui as its launcher does, up to the point where settings and samplers are there."""
    flags = ["--skip-torch-cuda-test", "--use-cpu", "all", "--no-half", "--ui-debug-mode", "--data-dir", data]
    sys.argv = ["launch.py", *flags]
    sys.path.insert(0, host)
    os.chdir(host)
    from modules import initialize

    initialize.imports()
    initialize.initialize()


def answer(path: str) -> dict[str, Any]:
    """What the webui makes of one text, as its paste button does, and of a picture that bears it."""
    from modules import images, sd_samplers
    from modules.infotext_utils import create_override_settings_dict, get_override_settings, parse_generation_parameters
    from PIL import Image

    text = Path(path).read_text("utf-8")
    values = parse_generation_parameters(text, [])
    overrides = get_override_settings(values)
    pairs = [f"{name}: {value}" for name, _, value in overrides]
    for ending in (".png", ".jpg", ".webp"):
        target = str(Path(path).with_suffix(ending))
        images.save_image_with_geninfo(Image.new("RGB", (64, 64), "red"), text, target)
    ours = {}
    for picture in Path(path).parent.glob(f"{Path(path).stem}.ours.*"):
        ours[picture.suffix] = images.read_info_from_image(Image.open(picture))[0]
    return {
        "values": {key: str(value) for key, value in values.items()},
        "sampler": sd_samplers.get_sampler_from_infotext(values),
        "schedule": sd_samplers.get_scheduler_from_infotext(values),
        "overrides": create_override_settings_dict(pairs),
        "ours": ours,
    }


def main() -> None:
    asked = request()
    start(asked["host"], asked["data"])
    report({name: answer(path) for name, path in asked["files"].items()})


main()
