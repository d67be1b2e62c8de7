"""Encode prompts with A1111's own parser and text encoders on a small checkpoint; tensors go into a file."""

from __future__ import annotations

import os
import re
import sys
from types import SimpleNamespace
from typing import Any

import torch
from common import report, request
from safetensors.torch import load_file, save_file


def start(host: str, data: str) -> None:
    """Start the webui as its launcher does, up to the point where its modules are loaded."""
    flags = ["--skip-torch-cuda-test", "--use-cpu", "all", "--no-half", "--ui-debug-mode", "--data-dir", data]
    sys.argv = ["launch.py", *flags]
    sys.path.insert(0, host)
    os.chdir(host)
    from modules import initialize

    initialize.imports()
    initialize.initialize()


def hugging_face(shape: dict[str, Any], tensors: dict[str, torch.Tensor], prefix: str) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **shape)).eval()
    own = {"text_model." + key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    missing = model.load_state_dict(own, strict=False)[0]
    if any("position_ids" not in key for key in missing):
        raise AssertionError(f"not filled: {missing[:5]}")
    return model


def open_clip_model(shape: dict[str, Any], tensors: dict[str, torch.Tensor], prefix: str) -> Any:
    import open_clip

    own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    layers = 1 + max(int(found[1]) for key in own if (found := re.match(r"transformer\.resblocks\.(\d+)\.", key)))
    text = {"width": shape["hidden_size"], "heads": shape["num_attention_heads"], "layers": layers}
    vision = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 16, "image_size": 16}
    model = open_clip.CLIP(shape["hidden_size"], vision, {"context_length": 77, "vocab_size": 49408, **text}).eval()
    del model.visual
    missing = model.load_state_dict(own, strict=False)[0]
    if any(key not in ("logit_scale", "attn_mask") for key in missing):
        raise AssertionError(f"not filled: {missing[:5]}")
    return model


def bare(cls: Any, **attributes: Any) -> Any:
    """An object of a host's class without its __init__, which would download a model."""
    made = cls.__new__(cls)
    torch.nn.Module.__init__(made)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained("openai/clip-vit-large-patch14")


def sd1(setup: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    import ldm.modules.encoders.modules as encoders
    from modules import sd_hijack, sd_hijack_clip

    model = hugging_face(setup["encoders"][0], tensors, "cond_stage_model.transformer.text_model.")
    wrapped = bare(encoders.FrozenCLIPEmbedder, tokenizer=tokenizer(), transformer=model, layer="last", layer_idx=None)
    place = model.text_model.embeddings
    place.token_embedding = sd_hijack.EmbeddingsWithFixes(place.token_embedding, sd_hijack.model_hijack)
    return sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords(wrapped, sd_hijack.model_hijack)


def sd2(setup: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    import ldm.modules.encoders.modules as encoders
    from modules import sd_hijack, sd_hijack_open_clip

    model = open_clip_model(setup["encoders"][0], tensors, "cond_stage_model.model.")
    wrapped = bare(encoders.FrozenOpenCLIPEmbedder, model=model, layer="penultimate", layer_idx=1)
    model.token_embedding = sd_hijack.EmbeddingsWithFixes(model.token_embedding, sd_hijack.model_hijack)
    return sd_hijack_open_clip.FrozenOpenCLIPEmbedderWithCustomWords(wrapped, sd_hijack.model_hijack)


def sdxl(setup: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """The conditioner with both text encoders; sizes are left out."""
    import sgm.modules.encoders.modules as encoders
    from modules import sd_hijack, sd_hijack_clip, sd_hijack_open_clip

    hijack = sd_hijack.model_hijack
    first = hugging_face(setup["encoders"][0], tensors, "conditioner.embedders.0.transformer.text_model.")
    place = first.text_model.embeddings
    place.token_embedding = sd_hijack.EmbeddingsWithFixes(place.token_embedding, hijack)
    second = open_clip_model(setup["encoders"][1], tensors, "conditioner.embedders.1.model.")
    second.token_embedding = sd_hijack.EmbeddingsWithFixes(
        second.token_embedding, hijack, textual_inversion_key="clip_g"
    )
    named = {"input_key": "txt", "is_trainable": False, "ucg_rate": 0.0}
    first = bare(
        encoders.FrozenCLIPEmbedder, tokenizer=tokenizer(), transformer=first, layer="hidden", layer_idx=11,
        return_pooled=False, **named,
    )  # fmt: skip
    second = bare(
        encoders.FrozenOpenCLIPEmbedder2, model=second, layer="penultimate", layer_idx=1, legacy=False,
        return_pooled=True, **named,
    )  # fmt: skip
    both = [
        sd_hijack_clip.FrozenCLIPEmbedderForSDXLWithCustomWords(first, hijack),
        sd_hijack_open_clip.FrozenOpenCLIPEmbedder2WithCustomWords(second, hijack),
    ]
    for one in both:
        one.ucg_rate = 0.0
    return bare(encoders.GeneralConditioner, embedders=torch.nn.ModuleList(both))


class Model(torch.nn.Module):
    """What the prompt parser needs of a model."""

    def __init__(self, kind: str, cond_stage_model: Any) -> None:
        super().__init__()
        self.kind = kind
        self.cond_stage_model = cond_stage_model
        self.conditioner = cond_stage_model

    def get_learned_conditioning(self, texts: Any) -> Any:
        if self.kind != "sdxl":
            return self.cond_stage_model(texts)
        from modules import sd_models_xl

        return sd_models_xl.get_learned_conditioning(self, texts)


def built(kind: str, setup: dict[str, Any]) -> Model:
    from modules import sd_hijack, sd_models, shared

    tensors = load_file(setup["checkpoint"])
    model = Model(kind, {"sd15": sd1, "sd2": sd2, "sdxl": sdxl}[kind](setup, tensors))
    sd_models.model_data.sd_model = model
    sd_models.model_data.was_loaded_at_least_once = True
    assert shared.sd_model is model
    database = sd_hijack.model_hijack.embedding_db
    database.clear_embedding_dirs()
    database.add_embedding_dir(setup["embeddings"])
    database.load_textual_inversion_embeddings(force_reload=True)
    return model


def parts(model: Model, case: dict[str, Any], steps: int) -> list[tuple[list[Any], float]]:
    """The schedules of a prompt as the webui's processing gets them, with AND's weights."""
    from modules import prompt_parser
    from modules.processing_scripts.comments import strip_comments

    text = strip_comments(case["prompt"])
    texts = prompt_parser.SdConditioning([text], is_negative_prompt=case["negative"], width=64, height=64)
    if case["negative"]:
        return [(prompt_parser.get_learned_conditioning(model, texts, steps)[0], 1.0)]
    made = prompt_parser.get_multicond_learned_conditioning(model, texts, steps)
    return [(part.schedules, part.weight) for part in made.batch[0]]


def tensors_of(cond: Any, widths: int) -> dict[str, torch.Tensor]:
    if not isinstance(cond, dict):
        return {"context": cond[None]}
    return {"context": cond["crossattn"][None], "pooled": cond["vector"][None][:, :widths]}


def evaluations(model: Model, batch: dict[str, Any], steps: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What the denoiser makes of a batch at some evaluations: rows, weights, and the two ways of padding."""
    from modules import prompt_parser
    from modules.sd_samplers_cfg_denoiser import CFGDenoiser

    model.cond_stage_model_empty_prompt = model.cond_stage_model([""])
    denoiser = SimpleNamespace()
    texts = prompt_parser.SdConditioning(batch["prompts"])
    positive = prompt_parser.get_multicond_learned_conditioning(model, texts, steps)
    negatives = prompt_parser.SdConditioning([batch["negative"]] * len(texts), is_negative_prompt=True)
    negative = prompt_parser.get_learned_conditioning(model, negatives, steps)
    found, notes = {}, {}
    for call in batch["calls"]:
        pairs, rows = prompt_parser.reconstruct_multicond_batch(positive, call)
        against = prompt_parser.reconstruct_cond_batch(negative, call)
        padded = {"none": (rows, against), "empty": CFGDenoiser.pad_cond_uncond(denoiser, rows, against)}
        padded["last"] = CFGDenoiser.pad_cond_uncond_v0(denoiser, rows, against)
        for name, (cond, uncond) in padded.items():
            found |= {f"batch/{call}/{name}/positive": cond, f"batch/{call}/{name}/negative": uncond[:1]}
        notes[f"batch/{call}"] = pairs
    return found, notes


def main() -> None:
    asked = request()
    start(asked["host"], asked["data"])
    from modules.shared import opts

    found: dict[str, torch.Tensor] = {}
    notes: dict[str, Any] = {}
    for kind, setup in asked["kinds"].items():
        model = built(kind, setup)
        for name, case in setup["cases"].items():
            opts.data["CLIP_stop_at_last_layers"] = case["clip_skip"]
            opts.data["emphasis"] = {"no norm": "No norm"}.get(case["emphasis"], case["emphasis"].title())
            for i, (schedules, weight) in enumerate(parts(model, case, asked["steps"])):
                for j, entry in enumerate(schedules):
                    for what, tensor in tensors_of(entry.cond, setup["encoders"][-1]["hidden_size"]).items():
                        key = f"{kind}/{name}/{i}/{j}/{what}"
                        found[key] = tensor.detach().float().clone().contiguous()
                        notes[key] = {"end": entry.end_at_step, "weight": weight}
        if kind == "sd15":
            opts.data["CLIP_stop_at_last_layers"], opts.data["emphasis"] = 1, "Original"
            tensors, weights = evaluations(model, asked["batch"], asked["steps"])
            found |= {key: tensor.detach().float().clone().contiguous() for key, tensor in tensors.items()}
            notes |= weights
    save_file(found, asked["output"])
    report(notes)


with torch.no_grad():
    main()
