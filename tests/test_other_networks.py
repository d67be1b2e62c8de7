"""LoHa, LoKr, (IA)3, DoRA, full differences and norms applied while drawing: as when they are baked in."""

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_merge import finished, lora_file
from test_merge_checkpoint import FLAT, other_algorithms

from lora_core.engine.apply import Use, apply_loras
from lora_core.engine.models import load_models
from lora_core.engine.other_networks import OtherNetwork, read_any
from lora_core.errors import KeyMismatch
from lora_core.jobs import LoraUse
from lora_core.jobs.tools import MergeIntoCheckpointJob
from lora_core.lora import Lora

BIAS = "lora_unet_down_blocks_0_resnets_0_conv1.diff_b"
CASES = [*other_algorithms(), ("bias", {BIAS: torch.ones(32)}, None)]


def weights(path):
    models = load_models(path, torch.float32, "cpu")
    return {f"{name}.{key}": t for name in ("unet",) for key, t in models.component(name).state_dict().items()}, models


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_applied_is_baked_in_and_comes_out_again(tmp_path, case):
    base, file, baked = tiny.checkpoint("sd15"), tmp_path / "x.safetensors", tmp_path / "m.safetensors"
    before, models = weights(base)
    tensors = {key: t.contiguous() for key, t in case[1].items()}
    if case[0] == "bias":
        tensors = {BIAS: torch.ones(before["unet.down_blocks.0.resnets.0.conv1.bias"].shape)}
    save_file(tensors, file)
    finished(MergeIntoCheckpointJob(str(base), (LoraUse(str(file), 0.5),), str(baked)))
    wanted, _ = weights(baked)
    before = {key: t.clone() for key, t in before.items()}
    network = read_any(file, tiny.architecture("sd15"))
    assert isinstance(network, OtherNetwork)
    with apply_loras(models, [Use(network, 0.5)]):
        found = {f"unet.{key}": t for key, t in models.unet.state_dict().items()}
        changed = [key for key in before if not torch.equal(found[key], before[key])]
        assert changed and changed == [key for key in before if not torch.equal(wanted[key], before[key])]
        for key in changed:
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-5, atol=1e-6)
    after = {f"unet.{key}": t for key, t in models.unet.state_dict().items()}
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_plain_lora_stays_one_and_faults_keep_their_sentence(tmp_path):
    arch = tiny.architecture("sd15")
    plain = lora_file(tmp_path / "a.safetensors", every=50)
    assert isinstance(read_any(plain, arch), Lora)
    tensors = load_file(plain) | {"lora_unet_no_such_block.hada_w1_a": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(KeyMismatch, match=r"no_such_block|LoHa"):
        read_any(tmp_path / "b.safetensors", arch)
    with pytest.raises(KeyMismatch):
        read_any(lora_file(tmp_path / "xl.safetensors", "sdxl", every=50), arch)


def test_a_change_that_does_not_fit_is_refused_and_nothing_changes(tmp_path):
    save_file({f"{FLAT}.diff": torch.ones(7, 7)}, tmp_path / "x.safetensors")
    before, models = weights(tiny.checkpoint("sd15"))
    before = {key: t.clone() for key, t in before.items()}
    with pytest.raises(KeyMismatch):
        apply_loras(models, [Use(read_any(tmp_path / "x.safetensors", tiny.architecture("sd15")))])
    assert all(torch.equal(t, before[f"unet.{key}"]) for key, t in models.unet.state_dict().items())
