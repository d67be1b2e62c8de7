"""Our forward of a LoRA layer against PEFT's own: values and gradients."""

import pytest
import torch
from peft.tuners.lora.layer import Conv2d, Linear
from torch import nn

from lora_core.engine.branch import ConvBranch, LinearBranch, Size, lora_layer
from lora_core.jobs.network import Network as Settings

BASES = {
    "linear": (lambda: nn.Linear(12, 20), (3, 7, 12)),
    "no bias": (lambda: nn.Linear(12, 20, bias=False), (5, 12)),
    "conv 1x1": (lambda: nn.Conv2d(8, 6, 1), (2, 8, 5, 5)),
    "conv 3x3, stride 2": (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1), (2, 8, 9, 7)),
}


def pair(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """Our layer, and the same one with PEFT's forward, in fp32 factors over a base of `dtype`; an input."""
    make, shape = BASES[name]
    torch.manual_seed(1)
    base = make().to(dtype).requires_grad_(False)
    ours = lora_layer(base, Size(4, 2.0), Settings())
    for factor in (ours.lora_A["default"], ours.lora_B["default"]):
        factor.weight = nn.Parameter(torch.randn(factor.weight.shape))
    theirs = (Linear if isinstance(ours, LinearBranch) else Conv2d)(base, "default", r=4, lora_alpha=2)
    theirs.lora_A["default"].weight = nn.Parameter(ours.lora_A["default"].weight.detach().clone())
    theirs.lora_B["default"].weight = nn.Parameter(ours.lora_B["default"].weight.detach().clone())
    return ours, theirs, torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_forward_and_gradients_equal_pefts(name, dtype, tolerance):
    ours, theirs, x = pair(name, dtype)
    results = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        y = layer(given)
        (y.float() ** 2).mean().backward()
        factors = [layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad]
        results.append([y.detach().float(), given.grad.float(), *factors])
    assert isinstance(ours, (LinearBranch, ConvBranch)) and results[0][0].dtype == torch.float32
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def test_building_a_layer_leaves_the_global_generator_alone():
    base = nn.Linear(4, 4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lora_layer(base, Size(2, 1.0), Settings())
    assert torch.equal(torch.rand(3), expected)
