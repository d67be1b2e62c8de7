"""A ComfyUI graph as a job: from the node that saves, up to its samplers, models, prompts and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from lora_core import host_names
from lora_core.comfyui_chains import Chains, LoraInGraph
from lora_core.comfyui_graph import Graph, Link, Node, graph_of
from lora_core.comfyui_latents import SAMPLERS, Latents, read_latents
from lora_core.errors import FileError
from lora_core.jobs.generate import GenerateJob, Img2ImgJob, InpaintJob, LoraUse
from lora_core.recipe_own_nodes import own_node, recipe_of_own
from lora_core.recipe_values import Recipe, Wanted
from lora_core.resizing import CELL
from lora_core.settings import from_json, replace_by_name, to_json

SAVERS = ("SaveImage", "PreviewImage", "SaveImageWebsocket", "SaveAnimatedWEBP", "SaveAnimatedPNG")
DECODERS = ("VAEDecode", "VAEDecodeTiled")
SIGMAS = {"KarrasScheduler": "karras", "ExponentialScheduler": "exponential"}
CLASSES: dict[str, type[GenerateJob]] = {"generate": GenerateJob, "img2img": Img2ImgJob, "inpaint": InpaintJob}
HIRES_METHODS = {
    "bilinear": "latent",
    "bicubic": "latent (bicubic)",
    "nearest-exact": "latent (nearest-exact)",
    "picture lanczos": "lanczos",
    "picture nearest-exact": "nearest",
}


@dataclass(frozen=True)
class Pass:
    """What one sampler node does; `inputs` are its links by KSampler's names."""

    node: Node
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """Name and size of the picture whose graph is read."""

    name: str = ""
    size: tuple[int, int] = (0, 0)


def recipe_comfyui(prompt: str, workflow: str = "", drawing: Drawing | None = None, source: str = "") -> Recipe:
    """The recipe in ComfyUI's "prompt" (or "workflow") of a picture. Raises FileError where no sampler is found."""
    drawing = drawing or Drawing()
    graph = graph_of(prompt, workflow)
    chains = Chains(graph)
    saver = saver_of(graph, drawing.name, chains)
    ours = next((node for node in above(graph, saver) if own_node(node)), None)
    sampler = next((node for node in above(graph, saver) if node.kind in SAMPLERS), None)
    if ours is not None and sampler is None:
        return recipe_of_own(ours, chains, source)
    if sampler is None:
        raise FileError("The ComfyUI graph in the picture has no sampler that is known here.")
    _note_pictures(chains, saver, sampler)
    return Reader(chains, drawing, source).recipe(read_pass(chains, sampler))


def saver_of(graph: Graph, name: str, chains: Chains) -> Node:
    """The node that saved the picture: by its file name's prefix, else the first."""
    found = [node for kind in SAVERS for node in graph.values() if node.kind == kind]
    found = found or [n for n in graph.values() if isinstance(n.inputs.get("images"), Link)]
    if not found:
        found = [node for node in graph.values() if node.kind in (*DECODERS, *SAMPLERS)]
    if not found:
        raise FileError("The ComfyUI graph in the picture saves no picture.")
    fitting = [n for n in found if name and name.startswith(PurePosixPath(str(n.inputs.get("filename_prefix"))).name)]
    if len(found) > 1 and len(fitting) != 1 and found[0].kind == "SaveImage" == found[1].kind:
        chains.note(f"The graph saves several pictures; {(fitting or found)[0].name} was taken.")
    return (fitting or found)[0]


def above(graph: Graph, start: Node) -> Iterator[Node]:
    """The nodes that lead to one, the nearest first."""
    todo, seen = [start], {start.id}
    while todo:
        node = todo.pop(0)
        yield node
        for _, link in node.links():
            if link.node not in seen and link.node in graph:
                seen.add(link.node)
                todo.append(graph[link.node])


def _note_pictures(chains: Chains, saver: Node, sampler: Node) -> None:
    """Name the nodes between decoding and saving."""
    link = saver.inputs.get("images", saver.inputs.get("image"))
    while (node := chains.node(link)) is not None and node.kind not in (*DECODERS, *SAMPLERS):
        if node.kind != "ImageCompositeMasked":
            chains.note(f"{node.name} changed the finished picture; that is not repeated.")
        names = ("source", "image", "images", "pixels")
        link = next((node.inputs[n] for n in names if isinstance(node.inputs.get(n), Link)), None)


def read_pass(chains: Chains, node: Node) -> Pass:
    """The values of any of the four sampler nodes, in KSampler's words."""
    inputs = gathered(chains, node)

    def number(name: str, default: float) -> float:
        value = chains.scalar(inputs.get(name))
        return value if isinstance(value, (int, float)) else default

    steps, start = int(number("steps", 20)), int(number("start_at_step", 0))
    if number("end_at_step", steps) < steps:
        chains.note(f"{node.name} ends before its last step; here every step is done.")
    late = 0 < start < steps
    return Pass(
        node,
        int(number("seed", number("noise_seed", 0))) % 2**64,
        steps - start if late else steps,
        float(number("cfg", 1.0)),
        str(chains.scalar(inputs.get("sampler_name")) or ""),
        str(chains.scalar(inputs.get("scheduler")) or ""),
        share_of(steps, start) if late else float(number("denoise", 1.0)),
        inputs,
    )


def share_of(steps: int, start: int) -> float:
    """The denoising strength that leaves out the first `start` steps; int((steps - start) / strength) is `steps`."""
    share = (steps - start) / steps
    return share if int((steps - start) / share) == steps else math.nextafter(share, 0)


def gathered(chains: Chains, node: Node) -> dict[str, Any]:
    """The inputs of a sampler node and of the nodes that hold its guider, sampler, sigmas and noise."""
    inputs = dict(node.inputs)
    for name in ("guider", "sampler", "sigmas", "noise"):
        part = chains.node(inputs.pop(name, None))
        if part is not None:
            inputs = {**part.inputs, **inputs}
            if part.kind in SIGMAS:
                inputs.setdefault("scheduler", SIGMAS[part.kind])
    if "conditioning" in inputs:
        inputs.setdefault("positive", inputs["conditioning"])
    return inputs


class Reader:
    """Builds the job from the last sampler and, for two passes, the one before it."""

    def __init__(self, chains: Chains, drawing: Drawing, source: str) -> None:
        self.chains, self.drawing, self.source = chains, drawing, source
        self.pasted = any(node.kind == "ImageCompositeMasked" for node in chains.graph.values())
        self.settings: dict[str, Any] = {"arithmetic": "comfyui", "noise_source": "cpu"}

    def recipe(self, last: Pass) -> Recipe:
        start = read_latents(self.chains, last.inputs.get("latent_image"))
        first = last
        if start.first is not None:
            first = read_pass(self.chains, start.first)
            self._second_pass(first, last, start)
            start = read_latents(self.chains, first.inputs.get("latent_image"))
        model = self.chains.model(first.inputs.get("model"))
        prompt, clip = self.chains.prompt(first.inputs.get("positive"))
        negative, _ = self.chains.prompt(first.inputs.get("negative"))
        skip, on_text = self.chains.clip(clip)
        self.settings |= {"prompt": prompt, "negative_prompt": negative, "clip_skip": skip, **model.settings}
        self.settings |= {"base": model.checkpoint, "vae": self._vae(), "seed": first.seed, "steps": first.steps}
        self.settings |= {"cfg_scale": first.cfg, **self._names(first)}
        kind = self._start(first, start)
        uses = lora_uses(model.loras, on_text)
        job = replace_by_name(
            {"generate": GenerateJob, "img2img": Img2ImgJob, "inpaint": InpaintJob}[kind](), self.settings
        )
        job = from_json(type(job), {**to_json(job), "loras": [to_json(use) for use in uses]})
        wanted = Wanted((model.checkpoint, ""), (job.vae, ""), tuple((use.path, "") for use in uses))
        assumed = (
            () if start.batch == 1 else (f"The picture is one of a batch of {start.batch}, which is drawn whole.",)
        )
        return Recipe(job, kind, tuple(self.chains.notes), assumed, self.source, wanted)

    def _names(self, one: Pass) -> dict[str, str]:
        sampler, schedule = host_names.sampler_token(one.sampler), host_names.schedule_token(one.scheduler)
        if sampler is None:
            self.chains.note(f"The sampler {one.sampler or '(none)'} is not known here; Euler stands in its place.")
        elif one.sampler.endswith("_gpu"):
            self.chains.note(f"The sampler {one.sampler} drew its noise on the graphics card; here the CPU draws it.")
        if schedule is None:
            self.chains.note(f"The schedule {one.scheduler or '(none)'} is not known here; normal stands in its place.")
        return {"sampler": sampler or "euler", "scheduler": schedule or "normal"}

    def _vae(self) -> str:
        """The VAE of the graph's first decoder or encoder that takes one from a file."""
        for node in self.chains.graph.values():
            loader = self.chains.node(node.inputs.get("vae"))
            name = self.chains.scalar(loader.inputs.get("vae_name")) if loader else None
            if isinstance(name, str):
                return name
        return ""

    def _start(self, first: Pass, start: Latents) -> str:
        """Size, picture and mask; which kind of job it is."""
        size = start.size or (self.drawing.size if all(self.drawing.size) and start.encoded else None)
        if size and start.encoded and any(side % CELL for side in size):
            kept = f"{size[0] // CELL * CELL} x {size[1] // CELL * CELL}"
            self.chains.note(
                f"Of {size[0]} x {size[1]} pixels ComfyUI drew {kept}; here the picture is resized to that."
            )
            size = size[0] // CELL * CELL, size[1] // CELL * CELL
        self.settings |= {"width": size[0], "height": size[1]} if size else {}
        self.settings["batch_size"] = start.batch
        if not start.encoded:
            if first.denoise < 1:
                self.chains.note(f"{first.node.name} denoises an empty latent by {first.denoise:g}; here wholly.")
            return "generate"
        self.settings |= {"image": start.picture, "denoising_strength": first.denoise}
        if not start.picture:
            self.chains.note("The picture that was drawn over is not named in the graph: set image.")
        if not start.masked:
            return "img2img"
        own = start.mask == f"alpha of {start.picture}"
        if not own and start.mask.startswith("alpha of "):
            self.chains.note(f"The mask is the {start.mask}: make it a mask picture and set mask.")
        mask = "" if start.mask.startswith("alpha of ") else start.mask
        self.settings |= {"mask": mask, "mask_blur": 0, "mask_invert": start.inverted, "masked_content": start.content}
        self.settings |= {"mask_grow": start.grow, "keep_size": False, "overlay_original": self.pasted}
        return "inpaint"

    def _second_pass(self, first: Pass, last: Pass, start: Latents) -> None:
        """Two samplers in a row are a hires fix."""
        name = last.node.name
        if not start.method:
            self.chains.note(f"{name} goes on from {first.node.name} at the same size (a refiner?); it is left out.")
            return
        upscaler = HIRES_METHODS.get(start.method)
        if upscaler is None:
            self.chains.note(f"{name} upscaled by {start.method}, which is not known here; latent stands in its place.")
        sized = (
            {"hires_width": start.size[0], "hires_height": start.size[1]}
            if start.size
            else {"hires_scale": start.scale}
        )
        steps = last.steps if last.steps != first.steps else 0
        self.settings |= {**sized, "hires_upscaler": upscaler or "latent", "hires_steps": steps}
        self.settings["hires_denoising"] = last.denoise
        plain = [("seed", first.seed, last.seed), ("CFG scale", first.cfg, last.cfg)]
        plain += [("sampler", first.sampler, last.sampler), ("schedule", first.scheduler, last.scheduler)]
        linked = [(word, first.inputs.get(word), last.inputs.get(word)) for word in ("model", "positive", "negative")]
        for word, one, other in (*plain, *linked):
            if one != other:
                told = f"another {word}" if isinstance(other, Link) else f"{other} as {word}"
                self.chains.note(f"The second pass ({name}) has {told}; here both passes share the first's.")


def lora_uses(on_model: tuple[LoraInGraph, ...], on_text: tuple[LoraInGraph, ...]) -> tuple[LoraUse, ...]:
    """One use for each loader node: its strength counts where the model, or the text encoder, passes through it."""
    heard = {lora.node: lora for lora in on_text}
    uses = []
    for lora in on_model:
        text = heard.pop(lora.node).text_encoder_strength if lora.node in heard else 0.0
        uses.append(LoraUse(lora.name, lora.strength, None if text == lora.strength else text))
    return (*uses, *(LoraUse(lora.name, 0.0, lora.text_encoder_strength) for lora in heard.values()))
