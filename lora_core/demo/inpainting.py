"""The demo's inpainting: an ordinary head becomes the character's, the rest of the picture stays."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from PIL import Image, ImageDraw

from lora_core.demo import plan
from lora_core.drawing import mask_overlay, strip
from lora_core.errors import LoomError
from lora_core.events import Event, Finished
from lora_core.jobs import InpaintJob, LoraUse
from lora_core.jobs.demo import DemoJob
from lora_core.run import run

MASK_BOX = (24, 8, 103, 87)
SHOWN = (256, 256)


def head_mask() -> Image.Image:
    """White over hair and face of a portrait."""
    mask = Image.new("L", (plan.SIZE, plan.SIZE), 0)
    ImageDraw.Draw(mask).rectangle(MASK_BOX, fill=255)
    return mask


def inpaint_job(base: Path, lora: Path, folder: Path, job: DemoJob) -> InpaintJob:
    """The job; picture and mask lie in the folder already."""
    return InpaintJob(
        base=str(base),
        prompt=plan.INPAINT_AFTER,
        output_dir=str(folder),
        name="result",
        loras=(LoraUse(str(lora)),),
        width=plan.SIZE,
        height=plan.SIZE,
        steps=plan.SAMPLING_STEPS,
        cfg_scale=plan.CFG_SCALE,
        seed=job.seed,
        device=job.device,
        dtype="fp32",
        image=str(folder / "picture.png"),
        mask=str(folder / "mask.png"),
        denoising_strength=1.0,
        mask_blur=0,
        masked_content="latent noise",
    )


def repaint(
    picture: Image.Image, base: Path, lora: Path, folder: Path, job: DemoJob
) -> Generator[Event, None, Image.Image]:
    """Repaint the head of `picture` with the LoRA and return the strip of picture, mask and result."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("result-*.png"):
        old.unlink()
    mask = head_mask()
    picture.save(folder / "picture.png")
    mask.save(folder / "mask.png")
    outputs: tuple[str, ...] = ()
    for event in run(inpaint_job(base, lora, folder, job)):
        if isinstance(event, Finished):
            outputs = event.outputs
        else:
            yield event
    if not outputs:
        raise LoomError("The inpainting made no picture.")
    with Image.open(outputs[0]) as result:
        pictures = [picture, mask_overlay(picture, mask), result.convert("RGB")]
    return strip(pictures, ("drawn by the base", "mask: hair and face", "repainted with the LoRA"), cell=SHOWN)
