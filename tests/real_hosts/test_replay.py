"""A step of sd-scripts' trainer, replayed: its latents, noise, timesteps and weights give its loss and its gradients.

SD15_CHECKPOINT names an SD1.5 checkpoint of the true size, for example from tools/random_checkpoint.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_programs import PROBES, Host
from PIL import Image
from safetensors.torch import load_file

from lora_core.architecture import architecture_of
from lora_core.engine.branch import Size
from lora_core.engine.loss import training_loss
from lora_core.engine.models import load_unet
from lora_core.engine.network import attach, train_only
from lora_core.engine.noise import diffuse
from lora_core.engine.schedule import alphas_cumprod
from lora_core.jobs.network import Network
from lora_core.jobs.noise import NoiseAndLoss
from lora_core.keys import lora_targets

pytestmark = [pytest.mark.real_host, pytest.mark.slow]

PLAIN = {"v_parameterization": False, "min_snr_gamma": None}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "epsilon": (PLAIN, {}),
    "v": ({"v_parameterization": True}, {}),
    "min_snr": ({"min_snr_gamma": 5.0}, {"min_snr_gamma": 5.0}),
    "min_snr_v": ({"min_snr_gamma": 5.0, "v_parameterization": True}, {"min_snr_gamma": 5.0}),
    "debiased": ({"debiased_estimation_loss": True}, {"debiased_estimation": True}),
    "debiased_v": ({"debiased_estimation_loss": True, "v_parameterization": True}, {"debiased_estimation": True}),
    "scaled_v": (
        {"scale_v_pred_loss_like_noise_pred": True, "v_parameterization": True},
        {"scale_v_like_epsilon": True},
    ),
    "v_like": ({"v_pred_like_loss": 0.5}, {"v_like_loss": 0.5}),
    "huber": ({"loss_type": "huber"}, {"loss": "huber"}),
    "huber_constant": (
        {"loss_type": "huber", "huber_schedule": "constant", "huber_c": 0.2},
        {"loss": "huber", "huber_schedule": "constant", "huber_c": 0.2},
    ),
    "smooth_l1": (
        {"loss_type": "smooth_l1", "huber_schedule": "exponential"},
        {"loss": "smooth_l1", "huber_schedule": "exponential"},
    ),
    "l1": ({"loss_type": "l1"}, {"loss": "l1"}),
    "noise_offset": ({"noise_offset": 0.1}, {"noise_offset": 0.1}),
    "multires": ({"multires_noise_iterations": 6}, {"multires_iterations": 6}),
}


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    path = os.environ.get("SD15_CHECKPOINT", "")
    if not path or not Path(path).is_file():
        pytest.skip("SD15_CHECKPOINT does not name an SD1.5 checkpoint of the true size")
    return Path(path)


@pytest.fixture(scope="module")
def record(sd_scripts: Host, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The losses of each variant, and its tensors as "variant/name"."""
    folder = tmp_path_factory.mktemp("replay")
    write_pictures(folder / "data" / "1_pictures")
    options = {
        "pretrained_model_name_or_path": checkpoint,
        **{"train_data_dir": folder / "data", "output_dir": folder, "output_name": "x", "caption_extension": ".txt"},
        **{"resolution": 128, "train_batch_size": 2, "max_train_steps": 1, "max_data_loader_n_workers": 0},
        **{"network_module": "networks.lora", "network_dim": 4, "network_alpha": 2, "seed": 1},
        **{"mixed_precision": "no", "learning_rate": 1e-4},
    }
    flags = ["--network_train_unet_only", "--cache_latents", "--sdpa"]
    asked = {
        "host": str(sd_scripts.folder),
        "record": str(folder / "record.safetensors"),
        "options": [str(part) for name, value in options.items() for part in (f"--{name}", value)] + flags,
        "variants": {name: {**PLAIN, **theirs} for name, (theirs, _) in VARIANTS.items()},
    }
    done = subprocess.run(
        [sd_scripts.python, str(PROBES / "sd_scripts_replay.py"), json.dumps(asked)],
        env={**os.environ, **sd_scripts.environment},
        capture_output=True,
        text=True,
        cwd=sd_scripts.folder,
    )
    answers = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert answers, done.stderr[-4000:]
    return {"losses": json.loads(answers[-1]), **load_file(asked["record"])}


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        waves = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(waves).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a photo of {name}")


@pytest.fixture(scope="module")
def ours(checkpoint: Path, record: dict[str, Any]) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """Our UNet with their LoRA, and its parameters under their names."""
    keys = lora_targets(architecture_of(checkpoint), text_encoders=False)
    unet: torch.nn.Module = load_unet(checkpoint, torch.float32)
    network = attach({"unet": unet}, {key.canonical: Size(4, 2.0) for key in keys}, Network(rank=4, alpha=2.0), 0)
    train_only([unet], network)
    parameters = {}
    for key in keys:
        for part in ("down", "up"):
            name = f"{key.kohya}.lora_{part}.weight"
            parameter = network.parameters()[f"{key.canonical}.{part}"]
            parameter.data = record[f"weights/{name}"].reshape(parameter.shape).clone()
            parameters[name] = parameter
    return unet, parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_are_sd_scripts_own(record, ours, variant):
    unet, parameters = ours
    latents, noise, noisy, timesteps, context = (
        record[f"{variant}/{name}"] for name in ("latents", "noise", "noisy", "timesteps", "context")
    )
    theirs, settings = VARIANTS[variant]
    prediction = "v" if theirs.get("v_parameterization") else "epsilon"
    noised = diffuse(latents, noise, timesteps, alphas_cumprod(), prediction)
    torch.testing.assert_close(noised.latents, noisy, rtol=1e-5, atol=1e-5)
    output = unet(replace(noised, latents=noisy).latents, timesteps, encoder_hidden_states=context).sample
    loss = training_loss(output, noised, NoiseAndLoss(**{"min_snr_gamma": 0.0, **settings}), prediction)
    assert loss.item() == pytest.approx(record["losses"][variant], rel=1e-5)
    found = torch.autograd.grad(loss, list(parameters.values()))
    wanted = [record[f"{variant}/{name}"] for name in parameters]
    squares = sum(float((f - w.reshape(f.shape)).square().sum()) for f, w in zip(found, wanted))
    assert squares**0.5 < 1e-4 * sum(float(w.square().sum()) for w in wanted) ** 0.5
