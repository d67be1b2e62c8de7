"""Textual inversions of every usual kind, and files that are none."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_core.embeddings import EmbeddingFolders, bare_name, bundled_embeddings, read_embedding
from lora_core.errors import FileError, NotFinite

ROWS = torch.arange(12, dtype=torch.float32).reshape(3, 4)
WIDE = torch.ones(3, 6)


def torch_file(data: object, zipped: bool = True):
    return lambda path: torch.save(data, path, _use_new_zipfile_serialization=zipped)


A1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS}, "name": "x", "step": 500, "sd_checkpoint": None}
KINDS = {
    "A1111.pt": torch_file(A1111),
    "A1111 before 1.6.pt": torch_file(A1111, zipped=False),
    "half.pt": torch_file({"string_to_param": {"*": ROWS.half()}}),
    "parameter.pt": torch_file({"string_to_param": {"*": torch.nn.Parameter(ROWS)}}),
    "ordered.pt": torch_file({"string_to_param": OrderedDict({"*": ROWS})}),
    "diffusers.bin": torch_file({"<cat>": ROWS}),
    "list.bin": torch_file([{"<cat>": ROWS[:1]}, {"<cat>": ROWS[1:]}]),
    "plain.safetensors": lambda path: save_file({"emb_params": ROWS}, path),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name: str, tmp_path: Path) -> None:
    KINDS[name](tmp_path / name)
    embedding = read_embedding(tmp_path / name)
    assert embedding.name == Path(name).stem
    rows = embedding.rows([4])
    assert rows is not None
    assert torch.equal(rows[0], ROWS)
    assert embedding.rows([6]) is None
    assert embedding.rows([4, 6]) is None


@pytest.mark.parametrize("inside", ["_parameters", "attributes"])
def test_a_parameter_dict_as_old_trainers_saved_it(inside: str, tmp_path: Path) -> None:
    rows = OrderedDict({"*": torch.nn.Parameter(ROWS)})
    state = {"_parameters": rows, "training": True} if inside == "_parameters" else {"_keys": {"*": None}, **rows}

    class Old(torch.nn.ParameterDict):
        def __reduce__(self):
            return (torch.nn.ParameterDict, (), state)

    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": Old()}, tmp_path / "old.pt")
    found = read_embedding(tmp_path / "old.pt").rows([4])
    assert found is not None
    assert torch.equal(found[0], ROWS)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_sdxl(suffix: str, tmp_path: Path) -> None:
    data = {"clip_g": WIDE, "clip_l": ROWS}
    torch.save(data, tmp_path / "a.pt")
    save_file(data, tmp_path / "a.safetensors")
    rows = read_embedding(tmp_path / f"a{suffix}").rows([4, 6])
    assert rows is not None
    assert torch.equal(rows[0], ROWS) and torch.equal(rows[1], WIDE)


def test_bundled_in_a_lora(tmp_path: Path) -> None:
    tensors = {
        "bundle_emb.one.string_to_param.*": ROWS,
        "bundle_emb.two.clip_l": ROWS + 1,
        "bundle_emb.two.clip_g": WIDE,
    }
    save_file({**tensors, "lora_unet_x.alpha": torch.tensor(1.0)}, tmp_path / "lora.safetensors")
    found = bundled_embeddings(tmp_path / "lora.safetensors")
    assert set(found) == {"one", "two"}
    assert found["one"].rows([4]) is not None
    assert found["two"].rows([4, 6]) is not None


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"string_to_param": {"*": Evil()}}, tmp_path / "evil.pt")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "text.pt").write_text("no")
    torch.save({"step": 3}, tmp_path / "empty.pt")
    torch.save({"emb": torch.full((1, 4), torch.nan)}, tmp_path / "nan.pt")
    for name, error in {
        "evil.pt": FileError,
        "plain.bin": FileError,
        "text.pt": FileError,
        "empty.pt": FileError,
        "nan.pt": NotFinite,
        "missing.pt": FileError,
        "picture.png": FileError,
    }.items():
        with pytest.raises(error, match=name):
            read_embedding(tmp_path / name)
    assert "run" not in capsys.readouterr().out


def test_folders_read_what_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    save_file({"emb_params": ROWS}, tmp_path / "sub" / "a.safetensors")
    (tmp_path / "broken.pt").write_text("no")
    further = {
        "a": read_embedding(tmp_path / "sub" / "a.safetensors"),
        "b": read_embedding(tmp_path / "sub" / "a.safetensors"),
    }
    folders = EmbeddingFolders([tmp_path], further)
    assert sorted(folders) == ["a", "b", "broken"]
    assert folders["a"].rows([4]) is not None
    digest = hashlib.sha256((tmp_path / "sub" / "a.safetensors").read_bytes()).hexdigest()
    assert folders.used_hashes([4]) == {"a": digest}
    assert folders.used_hashes([6]) == {}
    with pytest.raises(FileError):
        folders["broken"]


@pytest.mark.parametrize("written", ["a", "a.pt", "sub/a.safetensors", "sub\\a", "sub/a.bin"])
def test_names_as_comfyui_writes_them(written: str) -> None:
    assert bare_name(written) == "a"
    assert bare_name("bad.hands-5") == "bad.hands-5"
