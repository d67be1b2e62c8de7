"""What the LoRA tools write loads in the real programs, every key of it, and changes the weights as meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from host_programs import FAMILIES, LoraFile

from lora_core.jobs import LoraUse
from lora_core.jobs.files import ConvertJob, MetadataJob, RepairJob
from lora_core.jobs.tools import ExtractJob, MergeJob, ResizeJob
from lora_core.lora_file import read_lora
from lora_core.run import run

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


def written(folder: Path, files: dict[str, LoraFile]) -> dict[str, LoraFile]:
    """One file of every tool, made from a LoRA and a LoCon of all modules."""
    one, two = str(files["unet-te"].path), str(files["unet-te-conv"].path)
    uses = (LoraUse(one, 0.6), LoraUse(two, 0.4))
    out = {
        name: str(folder / f"{name}.safetensors")
        for name in ("exact", "svd", "resized", "extracted", "comfyui", "converted", "repaired")
    }
    jobs = (
        MergeJob(uses, out["exact"]),
        MergeJob(uses, out["svd"], "svd", rank=4),
        ResizeJob(two, out["resized"], rule="error", value=0.3),
        ExtractJob(out["exact"], one, out["extracted"], rank=8),
        ConvertJob(two, out["comfyui"], to="comfyui"),
        ConvertJob(out["comfyui"], out["converted"]),
        RepairJob(out["converted"], out["repaired"]),
        MetadataJob(out["repaired"], title="Repaired", trigger="ohwx"),
    )
    for job in jobs:
        list(run(job))
    kohya = [name for name in out if name != "comfyui"]
    return {name: LoraFile(Path(out[name]), len(read_lora(out[name]).modules)) for name in kohya}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("program", ["comfyui", "a1111", "sd_scripts"])
def test_every_key_is_matched(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    lora_files: Callable[[str], dict[str, LoraFile]],
    program: str,
    family: str,
) -> None:
    host = request.getfixturevalue(program)
    made = written(tmp_path, lora_files(family))
    for name, answer in host.load(family, made).items():
        assert answer.get("unmatched", []) == [], name
        assert answer["modules"] == made[name].modules, name
        assert answer["largest_error"] < 1e-5, name
        if program == "a1111":
            assert answer["version"] == {"sd1": "SD1", "sdxl": "SDXL"}[family], name
            assert answer["hash"] == answer["computed_hash"], name
