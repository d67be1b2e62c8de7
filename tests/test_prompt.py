"""Prompt encoding against plain transformers calls on the same weights."""

from __future__ import annotations

import pytest
import tiny
import torch

from lora_core.engine.models import load_text_encoders
from lora_core.engine.prompt import encode_prompts, time_ids, tokenize
from lora_core.errors import KeyMismatch

TEXTS = ["a cat", "a long green dog, solo"]


def theirs(kind: str, name: str, pad: str, texts: list[str]):
    """Output of a module that lora_core had no part in making."""
    ids = tokenize(texts, pad=pad)[:, 0]
    with torch.no_grad():
        return tiny.modules(tiny.architecture(kind))[name](ids, output_hidden_states=True)


def ours(kind: str, texts: list[str], **options: int):
    encoders = load_text_encoders(tiny.checkpoint(kind), torch.float32)
    with torch.no_grad():
        return encode_prompts(encoders, tiny.architecture(kind), texts, **options)


@pytest.mark.parametrize(("kind", "pad"), [("sd15", "eos"), ("sd2", "zero")])
def test_last_layer_is_what_transformers_returns(kind: str, pad: str) -> None:
    text = ours(kind, TEXTS)
    assert torch.allclose(text.context, theirs(kind, "text_encoder", pad, TEXTS).last_hidden_state, atol=1e-5)
    assert text.pooled is None


def test_clip_skip_takes_an_earlier_layer_through_the_final_norm() -> None:
    module = tiny.modules(tiny.architecture("sd15"))["text_encoder"]
    hidden = theirs("sd15", "text_encoder", "eos", TEXTS).hidden_states
    wanted = torch.nn.functional.layer_norm(
        hidden[-2], (32,), module.text_model.final_layer_norm.weight, module.text_model.final_layer_norm.bias
    )
    got = ours("sd15", TEXTS, clip_skip=2).context
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(got, ours("sd15", TEXTS).context, atol=1e-2)


def test_clip_skip_beyond_the_layers_is_refused() -> None:
    with pytest.raises(KeyMismatch, match="13"):
        ours("sd15", TEXTS, clip_skip=13)


def test_sdxl_joins_penultimate_layers_without_norm() -> None:
    text = ours("sdxl", TEXTS)
    first = theirs("sdxl", "text_encoder", "eos", TEXTS)
    second = theirs("sdxl", "text_encoder_2", "zero", TEXTS)
    assert torch.allclose(text.context[:, :, :32], first.hidden_states[11], atol=1e-5)
    assert torch.allclose(text.context[:, :, 32:], second.hidden_states[-2], atol=1e-5)


def test_sdxl_pools_at_the_first_eos() -> None:
    module = tiny.modules(tiny.architecture("sdxl"))["text_encoder_2"]
    normed = theirs("sdxl", "text_encoder_2", "zero", TEXTS).last_hidden_state
    places = (tokenize(TEXTS, pad="zero")[:, 0] == 49407).int().argmax(1)
    wanted = normed[torch.arange(2), places] @ module.text_projection.weight.detach().T
    assert torch.allclose(ours("sdxl", TEXTS).pooled, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_chunks_are_encoded_apart_and_put_in_a_row(kind: str) -> None:
    long = ours(kind, ["cat " * 80, "dog"], max_tokens=150)
    head, tail = ours(kind, ["cat " * 75, "dog"]), ours(kind, ["cat " * 5, ""])
    assert long.context.shape[1] == 154
    assert torch.allclose(long.context[:, :77], head.context, atol=1e-5)
    assert torch.allclose(long.context[:, 77:], tail.context, atol=1e-5)
    if long.pooled is not None:
        assert torch.allclose(long.pooled, head.pooled, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_gradients_reach_the_encoders(kind: str) -> None:
    encoders = load_text_encoders(tiny.checkpoint(kind), torch.float32)
    weights = [e.text_model.encoder.layers[0].mlp.fc1.weight.requires_grad_(True) for e in encoders]
    encode_prompts(encoders, tiny.architecture(kind), TEXTS).context.square().mean().backward()
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in weights)


def test_time_ids_in_sdxl_order() -> None:
    assert time_ids(768, 512).tolist() == [768, 512, 0, 0, 768, 512]
    assert time_ids(768, 512, (3, 4), (64, 96)).tolist() == [768, 512, 3, 4, 64, 96]
