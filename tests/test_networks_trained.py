"""Every kind of branch against a computation with the whole weight, and its file against the live network."""

import itertools

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from lora_core.architecture import architecture_of
from lora_core.engine import models, network
from lora_core.engine.branch import Size
from lora_core.engine.targets import module_sizes
from lora_core.errors import ConfigError
from lora_core.jobs import TrainJob
from lora_core.jobs.network import ALGORITHMS
from lora_core.jobs.network import Network as Settings
from lora_core.keys import lora_targets
from lora_core.lora_file import write_kohya_tensors
from lora_core.networks import NetworkFile
from lora_core.settings import replace_by_name

BASES = {
    "linear": (lambda: nn.Linear(12, 20), (3, 7, 12)),
    "no bias": (lambda: nn.Linear(12, 20, bias=False), (5, 12)),
    "conv 1x1": (lambda: nn.Conv2d(8, 6, 1), (2, 8, 5, 5)),
    "conv 3x3, stride 2": (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1), (2, 8, 9, 7)),
}


SIZE = Size(4, 3.0)


def layer_of(algorithm: str, base: nn.Module, path: str = "ff.net.2", size: Size = SIZE, **values):
    """A layer with random parts that change the weight by about a tenth."""
    settings = Settings(algorithm=algorithm, **values)
    layer = network.branch_layer(base, path, size, settings)
    draw = torch.Generator().manual_seed(5)
    if values.get("initialisation") == "pissa":
        layer.begin_pissa(draw)
    else:
        layer.begin(draw)
    for part, parameter in layer.trained().items():
        noise = torch.randn(parameter.shape, generator=draw)
        parameter.data += noise * (0.1 if part != "dora_scale" else 0.05)
    return layer


def whole_weight(layer, algorithm: str, weight: torch.Tensor) -> torch.Tensor:
    """The tuned weight from the parts, by the papers' formulas on whole matrices."""
    p, scale, shape = layer.trained(), layer.size.alpha / layer.size.rank, weight.shape
    if algorithm in ("lora", "dora"):
        tuned = weight + scale * (p["up"].flatten(1) @ p["down"].flatten(1)).reshape(shape)
        if algorithm == "lora":
            return tuned
        columns = tuned.detach().transpose(0, 1).flatten(1).norm(dim=1)
        ratio = p["dora_scale"] / columns
        return tuned * ratio.reshape(1, -1, *(1,) * (weight.dim() - 2))
    if algorithm == "loha":
        product = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
        return weight + scale * product.reshape(shape)
    if algorithm == "lokr":
        w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
        w2 = p["lokr_w2"].flatten(1) if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
        factored = "lokr_w1_a" in p or "lokr_w2_a" in p
        return weight + (scale if factored else 1.0) * torch.kron(w1, w2).reshape(shape)
    if algorithm == "ia3":
        return weight * (1 + p["weight"].reshape([-1 if i == layer.on_input else 1 for i in range(weight.dim())]))
    q = p["oft_blocks"] - p["oft_blocks"].transpose(1, 2)
    rotations = [(torch.eye(len(one)) + one) @ torch.inverse(torch.eye(len(one)) - one) for one in q]
    return (torch.block_diag(*rotations).T @ weight.flatten(1)).reshape(shape)


def plain_forward(base: nn.Module, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if isinstance(base, nn.Linear):
        return F.linear(x, weight, base.bias)
    return F.conv2d(x, weight, base.bias, base.stride, base.padding)


CASES = [(a, b, {}) for a, b in itertools.product(ALGORITHMS, BASES)] + [
    ("lokr", "linear", {"lokr_factor": 2, "lokr_both": True, "size": Size(1, 0.5)}),
    ("lokr", "conv 3x3, stride 2", {"lokr_factor": 2, "size": Size(1, 2.0)}),
    ("ia3", "linear", {"path": "attn2.to_k"}),
]


@pytest.mark.parametrize(("algorithm", "name", "values"), CASES)
def test_forward_and_gradients_are_those_of_the_tuned_weight(algorithm, name, values):
    make, shape = BASES[name]
    torch.manual_seed(1)
    base = make().requires_grad_(False)
    layer, x = layer_of(algorithm, base, **values), torch.randn(shape)
    results = []
    for forward in (layer, lambda given: plain_forward(base, whole_weight(layer, algorithm, base.weight), given)):
        given = x.clone().requires_grad_()
        y = forward(given)
        parts = list(layer.trained().values())
        results.append([y, *torch.autograd.grad((y**4).mean(), [given, *parts])])
    assert (results[0][0] - base(x)).norm() > 0.01 * base(x).norm()
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 2e-5 * b.norm()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", BASES)
def test_at_the_start_nothing_is_changed(algorithm, name):
    make, shape = BASES[name]
    base = make().requires_grad_(False)
    layer = network.branch_layer(base, "attn1.to_k", Size(4, 4.0), Settings(algorithm=algorithm))
    layer.begin(torch.Generator().manual_seed(1))
    x = torch.randn(shape)
    assert torch.allclose(layer(x), base(x), atol=1e-6) and not layer.changes()


@pytest.mark.parametrize("name", BASES)
def test_pissa_starts_at_the_largest_singular_directions_and_changes_nothing(name):
    make, shape = BASES[name]
    base, x = make().requires_grad_(False), torch.randn(shape)
    layer = network.branch_layer(base, "x", Size(3, 6.0), Settings(initialisation="pissa"))
    layer.begin_pissa(torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(base.weight.flatten(1), full_matrices=False)
    found = 2.0 * layer.up.flatten(1) @ layer.down.flatten(1)
    assert torch.allclose(found, (u[:, :3] * s[:3]) @ vh[:3], atol=1e-4)
    assert torch.allclose(layer(x), base(x), atol=1e-5) and not layer.changes()
    layer.up.data += 0.1
    parts = layer.saved()
    scale = float(parts["alpha"]) / parts["down"].shape[0]
    change = scale * (parts["up"].flatten(1) @ parts["down"].flatten(1)).reshape(base.weight.shape)
    assert parts["down"].shape[0] == 6 and layer.changes()
    assert torch.allclose(layer(x), plain_forward(base, base.weight + change, x), atol=1e-4)


def tiny_network(kind: str, algorithm: str, **values):
    """A tiny model with a network of random parts on its UNet, its targets and architecture."""
    path = tiny.checkpoint(kind)
    arch = architecture_of(path)
    small = {"algorithm": algorithm, "rank": 4, "alpha": 3.0, "conv_rank": 2, "conv_alpha": 1.0}
    job = replace_by_name(TrainJob(base=str(path)), small | values)
    unet = models.load_unet(path, torch.float32)
    net = network.attach({"unet": unet}, module_sizes(job, arch, ("unet",)), job.network, 3)
    draw = torch.Generator().manual_seed(5)
    for parameter in net.parameters().values():
        parameter.data += 0.03 * torch.randn(parameter.shape, generator=draw)
    return path, arch, unet, net


def predicted(unet, arch) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    x, text = (
        torch.randn(1, 4, 8, 8, generator=draw),
        torch.randn(1, 7, unet.config.cross_attention_dim, generator=draw),
    )
    with torch.no_grad():
        return unet(x, torch.tensor([300]), text, return_dict=False)[0]


@pytest.mark.parametrize(
    ("algorithm", "values"),
    [(a, {}) for a in ALGORITHMS]
    + [("lora", {"rs_lora": True}), ("lora", {"initialisation": "pissa"}), ("lokr", {"rank": 1, "lokr_factor": 4})],
)
def test_the_file_on_the_ordinary_base_is_the_live_network(tmp_path, algorithm, values):
    path, arch, unet, net = tiny_network("sd15", algorithm, **values)
    live, file = predicted(unet, arch), tmp_path / "net.safetensors"
    write_kohya_tensors(file, network.file_tensors(net, lora_targets(arch, conv=True)), torch.float32, {})
    fresh = models.load_unet(path, torch.float32)
    base = predicted(fresh, arch)
    with NetworkFile(file, arch) as opened, torch.no_grad():
        assert not opened.unmatched and opened.changes.keys() == net.branches.keys()
        for name in opened.changes:
            layer = fresh.get_submodule(name.split(".", 1)[1])
            layer.weight += opened.delta(name, layer.weight, tuple(layer.weight.shape))
    assert (live - base).norm() > 1e-3 * base.norm()
    assert (predicted(fresh, arch) - live).norm() <= 1e-4 * (live - base).norm()


def test_magnitudes_keep_their_bits_in_a_file_of_half_precision(tmp_path):
    _, arch, _, net = tiny_network("sd15", "dora")
    tensors = network.file_tensors(net, lora_targets(arch, conv=True))
    write_kohya_tensors(tmp_path / "d.safetensors", tensors, torch.float16, {})
    with NetworkFile(tmp_path / "d.safetensors", arch) as opened:
        name = next(iter(opened.changes))
        parts = opened.tensors(name)
        assert parts["down"].dtype == torch.float16 and parts["dora_scale"].dtype == torch.float32


def sizes_for(kind: str = "sd15", trained=("unet", "text_encoder"), **values) -> dict[str, Size]:
    path = tiny.checkpoint(kind)
    job = replace_by_name(TrainJob(base=str(path)), {"rank": 8, "alpha": 4.0} | values)
    return module_sizes(job, architecture_of(path), trained)


def test_blocks_have_their_own_ranks_and_alphas_and_rank_0_leaves_one_out():
    numbers = [8] * 25
    numbers[1], numbers[12], numbers[24] = 2, 0, 16
    sizes = sizes_for(block_rank=",".join(map(str, numbers)), block_alpha="OUT11=1, *attn2*=3")
    ranks = {name: size.rank for name, size in sizes.items()}
    assert {r for n, r in ranks.items() if ".down_blocks.0.attentions.0." in n} == {2}
    assert not [n for n in ranks if "mid_block" in n] and ranks["unet.up_blocks.3.attentions.2.proj_in"] == 16
    assert {r for n, r in ranks.items() if n.startswith("text_encoder")} == {8}
    assert sizes["unet.up_blocks.3.attentions.2.proj_in"].alpha == 1
    assert sizes["unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_q"].alpha == 3


def test_sdxls_23_ranks_are_those_of_sd_scripts():
    numbers = [1, *range(2, 11), 11, 11, 11, *range(12, 21), 30]
    sizes = sizes_for("sdxl", ("unet",), block_rank=",".join(map(str, numbers)))
    assert sizes["unet.down_blocks.1.attentions.0.proj_in"].rank == 6  # input_blocks.4
    assert sizes["unet.mid_block.attentions.0.proj_in"].rank == 11
    assert sizes["unet.up_blocks.0.attentions.0.proj_in"].rank == 12  # output_blocks.0


def test_modules_are_chosen_by_patterns_and_a_share_of_0_trains_none():
    names = sizes_for(include="*attn1*, M00", exclude="OUT*").keys()
    assert names and all("attn1" in n or "mid_block" in n for n in names)
    assert not [n for n in names if "up_blocks" in n or n.startswith("text")]
    assert all(".up_blocks." not in n for n in sizes_for(block_lr="OUT*=0", trained=("unet",)))
    with pytest.raises(ConfigError, match="No module is left"):
        sizes_for(include="nothing*")


def test_rank_stabilised_scale_is_in_the_alpha():
    assert sizes_for(rs_lora=True, rank=16, alpha=4.0)["unet.mid_block.attentions.0.proj_in"] == Size(16, 16.0)


def test_ia3_trains_keys_values_and_the_end_of_feed_forward_blocks_alone():
    names = sizes_for(algorithm="ia3").keys()
    assert {n.rsplit(".", 1)[-1] for n in names} == {"to_k", "to_v", "2", "k_proj", "v_proj", "fc2"}


@pytest.mark.parametrize("algorithm", ["lora", "dora", "loha", "lokr"])
@pytest.mark.parametrize("name", ["linear", "conv 3x3, stride 2"])
def test_the_largest_norm_is_kept_and_shorter_changes_stay_as_they_are(algorithm, name):
    base = BASES[name][0]().requires_grad_(False)

    def length(layer) -> float:
        if algorithm == "dora":  # the length is that of the low-rank part
            parts = layer.saved()
            return float((parts["up"].flatten(1) @ parts["down"].flatten(1)).norm()) * layer.size.scale
        return float((whole_weight(layer, algorithm, base.weight) - base.weight).detach().norm())

    layer = layer_of(algorithm, base)
    before = length(layer)
    layer.limit(before * 1.01)
    assert length(layer) == pytest.approx(before, rel=1e-6)
    layer.limit(before / 3)
    assert length(layer) == pytest.approx(before / 3, rel=1e-4)


def test_dropouts_drop_as_much_as_asked_and_nothing_in_use():
    base = nn.Linear(64, 32)
    nn.init.zeros_(base.weight), nn.init.zeros_(base.bias)
    x = torch.randn(400, 3, 64)
    kept = {}
    for kind in ("dropout", "rank_dropout", "module_dropout"):
        layer = network.branch_layer(base, "x", Size(16, 16.0), Settings(**{kind: 0.25}))
        layer.begin(torch.Generator().manual_seed(1))
        layer.up.data.copy_(torch.eye(32)[:, :16])
        torch.manual_seed(3)
        outputs = torch.stack([layer(x[i : i + 50]) for i in range(0, 400, 50) for _ in range(20)])[..., :16]
        kept[kind] = outputs != 0
        low = torch.stack([F.linear(x[i : i + 50], layer.down) for i in range(0, 400, 50) for _ in range(20)])
        if kind != "module_dropout":
            assert torch.allclose(outputs[kept[kind]], (low / 0.75)[kept[kind]], atol=1e-5)
        assert kept[kind].float().mean() == pytest.approx(0.75, abs=0.1 if kind == "module_dropout" else 0.02)
        with network.without_dropout([layer]):
            assert torch.allclose(layer(x)[..., :16], F.linear(x, layer.down), atol=1e-5)
    whole = kept["rank_dropout"].float().mean(2)  # over the three tokens of a picture
    assert bool(((whole == 0) | (whole == 1)).all())
    modules = kept["module_dropout"].float().mean((1, 2, 3))
    assert bool(((modules == 0) | (modules == 1)).all())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["linear", "conv 1x1", "conv 3x3, stride 2"])
def test_the_parts_are_what_lycoris_takes_them_for(algorithm, name):
    modules = pytest.importorskip("lycoris.modules", reason="lycoris-lora is not installed", exc_type=ImportError)
    extra = {"dora": {"weight_decompose": True, "wd_on_out": False}, "ia3": {"train_on_input": True}}
    kinds = {"lora": "LoConModule", "dora": "LoConModule", "loha": "LohaModule", "lokr": "LokrModule"}
    kind = getattr(modules, (kinds | {"oft": "DiagOFTModule", "ia3": "IA3Module"})[algorithm])
    base = BASES[name][0]().requires_grad_(False)
    layer = layer_of(algorithm, base, size=Size(4, 4.0))  # LyCORIS' own LoHa would scale twice
    theirs = kind("x", base, 1.0, 4, 0.0 if algorithm == "oft" else 4.0, **extra.get(algorithm, {}))
    for part, tensor in layer.saved().items():
        if part not in ("alpha", "on_input"):
            held = theirs.get_parameter(network.ENDINGS.get(part, part))
            held.data.copy_(tensor.reshape(held.shape))
    merged = theirs.get_merged_weight(1.0, base.weight.shape, torch.device("cpu"))[0]
    expected = whole_weight(layer, algorithm, base.weight)
    assert (expected - base.weight).norm() > 0.01 * base.weight.norm()
    assert (merged - expected).norm() <= 2e-5 * expected.norm()
