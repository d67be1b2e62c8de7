"""Which function, which schedule and which habits each host gives a sampler."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lora_core.engine import samplers, samplers_dpmpp, samplers_vp
from lora_core.engine.samplers import Sampler


@dataclass(frozen=True)
class Rule:
    """`automatic`: the schedule when none is chosen. `discard`: the smallest sigma but one is left out. `brownian`:
    noise is read from a Brownian path. `twice`: two UNet calls a step, which A1111's prompt editing counts."""

    function: Sampler
    automatic: str = "normal"
    discard: bool = False
    brownian: bool = False
    twice: bool = False


_A1111_SDE = partial(samplers_dpmpp.dpmpp_sde, place=samplers_dpmpp.through_the_logarithm)

A1111: dict[str, Rule] = {
    "euler": Rule(samplers.euler, "uniform"),
    "euler_ancestral": Rule(samplers.euler_ancestral, "uniform"),
    "heun": Rule(samplers.heun, "uniform", twice=True),
    "lms": Rule(samplers.lms, "uniform"),
    "dpm2": Rule(samplers.dpm2, "karras", discard=True, twice=True),
    "dpm2_ancestral": Rule(samplers.dpm2_ancestral, "karras", discard=True, twice=True),
    "dpmpp_2s_ancestral": Rule(samplers_dpmpp.dpmpp_2s_ancestral, "karras", twice=True),
    "dpmpp_2m": Rule(samplers_dpmpp.dpmpp_2m, "karras"),
    "dpmpp_sde": Rule(_A1111_SDE, "karras", brownian=True, twice=True),
    "dpmpp_2m_sde": Rule(samplers_dpmpp.dpmpp_2m_sde, "exponential", brownian=True),
    "lcm": Rule(samplers.lcm, "uniform"),
}
A1111_VP = ("ddim", "unipc")  # these step over timesteps, whatever schedule is chosen

COMFYUI: dict[str, Rule] = {
    "ddim": Rule(samplers.ddim),
    "euler": Rule(samplers.euler),
    "euler_ancestral": Rule(samplers.euler_ancestral),
    "heun": Rule(samplers.heun),
    "lms": Rule(samplers.lms),
    "dpm2": Rule(samplers.dpm2, discard=True),
    "dpm2_ancestral": Rule(samplers.dpm2_ancestral, discard=True),
    "dpmpp_2s_ancestral": Rule(samplers_dpmpp.dpmpp_2s_ancestral),
    "dpmpp_2m": Rule(samplers_dpmpp.dpmpp_2m),
    "dpmpp_sde": Rule(samplers_dpmpp.dpmpp_sde, brownian=True),
    "dpmpp_2m_sde": Rule(samplers_dpmpp.dpmpp_2m_sde, brownian=True),
    "unipc": Rule(samplers_vp.unipc, discard=True),
    "lcm": Rule(samplers.lcm),
}


def second_order(arithmetic: str, sampler: str) -> bool:
    """True where A1111 counts two UNet calls a step."""
    return arithmetic == "a1111" and sampler in A1111 and A1111[sampler].twice
