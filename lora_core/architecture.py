"""What a checkpoint is, told from its header: keys and shapes, never absolute widths.

Head counts and activations are not in the weights; they follow from the family (SD1: 8 heads per UNet level, else 64
channels a head; text encoders 64 channels a head; OpenCLIP encoders use gelu, OpenAI's quick_gelu).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from lora_core.errors import FileError, KeyMismatch
from lora_core.keys import checkpoint_tensors
from lora_core.shape_reading import (
    Shapes,
    below,
    detect_vae,
    text_encoder_from,
    unet_from_diffusers,
    unet_from_ldm,
    vae_from,
)
from lora_core.shapes import (
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    VAE,
    Architecture,
    TextEncoderShape,
    UNetShape,
    VaeShape,
    head_count,
)
from lora_core.tensors import TensorSource, open_tensors

__all__ = [
    "Architecture",
    "TextEncoderShape",
    "UNetShape",
    "VaeShape",
    "architecture_of",
    "detect",
    "detect_vae",
    "refuse_untrainable",
]

LDM_UNET = "model.diffusion_model."
TEXT_PREFIXES = (
    (TEXT_ENCODER, "cond_stage_model.transformer.text_model."),
    (TEXT_ENCODER, "cond_stage_model.transformer."),
    (TEXT_ENCODER, "cond_stage_model.model."),
    (TEXT_ENCODER, "conditioner.embedders.0.transformer.text_model."),
    (TEXT_ENCODER, "conditioner.embedders.0.model."),
    (TEXT_ENCODER_2, "conditioner.embedders.1.model."),
    (TEXT_ENCODER, "text_encoder.text_model."),
    (TEXT_ENCODER_2, "text_encoder_2.text_model."),
)
V_WORDS = ("v", "v_prediction", "v-prediction", "v_pred")


def detect(shapes: Shapes, metadata: Mapping[str, str] = {}) -> Architecture:
    """The architecture of a checkpoint with these tensor shapes.

    Prediction: "v" if the file carries a `v_pred` key, or its metadata say so (`modelspec.prediction_type`,
    `modelspec.architecture`); else "epsilon". (`architecture_of` also looks at what only the file itself can tell.)
    Raises FileError when it is no Stable Diffusion checkpoint, KeyMismatch when tensors fit no known topology.
    """
    layout = _layout(shapes)
    unet_prefix = LDM_UNET if layout == "ldm" else "unet."
    unet = (
        unet_from_ldm(below(shapes, unet_prefix))
        if layout == "ldm"
        else unet_from_diffusers(below(shapes, unet_prefix))
    )
    text_prefixes = _text_prefixes(shapes)
    family = _family(unet, text_prefixes)
    unet = _with_heads(unet, family)
    prefixes = [(UNET, unet_prefix), *text_prefixes.items()]
    vae_prefix = "first_stage_model." if layout == "ldm" else "vae."
    vae = vae_from(below(shapes, vae_prefix), layout, family)
    if vae is not None:
        prefixes.append((VAE, vae_prefix))
    encoders = tuple(text_encoder_from(shapes, prefix, family, name) for name, prefix in text_prefixes.items())
    arch = Architecture(
        family=family,
        layout=layout,
        prediction="v" if _says_v(shapes, metadata) else "epsilon",
        zero_terminal_snr="ztsnr" in shapes or metadata.get("ss_zero_terminal_snr") == "True",
        inpainting=unet.in_channels == 9,
        unet=unet,
        text_encoders=encoders,
        vae=vae,
        prefixes=tuple(prefixes),
    )
    _account(arch, shapes)
    return arch


def refuse_untrainable(arch: Architecture, path: str | Path) -> None:
    """Raises FileError for models that are recognised but cannot be loaded: the SDXL refiner, odd input channels."""
    name = Path(path).name
    if arch.family == "sdxl_refiner":
        raise FileError(f"{name} is the SDXL refiner, which has no use for a LoRA; choose the SDXL base model.")
    if arch.unet.in_channels not in (4, 9):
        count = arch.unet.in_channels
        raise FileError(f"{name} is a special model with {count} input channels (instruct, depth); choose a plain one.")


def _layout(shapes: Shapes) -> str:
    if f"{LDM_UNET}input_blocks.0.0.weight" in shapes:
        return "ldm"
    if "unet.conv_in.weight" in shapes:
        return "diffusers"
    raise FileError(f"This is no Stable Diffusion 1, 2 or SDXL checkpoint: {_guess(shapes)}")


def _guess(shapes: Shapes) -> str:
    """What the file is instead, in words."""
    marks = {
        "it is a LoRA, not a base model.": ("lora_", ".lora_A.", ".lora_down."),
        "it looks like a Flux or SD3 model.": ("double_blocks.", "joint_blocks."),
        "it holds only a VAE.": ("encoder.conv_in", "first_stage_model."),
    }
    for words, parts in marks.items():
        if any(key.startswith(parts) or any(p in key for p in parts if p[0] == ".") for key in shapes):
            return words
    for words, parts in marks.items():
        if any(part in key for key in shapes for part in parts):
            return words
    return "it holds no UNet of that kind."


def _with_heads(unet: UNetShape, family: str) -> UNetShape:
    widths = unet.block_out_channels
    heads = (8,) * len(widths) if family == "sd1" else tuple(head_count(w) for w in widths)
    return UNetShape(**{**vars(unet), "heads": heads})


def _family(unet: UNetShape, text: Mapping[str, str]) -> str:
    if unet.label_channels is not None:
        refiner = unet.transformer_depth[-1] == 0 or text.get(TEXT_ENCODER, "").endswith("embedders.0.model.")
        return "sdxl_refiner" if refiner else "sdxl"
    return "sd2" if unet.linear_projection else "sd1"


def _text_prefixes(shapes: Shapes) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, prefix in TEXT_PREFIXES:
        marks = (f"{prefix}token_embedding.weight", f"{prefix}embeddings.token_embedding.weight")
        if name not in found and any(mark in shapes for mark in marks):
            found[name] = prefix
    if list(found) == [TEXT_ENCODER_2]:
        raise KeyMismatch("The checkpoint holds the second text encoder but not the first.")
    return found


def _says_v(shapes: Shapes, metadata: Mapping[str, str]) -> bool:
    if "v_pred" in shapes or "edm_vpred.sigma_max" in shapes:
        return True
    if metadata.get("modelspec.prediction_type", "") in V_WORDS:
        return True
    return "768-v" in metadata.get("modelspec.architecture", "")


def _account(arch: Architecture, shapes: Shapes) -> None:
    """Compare every tensor that the architecture has with the file. Raises KeyMismatch that names the differences."""
    known: set[str] = set()
    for component in arch.components:
        for key in checkpoint_tensors(arch, component):
            known.add(key.source)
            if key.source not in shapes:
                raise KeyMismatch(f"The checkpoint lacks {key.source}: it is damaged or a variant that is not known.")
            _check_shape(tuple(shapes[key.source]), key.shape, key.slice_rows is not None, key.source)
    unknown = [key for key in shapes if key.startswith(arch.prefix(UNET)) and key not in known]
    if unknown:
        raise KeyMismatch(f"The UNet holds {len(unknown)} tensors of a variant that is not known, e.g. {unknown[0]}.")


def _check_shape(found: tuple[int, ...], wanted: tuple[int, ...], fused: bool, name: str) -> None:
    if fused:
        wanted = (wanted[0] * 3, *wanted[1:])
    if found == wanted or found == (*wanted, 1, 1) or (name.endswith("text_projection") and found == wanted[::-1]):
        return
    raise KeyMismatch(f"{name} has shape {list(found)} where {list(wanted)} was expected: a variant that is not known.")


def architecture_of(path: str | Path) -> Architecture:
    """The architecture of a checkpoint file (.safetensors, .ckpt, .pt) or diffusers folder.

    Prediction, the first that answers: marks and metadata in the file; a diffusers folder's scheduler config; A1111's
    `NAME.yaml` beside the file; for SD2 with 4 input channels the rule that ComfyUI applies (the spread of one bias of
    the last output block tells 768-v from 512-base). Raises FileError or KeyMismatch.
    """
    try:
        with open_tensors(path) as source:
            return _resolve(detect(source.shapes, source.metadata), Path(path), source)
    except KeyMismatch as error:
        raise KeyMismatch(f"{Path(path).name}: {error}") from None
    except FileError as error:
        name = Path(path).name
        raise FileError(str(error) if name in str(error) else f"{name}: {error}") from None


def _resolve(arch: Architecture, path: Path, source: TensorSource) -> Architecture:
    scheduler = path / "scheduler" / "scheduler_config.json"
    yaml = path.with_suffix(".yaml")
    says = source.metadata.get("modelspec.prediction_type")
    if arch.prediction == "v" or says:
        return arch
    if path.is_dir() and scheduler.is_file():
        config = json.loads(scheduler.read_text("utf-8"))
        ztsnr = bool(config.get("rescale_betas_zero_snr", False))
        v = config.get("prediction_type") == "v_prediction"
        return _replace(arch, prediction="v" if v else "epsilon", zero_terminal_snr=ztsnr)
    if yaml.is_file():
        v = re.search(r"parameterization:\s*[\"']?v\b", yaml.read_text("utf-8", "replace")) is not None
        return _replace(arch, prediction="v" if v else "epsilon")
    if arch.family == "sd2" and not arch.inpainting and _sd2_is_v(arch, source):
        return _replace(arch, prediction="v")
    return arch


def _sd2_is_v(arch: Architecture, source: TensorSource) -> bool:
    names = {key.name: key.source for key in checkpoint_tensors(arch, UNET)}
    last = f"up_blocks.{len(arch.unet.block_out_channels) - 1}.attentions.{arch.unet.layers_per_block}"
    name = names.get(f"{last}.transformer_blocks.0.norm1.bias")
    return name is not None and float(source.read(name).float().std(unbiased=False)) > 0.09


def _replace(arch: Architecture, **values: object) -> Architecture:
    return Architecture(**{**vars(arch), **values})
