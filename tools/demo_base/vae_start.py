"""An analytic start for the demo base's VAE: every block an identity, so that training only has to polish.

The residual stream carries triples (s, -s, M) for four mixtures s of red, green and blue. The constants M keep a group
norm from erasing a picture's mean colour, and silu(s) - silu(-s) = s undoes the last activation exactly.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D

M = 4.0
SPREAD = (0.67 * 0.4 + 2 * M * M / 9) ** 0.5  # of a group of triples, for signals of mean square 0.4
TETRAHEDRON = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 2.0  # its transpose inverts it


def copies(n_out: int, n_in: int) -> torch.Tensor:
    """[n_out, n_in]: each channel is the mean of the input channels that carry the same signal."""
    same = torch.arange(n_out)[:, None] % 12 == torch.arange(n_in)[None] % 12
    return same / same.sum(1, keepdim=True)


def triples(signals: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [width, n] and bias [width] that write the four signals [4, n] as repeated (s, -s, M)."""
    weight = torch.stack([signals, -signals, torch.zeros_like(signals)], 1).flatten(0, 1)
    bias = torch.tensor([0.0, 0.0, M]).repeat(4)
    return weight.repeat(width // 12, 1), bias.repeat(width // 12)


def reading(width: int) -> torch.Tensor:
    """[4, width]: the four signals from activated triples."""
    rows = torch.zeros(4, width)
    for channel in range(width):
        rows[channel % 12 // 3, channel] = (1.0, -1.0, 0.0)[channel % 3] * 12 / width
    return rows


def centre(conv: torch.nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | float = 0.0) -> None:
    conv.weight.zero_()
    middle = conv.kernel_size[0] // 2
    conv.weight[:, :, middle, middle] = weight
    conv.bias.copy_(torch.as_tensor(bias).expand_as(conv.bias))


@torch.no_grad()
def start(model: AutoencoderKL) -> None:
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            centre(module.conv2, torch.zeros(module.conv2.weight.shape[:2]))
            if module.conv_shortcut is not None:
                centre(module.conv_shortcut, copies(*module.conv_shortcut.weight.shape[:2]))
        elif isinstance(module, Attention):
            module.to_out[0].weight.zero_()
        elif isinstance(module, Upsample2D):
            centre(module.conv, copies(*module.conv.weight.shape[:2]))
        elif isinstance(module, Downsample2D):
            module.conv.weight.zero_()
            module.conv.weight[:, :, :2, :2] = copies(*module.conv.weight.shape[:2])[:, :, None, None] / 4
            module.conv.bias.zero_()
    start_ends(model)


def start_ends(model: AutoencoderKL) -> None:
    wide = model.encoder.conv_out.in_channels
    centre(model.encoder.conv_in, *triples(TETRAHEDRON, 12))
    centre(model.decoder.conv_in, *triples(torch.eye(4), wide))
    for norm in (model.encoder.conv_norm_out, model.decoder.conv_norm_out):
        norm.weight.fill_(SPREAD)
        norm.bias.fill_(M / 3)
    spread = torch.tensor([0.0] * 4 + [-6.0] * 4)
    centre(model.encoder.conv_out, torch.cat([reading(wide), torch.zeros(4, wide)]), spread)
    centre(model.decoder.conv_out, TETRAHEDRON.T @ reading(12))
    centre(model.quant_conv, torch.eye(8))
    centre(model.post_quant_conv, torch.eye(4))
