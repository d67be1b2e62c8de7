"""Settings of the diffusion noise and the loss."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.settings import setting

DENSITIES = ("uniform", "logit_normal", "mode", "cosmap")
LOSSES = ("l2", "l1", "huber", "smooth_l1")
HUBER_SCHEDULES = ("snr", "exponential", "constant")
MODE_LIMIT = 1.75


@dataclass(frozen=True)
class NoiseAndLoss:
    prediction: str = setting("auto", "Prediction type", "auto: read from the base.", choices=("auto", "epsilon", "v"))
    zero_terminal_snr: str = setting(
        "auto", "Zero terminal SNR", "auto: read from the base.", choices=("auto", "on", "off"), advanced=True
    )
    min_snr_gamma: float = setting(
        5.0, "Min-SNR gamma", "Loss weighting of Hang et al. 2023; 0 = off, 5 is usual.", min=0, max=100
    )
    debiased_estimation: bool = setting(
        False, "Debiased estimation", "Loss weighting of Yu et al. 2023, instead of min-SNR.", advanced=True
    )
    scale_v_like_epsilon: bool = setting(
        False, "Scale v loss like epsilon", "v-prediction only: weighs steps as epsilon would.", advanced=True
    )
    v_like_loss: float = setting(
        0.0,
        "Add a v-like loss",
        "Epsilon only: this share of the loss as v would weigh it.",
        min=0,
        max=10,
        advanced=True,
    )
    loss: str = setting("l2", "Loss", "huber and smooth_l1 forgive outliers.", choices=LOSSES, advanced=True)
    huber_schedule: str = setting(
        "snr", "Huber schedule", "How the threshold follows the timestep.", choices=HUBER_SCHEDULES, advanced=True
    )
    huber_c: float = setting(0.1, "Huber threshold", min=0.0001, max=10, advanced=True)
    huber_scale: float = setting(1.0, "Huber scale", min=0.0001, max=1000, advanced=True)
    noise_offset: float = setting(
        0.0, "Noise offset", "Shifts the noise per picture and channel; 0.0357 is usual on SDXL.", min=0, max=1
    )
    noise_offset_random: bool = setting(
        False, "Random noise offset", "Between 0 and the noise offset, drawn at each step.", advanced=True
    )
    adaptive_noise_scale: float = setting(
        0.0,
        "Adaptive noise scale",
        "Adds this much of each channel's mean to the offset.",
        min=-1,
        max=1,
        advanced=True,
    )
    multires_iterations: int = setting(
        0,
        "Multi-resolution noise",
        "Coarser layers of noise on top; 0 = off, 6 to 10 is usual.",
        min=0,
        max=64,
        advanced=True,
    )
    multires_discount: float = setting(
        0.3, "Multi-resolution discount", "Weight of each coarser layer.", min=0, max=1, advanced=True
    )
    ip_noise_gamma: float = setting(
        0.0,
        "Input perturbation",
        "Noise that the target does not know (Ning et al. 2023); 0.1.",
        min=0,
        max=1,
        advanced=True,
    )
    ip_noise_gamma_random: bool = setting(
        False, "Random input perturbation", "Between 0 and its value, drawn at each step.", advanced=True
    )
    timestep_density: str = setting(
        "uniform",
        "Timestep density",
        "Which steps are trained most (Esser et al. 2024).",
        choices=DENSITIES,
        advanced=True,
    )
    density_mean: float = setting(
        0.0, "Density mean", "logit_normal: above 0 favours noisy steps.", min=-10, max=10, advanced=True
    )
    density_std: float = setting(
        1.0, "Density width", "logit_normal: its deviation; mode: its scale.", min=0, max=10, advanced=True
    )
    min_timestep: int = setting(0, "First timestep", min=0, max=999, advanced=True)
    max_timestep: int = setting(1000, "Last timestep (exclusive)", min=1, max=1000, advanced=True)

    def problems(self) -> list[str]:
        """Faults that more than one value makes."""
        found = []
        if self.min_timestep >= self.max_timestep:
            found.append("The first timestep (min_timestep) must be below the last (max_timestep).")
        if self.adaptive_noise_scale and not self.noise_offset:
            found.append("The adaptive noise scale adds to a noise offset: set noise_offset too.")
        if self.timestep_density == "mode" and not self.density_std <= MODE_LIMIT:
            found.append(f"The density mode takes a width (density_std) of at most {MODE_LIMIT}.")
        return found
