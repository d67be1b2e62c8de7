"""What a ComfyUI sampler starts from: empty latents, a picture, a mask, or another sampler's result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lora_core.comfyui_chains import Chains
from lora_core.comfyui_graph import Link, Node

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")


@dataclass(frozen=True)
class Latents:
    """Where a sampler starts. `first` is an earlier sampler; `picture` and `mask` are file names ("" = none)."""

    size: tuple[int, int] | None = None
    batch: int = 1
    encoded: bool = False
    picture: str = ""
    masked: bool = False
    mask: str = ""
    inverted: bool = False
    content: str = "original"
    grow: int = 0
    first: Node | None = None
    scale: float = 0.0
    method: str = ""


def read_latents(chains: Chains, link: Any) -> Latents:
    """What the latents at `link` are made of; what has no counterpart is noted."""
    return LatentChain(chains).read(link)


class LatentChain:
    """The way up from one sampler's latents."""

    def __init__(self, chains: Chains) -> None:
        self.chains = chains

    def read(self, link: Any) -> Latents:
        """Go up from a sampler's latents."""
        found = Latents()

        def step(node: Node, _: Link) -> Any:
            nonlocal found
            found, following = self._latents(node, found)
            return following

        self.chains.up(link, step)
        return found

    def _latents(self, node: Node, found: Latents) -> tuple[Latents, Any]:
        inputs = node.inputs
        size = self._size(node)
        if node.kind in SAMPLERS:
            return replace(found, first=node), None
        if node.kind in ("VAEEncode", "VAEEncodeTiled", "VAEEncodeForInpaint", "InpaintModelConditioning"):
            return self._encode(node, found), None
        if node.kind == "SetLatentNoiseMask":
            return self._masked(found, inputs.get("mask")), inputs.get("samples")
        if node.kind == "RepeatLatentBatch":
            return replace(found, batch=found.batch * self._number(node, "amount", 1)), inputs.get("samples")
        if node.kind in ("LatentUpscale", "LatentUpscaleBy"):
            return self._scaled(node, found, ""), inputs.get("samples")
        if size and "samples" not in inputs:
            batch = found.batch * self._number(node, "batch_size", 1)
            return replace(found, size=found.size or size, batch=batch), None
        following = next((inputs[n] for n in ("samples", "latent", "samples1", "latent_image") if n in inputs), None)
        self.chains.note(f"{node.name} changes the latents; it has no counterpart here.")
        return found, following

    def _scaled(self, node: Node, found: Latents, what: str) -> Latents:
        scale = float(self._number(node, "scale_by", 0, float))
        method = f"{what}{self.chains.scalar(node.inputs.get('upscale_method'))}"
        return replace(found, size=found.size or self._size(node), scale=scale, method=method)

    def _number(self, node: Node, name: str, default: int, kind: type = int) -> Any:
        value = self.chains.scalar(node.inputs.get(name))
        return kind(value) if isinstance(value, (int, float)) and value else default

    def _size(self, node: Node) -> tuple[int, int] | None:
        sides = [self.chains.scalar(node.inputs.get(name)) for name in ("width", "height")]
        return (int(sides[0]), int(sides[1])) if all(isinstance(s, (int, float)) and s > 0 for s in sides) else None

    def _encode(self, node: Node, found: Latents) -> Latents:
        found = replace(found, encoded=True)
        if node.kind in ("VAEEncodeForInpaint", "InpaintModelConditioning"):
            found = self._masked(found, node.inputs.get("mask"))
        if node.kind == "VAEEncodeForInpaint":
            found = replace(found, content="grey", grow=self._number(node, "grow_mask_by", 0))
        return self._picture(node.inputs.get("pixels"), found)

    def _picture(self, link: Any, found: Latents) -> Latents:
        def step(node: Node, _: Link) -> Any:
            nonlocal found
            if node.kind == "LoadImage":
                found = replace(found, picture=str(self.chains.scalar(node.inputs.get("image"))))
                return None
            if node.kind in ("VAEDecode", "VAEDecodeTiled"):
                found = replace(found, first=LatentChain(self.chains).read(node.inputs.get("samples")).first)
                return None
            if node.kind in ("ImageScale", "ImageScaleBy"):
                found = self._scaled(node, found, "picture ")
            else:
                self.chains.note(f"{node.name} changes the picture beforehand; it has no counterpart here.")
            return next((node.inputs[n] for n in ("image", "images", "pixels") if n in node.inputs), None)

        self.chains.up(link, step)
        return found

    def _masked(self, found: Latents, link: Any) -> Latents:
        """Follow a mask to the picture it comes from."""
        found = replace(found, masked=True)

        def step(node: Node, _: Link) -> Any:
            nonlocal found
            if node.kind in ("LoadImage", "LoadImageMask"):
                alpha = node.kind == "LoadImage" or self.chains.scalar(node.inputs.get("channel")) == "alpha"
                name = str(self.chains.scalar(node.inputs.get("image")))
                found = replace(found, mask=f"alpha of {name}" if alpha else name)
                return None
            if node.kind == "InvertMask":
                found = replace(found, inverted=not found.inverted)
            elif node.kind not in ("ImageToMask", "MaskToImage"):
                self.chains.note(f"{node.name} changes the mask; it has no counterpart here.")
            return next((node.inputs[n] for n in ("mask", "image", "masks") if n in node.inputs), None)

        self.chains.up(link, step)
        return found
