"""Loading a checkpoint's components into diffusers' and transformers' modules, without a network or a second copy.

Modules are built on the meta device (nothing is initialised) and filled tensor by tensor, each in its final number
format: peak memory is the weights plus one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lora_core.architecture import architecture_of, detect_vae, refuse_untrainable
from lora_core.engine.configs import text_config, unet_config, vae_config
from lora_core.engine.prompt_encoding import EncodedTexts
from lora_core.errors import EngineMissing, KeyMismatch
from lora_core.keys import TensorKey, checkpoint_tensors, vae_tensors
from lora_core.shapes import TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE, Architecture, TextEncoderShape
from lora_core.tensors import open_tensors, read_key

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


@dataclass
class Models:
    """The loaded components of one base model. `notes`: sentences for the person, which a job says once.

    `one_at_a_time`: the device on which only the component at work is, while the others wait in main memory.
    `texts`: what each text encoder gave before, empty where something may still change the encoders.
    """

    architecture: Architecture
    unet: Any
    text_encoders: tuple[Any, ...]
    vae: Any
    notes: list[str] = field(default_factory=list)
    one_at_a_time: torch.device | None = None
    texts: tuple[EncodedTexts, ...] = ()

    def component(self, name: str) -> nn.Module | None:
        """ "unet", "text_encoder", "text_encoder_2" or "vae"; None when it is not loaded."""
        parts = {UNET: self.unet, VAE: self.vae} | dict(zip((TEXT_ENCODER, TEXT_ENCODER_2), self.text_encoders))
        return parts.get(name)

    @property
    def device(self) -> torch.device:
        """Where the computing is done."""
        return self.one_at_a_time or next(self.unet.parameters()).device

    def work(self, *names: str) -> None:
        """Bring these components onto the device of `one_at_a_time`, after the others have left it."""
        if self.one_at_a_time is None:
            return
        components = {name: self.component(name) for name in (UNET, VAE, TEXT_ENCODER, TEXT_ENCODER_2)}
        for name, component in components.items():
            if component is not None and name not in names:
                component.to("cpu")
        for name, component in components.items():
            if component is not None and name in names:
                component.to(self.one_at_a_time)


def load_models(path: str | Path, dtype: torch.dtype, device: torch.device | str, vae_path: str = "") -> Models:
    """All components of a base model, in eval mode and frozen. The VAE of an fp16 model is kept in fp32."""
    arch = usable_architecture(path)
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    vae = load_vae(path, vae_dtype, device, vae_path)
    encoders = load_text_encoders(path, dtype, device)
    return Models(arch, load_unet(path, dtype, device), encoders, vae)


def usable_architecture(path: str | Path) -> Architecture:
    """`architecture_of`, refusing what cannot be loaded (the SDXL refiner) by a FileError."""
    arch = architecture_of(path)
    refuse_untrainable(arch, path)
    return arch


def load_unet(path: str | Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> UNet2DConditionModel:
    """The UNet of a checkpoint file or diffusers folder. Raises FileError or KeyMismatch."""
    arch = usable_architecture(path)
    with engine_packages():
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    with empty_weights():
        unet = UNet2DConditionModel(**unet_config(arch))
    return _filled(unet, path, checkpoint_tensors(arch, UNET), dtype, device)


def load_text_encoders(path: str | Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> tuple[Any, ...]:
    """CLIPTextModel for SD1 and SD2; for SDXL CLIPTextModel and CLIPTextModelWithProjection."""
    arch = usable_architecture(path)
    found = []
    for component, shape in zip((TEXT_ENCODER, TEXT_ENCODER_2), arch.text_encoders):
        encoder = _empty_text_encoder(shape)
        found.append(_filled(encoder, path, checkpoint_tensors(arch, component), dtype, device))
    return tuple(found)


def _empty_text_encoder(shape: TextEncoderShape) -> nn.Module:
    with engine_packages():
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection
    kind = CLIPTextModel if shape.projection is None else CLIPTextModelWithProjection
    with empty_weights():
        return kind(CLIPTextConfig(**text_config(shape)))


def load_vae(
    path: str | Path, dtype: torch.dtype, device: torch.device | str = "cpu", vae_path: str = ""
) -> AutoencoderKL:
    """The VAE of the base, or the one in `vae_path` (a VAE file, or any checkpoint that holds one)."""
    arch = usable_architecture(path)
    source, shape = vae_path or path, arch.vae
    if vae_path:
        with open_tensors(vae_path) as file:
            shape, prefix, layout = detect_vae(file.shapes, arch.family)
        keys = vae_tensors(shape, prefix, layout)
    elif shape is None:
        raise KeyMismatch(f"{Path(path).name} holds no VAE: name a VAE file (setting vae).")
    else:
        keys = checkpoint_tensors(arch, VAE)
    with engine_packages():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    with empty_weights():
        vae = AutoencoderKL(**vae_config(shape))
    return _filled(vae, source, keys, dtype, device)


@contextmanager
def engine_packages() -> Iterator[None]:
    """Turns a failing import of diffusers or transformers into EngineMissing."""
    try:
        yield
    except ImportError as error:
        raise EngineMissing(
            f"diffusers and transformers are needed here and cannot be imported: {error}. "
            'Install them: pip install "lora-loom[engine]".'
        ) from error


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules made inside hold no memory and draw no random numbers."""
    with torch.device("meta"):
        yield


def _filled(
    module: Any, path: str | Path, keys: Iterable[TensorKey], dtype: torch.dtype, device: torch.device | str
) -> Any:
    """Fill every parameter from the file; raises KeyMismatch that names what is left over on either side."""
    waiting = dict(module.named_parameters())
    with open_tensors(path) as source:
        for key in keys:
            if waiting.pop(key.name, None) is None:
                raise KeyMismatch(
                    f"{Path(path).name}: the tensor {key.source} fits no place in the model ({key.name})."
                )
            _assign(module, key, read_key(source, key, dtype).to(device))
    _fill_buffers(module, device)
    if waiting:
        names = ", ".join(list(waiting)[:3])
        raise KeyMismatch(f"{Path(path).name} lacks {len(waiting)} tensors of the model, e.g. {names}.")
    return module.eval().requires_grad_(False)


def _assign(module: nn.Module, key: TensorKey, tensor: torch.Tensor) -> None:
    path, _, name = key.name.rpartition(".")
    owner = module.get_submodule(path)
    wanted = tuple(getattr(owner, name).shape)
    if tuple(tensor.shape) != wanted:
        raise KeyMismatch(f"{key.source} has shape {list(tensor.shape)} where the model takes {list(wanted)}.")
    setattr(owner, name, nn.Parameter(tensor, requires_grad=False))


def _fill_buffers(module: nn.Module, device: torch.device | str) -> None:
    """The only buffers that these models have are CLIP's position numbers, which no file needs to hold."""
    for owner in module.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if name != "position_ids":
                raise KeyMismatch(f"The model has a buffer {name} that cannot be filled: this version is not known.")
            owner.register_buffer(name, torch.arange(buffer.shape[-1], device=device)[None], persistent=False)
