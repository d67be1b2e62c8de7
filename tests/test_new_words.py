"""The trigger as new tokens: what is trained, and the files that carry it."""

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_train import job_for, losses, pictures  # noqa: F401

from lora_core.architecture import architecture_of
from lora_core.commands import Commands
from lora_core.embeddings import bundled_embeddings, read_embedding
from lora_core.engine import models
from lora_core.engine.conditioning import TextRules, live_encoder
from lora_core.engine.network import Network
from lora_core.engine.new_words import reading_words, spelled, with_words
from lora_core.engine.tokens import FIRST_NEW, token_ids
from lora_core.events import Loss, Preview, Saved
from lora_core.jobs import TrainJob
from lora_core.lora_file import read_lora
from lora_core.run import run
from lora_core.settings import replace_by_name
from lora_core.tensors import data_hash

WORD = {"token_vectors": 2, "trigger": "zwei", "token_start": "a man", "token_lr": 0.01}


def test_whole_words_alone_become_new_ids():
    text = spelled("a Zwei, zweifel and zwei_2", "zwei", 2)
    plain = token_ids("a"), token_ids(", zweifel and zwei_2")
    assert token_ids(text) == [*plain[0], FIRST_NEW, FIRST_NEW + 1, *plain[1]]
    assert spelled("a zwei", "zwei", 0) == "a zwei"
    for named in ("a embedding:zwei, b", "a embedding:zwei.safetensors, b", "a EMBEDDING:Zwei, b"):
        assert spelled(named, "zwei", 2) == spelled("a zwei, b", "zwei", 2)
    assert spelled("embedding:other zwei.png", "zwei", 1) == f"embedding:other {spelled('zwei', 'zwei', 1)}.png"


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_new_tokens_are_read_as_rows_added_to_the_vocabulary(kind):
    path = tiny.checkpoint(kind)
    arch = architecture_of(path)
    job = replace_by_name(TrainJob(base=str(path)), WORD)
    rules = TextRules(arch, 1, 75)
    ours, theirs = (models.load_text_encoders(path, torch.float32) for _ in range(2))
    names = ("text_encoder", "text_encoder_2")
    before = live_encoder(ours, rules)(["red a man sits"])
    net = with_words(Network({}), dict(zip(names, ours)), job)
    encode = reading_words(live_encoder(ours, rules), job)
    assert torch.allclose(encode(["red zwei sits"]).context, before.context, atol=1e-6)
    draw = torch.Generator().manual_seed(1)
    for branch, encoder in zip(net.branches.values(), theirs):
        branch.trained()["vectors"].data += 0.1 * torch.randn(2, branch.start.shape[1], generator=draw)
        held = encoder.text_model.embeddings.token_embedding
        both = torch.cat([held.weight, branch.trained()["vectors"].detach()])
        encoder.text_model.embeddings.token_embedding = torch.nn.Embedding.from_pretrained(both)
    expected = live_encoder(theirs, rules)([spelled("red zwei sits", "zwei", 2)])
    found = encode(["red zwei sits"])
    assert torch.allclose(found.context, expected.context, atol=1e-6)
    assert found.pooled is None or torch.allclose(found.pooled, expected.pooled, atol=1e-6)
    assert not torch.allclose(found.context, before.context, atol=1e-3)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_vectors_are_in_the_lora_and_in_a_file_of_their_own(tmp_path, pictures, kind):  # noqa: F811
    job = job_for(tmp_path, pictures, kind, train_text_encoder=False, steps=2, **WORD)
    saved = [e for e in run(job) if isinstance(e, Saved)]
    file = saved[-1].path
    bundle, alone = bundled_embeddings(file)["zwei"], read_embedding(tmp_path / "embeddings" / "zwei.safetensors")
    widths = {"sd15": ("string_to_param.*",), "sdxl": ("clip_l", "clip_g")}[kind]
    assert {f"bundle_emb.zwei.{name}" for name in widths} <= load_file(file).keys()
    assert {"sd15": {"emb_params"}, "sdxl": {"clip_l", "clip_g"}}[kind] == alone.vectors.keys()
    for a, b in zip(sorted(bundle.vectors.values(), key=len), sorted(alone.vectors.values(), key=len)):
        assert a.shape == b.shape and a.shape[0] == 2
    assert all(torch.allclose(bundle.vectors[k.replace("emb_params", "*")], v) for k, v in alone.vectors.items())
    arch = architecture_of(job.base)
    ids = token_ids("a man")
    encoders = models.load_text_encoders(job.base, torch.float32)
    starts = [e.text_model.embeddings.token_embedding.weight[ids] for e in encoders]
    rows = alone.rows([start.shape[1] for start in starts])
    assert rows is not None and all(1e-4 < (r - s).abs().max() < 0.1 for r, s in zip(rows, starts))
    assert len(read_lora(file, arch).modules) in (192, 722)


def test_textual_inversion_alone_learns_saves_and_resumes_bit_for_bit(tmp_path, pictures):  # noqa: F811
    values = {"train_unet": False, "train_text_encoder": False, "steps": 4, "preview_prompts": ("a zwei",)} | WORD
    whole = list(run(job_for(tmp_path / "whole", pictures, **values)))
    job, parts = job_for(tmp_path / "parts", pictures, preview_every_steps=2, preview_steps=1, **values), []
    for end in (2, 4):
        commands = Commands()
        for event in run(job, commands):
            parts.append(event)
            commands.stop = commands.stop or (isinstance(event, Loss) and event.step == end < 4)
    assert losses(parts) == losses(whole) and any(isinstance(e, Preview) for e in parts)
    assert data_hash(parts[-1].outputs[0]) == data_hash(whole[-1].outputs[0])
    assert Path(whole[-1].outputs[0]) == tmp_path / "whole" / "embeddings" / "zwei.safetensors"
    assert [e.kind for e in whole if isinstance(e, Saved)] == ["embedding"]
    assert not list((tmp_path / "whole").glob("*.safetensors"))


def test_a_trigger_that_is_no_word_is_refused(tmp_path, pictures):  # noqa: F811
    for trigger in ("", "two words", "a.b"):
        found = job_for(tmp_path, pictures, token_vectors=1, trigger=trigger).problems()
        assert any("has to be one word" in line for line in found)
