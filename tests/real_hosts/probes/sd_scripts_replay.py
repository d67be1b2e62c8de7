"""One step of sd-scripts' own trainer, recorded: what went in, and the loss and the gradients that came out.

The trainer runs as its command line would; only the call that computes the loss is wrapped, and made once for each
variant of the options with the same random numbers.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from common import report, request
from safetensors.torch import save_file


class Recorder:
    """Wraps the trainer's loss: `record` holds the tensors of each variant, `losses` its scalar."""

    def __init__(self, variants: dict[str, dict[str, Any]]) -> None:
        self.variants = variants
        self.record: dict[str, torch.Tensor] = {}
        self.losses: dict[str, float] = {}
        self.now = ""

    def keep(self, **tensors: torch.Tensor) -> None:
        self.record |= {f"{self.now}/{name}": t.detach().clone().contiguous() for name, t in tensors.items()}

    def wrap_noise(self, real: Any) -> Any:
        def noised(args: Any, scheduler: Any, latents: torch.Tensor) -> Any:
            noise, noisy, timesteps = real(args, scheduler, latents)
            self.keep(latents=latents, noise=noise, noisy=noisy, timesteps=timesteps)
            return noise, noisy, timesteps

        return noised

    def wrap_unet(self, real: Any) -> Any:
        def called(
            trainer: Any, args: Any, accelerator: Any, unet: Any, noisy: Any, t: Any, context: Any, *rest: Any
        ) -> Any:
            self.keep(context=context[0])
            return real(trainer, args, accelerator, unet, noisy, t, context, *rest)

        return called

    def wrap_loss(self, real: Any) -> Any:
        def loss_of(trainer: Any, batch: Any, *rest: Any, **named: Any) -> torch.Tensor:
            place = next(i for i, value in enumerate(rest) if hasattr(value, "min_snr_gamma"))
            network = next(value for value in rest if hasattr(value, "unet_loras"))
            parameters = start_values(network)
            for name, changes in self.variants.items():
                self.now = name
                options = copy.copy(rest[place])
                vars(options).update(changes)
                torch.manual_seed(5)
                loss = real(trainer, batch, *rest[:place], options, *rest[place + 1 :], **named)
                self.losses[self.now] = loss.item()
                self.keep(**dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())))))
            self.now = "weights"
            self.keep(**network.state_dict())
            raise Done

        return loss_of


class Done(Exception):
    """Ends the run after the first step."""


def start_values(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters by name; what starts at zero gets small numbers, so that every gradient says something."""
    parameters = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(3)
    for name, parameter in parameters.items():
        if "lora_up" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
    return parameters


def main() -> None:
    asked = request()
    sys.path.insert(0, asked["host"])
    import train_network
    from library import train_util

    recorder = Recorder(asked["variants"])
    trainer = train_network.NetworkTrainer
    train_util.get_noise_noisy_latents_and_timesteps = recorder.wrap_noise(
        train_util.get_noise_noisy_latents_and_timesteps
    )
    trainer.call_unet = recorder.wrap_unet(trainer.call_unet)
    trainer.process_batch = recorder.wrap_loss(trainer.process_batch)
    try:
        trainer().train(train_network.setup_parser().parse_args(asked["options"]))
    except Done:
        save_file(recorder.record, asked["record"])
        report(recorder.losses)


main()
