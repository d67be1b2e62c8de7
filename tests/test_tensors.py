"""Reading and writing against the safetensors library, files that lie, and writers that die."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lora_core.errors import DiskFull, FileError, KeyMismatch
from lora_core.keys import TensorKey
from lora_core.tensors import (
    TensorFile,
    TensorWriter,
    data_hash,
    file_hashes,
    legacy_hash,
    open_tensors,
    read_header,
    read_key,
    write_tensors,
)

ROOT = Path(__file__).resolve().parent.parent
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64)


def sample() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = {f"t{i}": (torch.randn(3, i + 1, generator=generator) * 9).to(d) for i, d in enumerate(DTYPES)}
    return tensors | {"scalar": torch.tensor(2.5), "empty": torch.ones(0, 4), "ünï.weight": torch.ones(2, 1, 1)}


def test_what_safetensors_wrote_is_read(tmp_path):
    tensors = sample()
    save_file(tensors, tmp_path / "a.safetensors", metadata={"k": "v ü"})
    with TensorFile(tmp_path / "a.safetensors") as file:
        assert file.metadata == {"k": "v ü"}
        assert file.shapes.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(file.read(name), tensor) and file.dtype(name) == tensor.dtype
        assert torch.equal(file.read("t1", torch.float64), tensors["t1"].double())
        assert torch.equal(file.read("t4", rows=(1, 3)), tensors["t4"][1:3])


def test_what_we_write_safetensors_reads_and_lays_out_alike(tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_tensors(ours, sample(), {"a": "b", "ü": '"\n\\'})
    save_file(sample(), theirs, metadata={"a": "b", "ü": '"\n\\'})
    loaded = load_file(ours)
    assert loaded.keys() == sample().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in sample().items())
    assert read_header(ours) == read_header(theirs)
    assert ours.read_bytes()[read_header(ours).data_start :] == theirs.read_bytes()[read_header(theirs).data_start :]
    assert read_header(ours).data_start % 8 == 0


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.lists(st.integers(0, 3), max_size=3), max_size=6))
def test_any_names_and_shapes_survive(tmp_path_factory, shapes):
    tensors = {name: torch.rand(*shape) if shape else torch.tensor(1.0) for name, shape in shapes.items()}
    tensors.pop("__metadata__", None)
    tensors = {n.encode("utf-8", "replace").decode(): t for n, t in tensors.items()}
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    write_tensors(path, tensors)
    with open_tensors(path) as file:
        assert file.shapes.keys() == tensors.keys()
        assert all(torch.equal(file.read(name), tensor) for name, tensor in tensors.items())


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    write_tensors(tmp_path / "a", sample(), {"x": "1", "y": "2"})
    write_tensors(tmp_path / "b", dict(reversed(sample().items())), {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_keys_are_sliced_transposed_and_squeezed(tmp_path):
    fused = torch.arange(24.0).reshape(6, 4)
    save_file({"in_proj": fused, "conv": fused[:, :, None, None].clone()}, tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors") as file:
        assert torch.equal(read_key(file, TensorKey("q", "in_proj", (2, 4), (2, 4))), fused[2:4])
        turned = read_key(file, TensorKey("p", "in_proj", (4, 6), None, "transpose"))
        assert torch.equal(turned, fused.t()) and turned.is_contiguous()
        assert torch.equal(read_key(file, TensorKey("l", "conv", (6, 4), None, "squeeze")), fused)
        with pytest.raises(KeyMismatch, match="expected"):
            read_key(file, TensorKey("q", "in_proj", (2, 5), (2, 4)))
        with pytest.raises(KeyMismatch, match="no tensor gone"):
            file.read("gone")


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = entry(0, 8, [2])
LIES = {
    "empty file": (b"", "empty"),
    "text": (b"these are only words, and quite a lot of them " * 4, "a text"),
    "web page": (b"<!DOCTYPE html><html>Not found, please log in</html> " * 4, "web page"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0000000000000000\nsize 1\n", "LFS"),
    "pickle": (b"PK\x03\x04" + bytes(100), "pickled"),
    "noise": (bytes(range(200, 256)) * 3, "no safetensors"),
    "cut off in the header": (raw({"a": GOOD})[:40], "cut off"),
    "cut off in the data": (raw({"a": GOOD}, bytes(5)), "3 bytes of weights are missing"),
    "header bomb": (raw(b"{}", length=1 << 60), "no safetensors"),
    "header larger than allowed": (raw(b" " * 64, length=100_000_001), "no safetensors"),
    "header longer than the file": (raw(b" " * 64, length=99_000_000), "cut off"),
    "no JSON": (raw(b"{not json at all}"), "damaged"),
    "a list": (raw([1, 2, 3, 4]), "damaged"),
    "nested too deep": (raw(b"[" * 200_000), "damaged"),
    "offsets beyond the end": (raw({"a": entry(10**15, 10**15 + 8, [2])}, bytes(8)), "overlap others or leave a gap"),
    "negative offsets": (raw({"a": entry(-8, 0, [2])}, bytes(8)), "damaged"),
    "fractional offsets": (raw({"a": {**GOOD, "data_offsets": [0, 8.0]}}, bytes(8)), "damaged"),
    "end before begin": (raw({"a": entry(8, 0, [2])}, bytes(8)), "damaged"),
    "overlap": (raw({"a": GOOD, "b": entry(4, 12, [2])}, bytes(12)), "overlap"),
    "gap": (raw({"a": GOOD, "b": entry(12, 20, [2])}, bytes(20)), "gap"),
    "bytes not named": (raw({"a": GOOD}, bytes(20)), "12 bytes after"),
    "size does not fit the shape": (raw({"a": entry(0, 8, [3])}, bytes(8)), "does not take 8 bytes"),
    "absurd shape": (raw({"a": entry(0, 8, [2**40, 2**40])}, bytes(8)), "does not take"),
    "unknown dtype": (raw({"a": entry(0, 8, [2], "F7")}, bytes(8)), "F7"),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}, "a": GOOD}, bytes(8)), "metadata"),
    "the same key twice": (raw(b'{"a": %b, "a": %b}' % ((json.dumps(GOOD).encode(),) * 2), bytes(8)), "twice"),
    "not UTF-8": (raw(b'{"\xff\xfe": 1}'), "damaged"),
}


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie_are_refused_in_a_sentence(tmp_path, lie):
    content, words = LIES[lie]
    path = tmp_path / "liar.safetensors"
    path.write_bytes(content)
    for read in (read_header, open_tensors):
        with pytest.raises(FileError, match=r"liar\.safetensors") as caught:
            read(path)
        assert words in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        read_header(tmp_path)


def test_pickles_hold_only_weights(tmp_path):
    tensors = {"a": torch.randn(4, 3), "b": torch.ones(2, dtype=torch.float16)}
    for name, data in (("x.pt", tensors), ("x.ckpt", {"state_dict": tensors, "epoch": 3})):
        torch.save(data, tmp_path / name)
        with open_tensors(tmp_path / name) as source:
            assert source.shapes == {"a": (4, 3), "b": (2,)}
            assert torch.equal(source.read("a", rows=(1, 2)), tensors["a"][1:2])
            assert source.read("b", torch.float32).dtype == torch.float32
    for name, content in (("empty.ckpt", b""), ("text.ckpt", b"hello"), ("cut.ckpt", b"PK\x03\x04broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=name.replace(".", r"\.")):
            open_tensors(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(FileError, match="no named tensors"):
        open_tensors(tmp_path / "list.pt")


def test_folder_in_shards_pickles_and_old_names(tmp_path):
    for name in ("unet", "vae", "text_encoder"):
        (tmp_path / name).mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors")
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    index["weight_map"]["b"] = "diffusion_pytorch_model-00002-of-00002.safetensors"
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    torch.save({"c": torch.ones(3)}, tmp_path / "text_encoder" / "pytorch_model.bin")
    old = {f"encoder.mid_block.attentions.0.{n}.weight": torch.ones(1) for n in ("query", "key", "value", "proj_attn")}
    save_file(old, tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    with open_tensors(tmp_path) as source:
        new = {f"vae.encoder.mid_block.attentions.0.{n}.weight" for n in ("to_q", "to_k", "to_v", "to_out.0")}
        assert source.shapes.keys() == {"unet.a", "unet.b", "text_encoder.c"} | new
        assert torch.equal(source.read("unet.b"), torch.ones(2))


def test_streaming_in_any_order(tmp_path):
    tensors = sample()
    infos = {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    with TensorWriter(tmp_path / "s.safetensors", infos, {"m": "1"}) as writer:
        for name in sorted(tensors, reverse=True):
            writer.put(name, tensors[name])
            assert not (tmp_path / "s.safetensors").exists()
    write_tensors(tmp_path / "w.safetensors", tensors, {"m": "1"})
    assert (tmp_path / "s.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()


def test_the_writer_wants_what_was_planned(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    infos = {"a": (torch.float16, (2,)), "b": (torch.float32, (1,))}
    for name, tensor in (("c", torch.ones(2)), ("a", torch.ones(3))):
        with pytest.raises(KeyMismatch, match=name), TensorWriter(path, infos) as writer:
            writer.put(name, tensor)
    with pytest.raises(KeyMismatch, match="lacks 1 planned tensors"), TensorWriter(path, infos) as writer:
        writer.put("a", torch.ones(2))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.safetensors"]


def test_an_exception_leaves_nothing_behind(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ZeroDivisionError), TensorWriter(path, {"a": (torch.float32, (2,))}) as writer:
        writer.put("a", torch.ones(2))
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


KILLED = """
import os, signal, sys, torch
from lora_core.tensors import TensorWriter
with TensorWriter(sys.argv[1], {str(i): (torch.float32, (1000,)) for i in range(10)}) as writer:
    for i in range(10):
        if i == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        writer.put(str(i), torch.ones(1000))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_writing_the_old_file_stays(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, sample())
    before = path.read_bytes()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_full_disk_is_said_and_nothing_stays(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1)})
    before = path.read_bytes()
    write = TensorWriter._write

    def fill_up(self, data, place):
        if place > 4000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data, place)

    monkeypatch.setattr(TensorWriter, "_write", fill_up)
    with pytest.raises(DiskFull, match=r"No room left in .* for x\.safetensors"):
        write_tensors(path, {str(i): torch.ones(1000) for i in range(3)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or not hasattr(os, "mkfifo"), reason="needs Linux")
def test_the_size_limit_of_the_process_is_said(tmp_path):
    script = (
        "import resource, sys, torch\n"
        "from lora_core.errors import FileError\n"
        "from lora_core.tensors import write_tensors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n    write_tensors(sys.argv[1], {'a': torch.ones(9000)})\n"
        "except FileError as error:\n    sys.stdout.write(str(error))\n"
    )
    target = str(tmp_path / "big.safetensors")
    ended = subprocess.run([sys.executable, "-c", script, target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "big.safetensors cannot be written" in ended.stdout and os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cases = {
        tmp_path / "none" / "x.safetensors": "does not exist",
        tmp_path / "file" / "x.safetensors": "is not a folder",
        tmp_path / ("n" * 300): "too long",
    }
    for path, words in cases.items():
        with pytest.raises(FileError, match=words):
            write_tensors(path, {"a": torch.ones(1)})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="no permission"):
        write_tensors(tmp_path / "x", {"a": torch.ones(1)})
    tmp_path.chmod(0o700)


def test_permission_denied_is_said(tmp_path, monkeypatch):
    def deny(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(FileError, match=r"x\.safetensors cannot be written in .*no permission"):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)})


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_the_file_has_the_modes_that_the_umask_gives(tmp_path):
    write_tensors(tmp_path / "x", {"a": torch.ones(1)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_hashes_in_plain_python(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {"ss_a": "1", "ss_ü": "ü", "modelspec.title": "t" * 100, "sshs_model_hash": "0" * 64}
    write_tensors(path, {"a": torch.randn(300_000), "b": torch.randn(7).half()}, metadata)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    assert data_hash(path) == hashlib.sha256(data).hexdigest()
    header["__metadata__"] = {"ss_a": "1", "ss_ü": "ü"}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    as_if = (len(text) + -len(text) % 8).to_bytes(8, "little") + text + b" " * (-len(text) % 8) + data
    assert legacy_hash(path) == hashlib.sha256(as_if[0x100000:0x110000]).hexdigest()[:8] != "e3b0c442"
    short = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    assert file_hashes(path) == (short, hashlib.sha256(content).hexdigest())
    write_tensors(path, {"a": torch.ones(5)}, {"ss_a": "1"})
    assert legacy_hash(path) == "e3b0c442"


MEMORY = """
import resource, sys, torch
from lora_core.tensors import open_tensors
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_tensors(sys.argv[1]) as file:
    file.read("0")
    before = peak()
    for name in file.shapes:
        file.read(name, torch.bfloat16)
    sys.stdout.write(str(peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_reading_takes_the_memory_of_one_tensor(tmp_path):
    write_tensors(tmp_path / "x", {str(i): torch.ones(4 << 20) for i in range(8)})
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "x")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 40 * 1024, "128 MiB in tensors of 16 MiB"
