"""Hypernetworks and embeddings are named as what they are."""

import pytest
import torch
from safetensors.torch import save_file

from lora_core import cli_inspect
from lora_core.errors import FileError, KeyMismatch
from lora_core.inspect_file import inspect_network
from lora_core.networks import NetworkFile
from lora_core.old_networks import no_lora


def hypernetwork() -> dict:
    def layers(width: int) -> dict:
        return {"linear.0.weight": torch.zeros(2 * width, width), "linear.1.weight": torch.zeros(width, 2 * width)}

    facts = {"step": 1200, "name": "old", "layer_structure": [1, 2, 1], "sd_checkpoint_name": "v1-5"}
    return {width: (layers(width), layers(width)) for width in (320, 768)} | facts


def test_a_hypernetwork_is_named_with_what_it_was_made_for(tmp_path):
    torch.save(hypernetwork(), tmp_path / "old.pt")
    with pytest.raises(KeyMismatch, match=r"old.pt is a hypernetwork of A1111 \(for SD 1.x; widths 320, 768; 1200 st"):
        inspect_network(tmp_path / "old.pt")


def test_embeddings_of_both_kinds_are_named(tmp_path):
    torch.save({"string_to_param": {"*": torch.ones(3, 768)}, "name": "x"}, tmp_path / "ti.pt")
    save_file({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, tmp_path / "xl.safetensors")
    for name, words in (("ti.pt", "3 x 768"), ("xl.safetensors", "2 x 1280, 2 x 768")):
        with pytest.raises(KeyMismatch, match=f"textual inversion .{words}"):
            inspect_network(tmp_path / name)


def test_other_files_keep_their_own_errors(tmp_path):
    torch.save({"a": 1}, tmp_path / "other.pt")
    save_file({"x.weight": torch.ones(2, 2), "y.weight": torch.ones(3)}, tmp_path / "some.safetensors")
    assert no_lora(tmp_path / "other.pt") == no_lora(tmp_path / "some.safetensors") == ""
    with pytest.raises(FileError):
        inspect_network(tmp_path / "other.pt")
    with pytest.raises(KeyMismatch, match="names no layer"):
        inspect_network(tmp_path / "some.safetensors")


def test_every_tool_and_the_command_line_name_a_hypernetwork(tmp_path, capsys):
    torch.save(hypernetwork(), tmp_path / "old.pt")
    with pytest.raises(KeyMismatch, match=r"old.pt is a hypernetwork of A1111"):
        NetworkFile(tmp_path / "old.pt")
    save_file({"emb_params": torch.ones(3, 768)}, tmp_path / "word.safetensors")
    assert cli_inspect.main([str(tmp_path / "old.pt"), str(tmp_path / "word.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "old.pt is a hypernetwork of A1111 (for SD 1.x" in told and "word.safetensors is a textual inversion" in told
