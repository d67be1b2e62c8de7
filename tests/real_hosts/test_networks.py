"""Files of every kind of network, on the real hosts: every key is matched, and each weight becomes what ours says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host_programs import Host, LoraFile

from lora_core.jobs.network import ALGORITHMS

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

VALUES: dict[str, dict[str, object]] = {
    **{name: {"algorithm": name, "conv_rank": 2} for name in ALGORITHMS},
    "lokr-factored": {"algorithm": "lokr", "rank": 2, "conv_rank": 2, "lokr_factor": 8, "lokr_both": True},
    "pissa": {"initialisation": "pissa"},
    "rs-lora": {"rs_lora": True},
}
NOT_IN_COMFYUI = {"ia3"}
SCALE = 0.02
LARGEST = 2_000_000


def base_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The numbers that stand for a layer's weight, in the probes too: a function of its kohya name."""
    seed = int.from_bytes(name.encode()[-8:], "little") % 2**31
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * SCALE


def write_network(folder: Path, family: str, name: str) -> LoraFile:
    """A file of one kind with random parts for a sample of modules, and beside it each weight's expected change."""
    from safetensors.torch import save_file

    from lora_core.engine.network import Network, branch_layer, file_tensors
    from lora_core.engine.targets import module_sizes
    from lora_core.families import reference
    from lora_core.jobs import TrainJob
    from lora_core.keys import lora_targets
    from lora_core.lora_file import write_kohya_tensors
    from lora_core.networks import NetworkFile
    from lora_core.settings import replace_by_name

    arch = reference(family)
    job = replace_by_name(TrainJob(), {"rank": 4, "alpha": 3.0} | VALUES[name])
    sizes = module_sizes(job, arch, ("unet", "text_encoder", "text_encoder_2"))
    keys = {key.canonical: key for key in lora_targets(arch, conv=True)}
    draw = torch.Generator().manual_seed(3)
    branches, weights = {}, {}
    for canonical in sampled(sizes, keys):
        key = keys[canonical]
        weights[canonical] = base_weight(key.kohya, key.shape)
        layer = sized(key.shape)
        layer.weight.data = weights[canonical]
        branch = branch_layer(layer, key.path, sizes[canonical], job.network)
        branch.begin_pissa(draw) if job.network.initialisation == "pissa" else branch.begin(draw)
        for part, parameter in branch.trained().items():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.data += 0.2 * noise * parameter.data if part == "dora_scale" else 0.06 * noise
        branches[canonical] = branch
    path = folder / f"{family}-{name}.safetensors"
    write_kohya_tensors(path, file_tensors(Network(branches), keys.values()), torch.float32, {})
    with NetworkFile(path, arch) as file:
        deltas = {keys[n].kohya: file.delta(n, weights[n], tuple(weights[n].shape)) for n in file.changes}
    save_file({n: d.contiguous() for n, d in deltas.items() if d is not None}, path.with_suffix(".expected"))
    return LoraFile(path, len(branches))


def sampled(sizes, keys) -> list[str]:
    """One module of every shape but the largest ones."""
    seen: dict[tuple, str] = {}
    for name in sizes:
        if keys[name].shape[0] * keys[name].shape[1] > LARGEST:
            continue
        seen.setdefault((name.split(".", 1)[0], keys[name].shape), name)
    return list(seen.values())


def sized(shape: tuple[int, ...]) -> torch.nn.Module:
    if len(shape) == 2:
        return torch.nn.Linear(shape[1], shape[0], bias=False)
    return torch.nn.Conv2d(shape[1], shape[0], shape[2:], padding=shape[2] // 2, bias=False)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("program", ["comfyui", "a1111"])
def test_every_key_is_matched_and_every_weight_is_ours(
    request: pytest.FixtureRequest, tmp_path: Path, program: str, family: str
) -> None:
    host: Host = request.getfixturevalue(f"{program}_networks")
    names = [name for name in VALUES if program == "a1111" or name not in NOT_IN_COMFYUI]
    files = {name: write_network(tmp_path, family, name) for name in names}
    answers = host.load(family, files)
    for name, answer in answers.items():
        assert answer["unmatched"] == [], name
        assert answer["log"] == [], name
        assert answer["modules"] == files[name].modules == answer["compared"], name
    assert {name: a["largest_error"] for name, a in answers.items() if a["largest_error"] >= 1e-5} == {}


@pytest.mark.parametrize(
    ("family", "widths"), [("sd1", {"emb_params": 768}), ("sdxl", {"clip_l": 768, "clip_g": 1280})]
)
def test_a1111_finds_the_trained_word_inside_the_lora(
    a1111_networks: Host, tmp_path: Path, family: str, widths: dict[str, int]
) -> None:
    from safetensors.torch import load_file, save_file

    file = write_network(tmp_path, family, "lora")
    rows = {name: torch.ones(3, width) for name, width in widths.items()}
    tensors = load_file(file.path) | {bundle_name("zwei", name): t for name, t in rows.items()}
    save_file(tensors, file.path)
    answer = a1111_networks.load(family, {"word": file})["word"]
    assert answer["words"] == {"zwei": [3, 768] if family == "sd1" else ["clip_g", "clip_l"]}
    assert answer["unmatched"] == [] and answer["largest_error"] < 1e-5


def bundle_name(word: str, part: str) -> str:
    return f"bundle_emb.{word}.{'string_to_param.*' if part == 'emb_params' else part}"
