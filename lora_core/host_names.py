"""One table of names: our tokens for samplers, schedules and modes beside A1111's labels and ComfyUI's names."""

from __future__ import annotations

import re
from typing import NamedTuple


class Sampler(NamedTuple):
    """`automatic`: the schedule that A1111's "Automatic" means for it. `more`: further names of the same sampler."""

    token: str
    a1111: str
    comfyui: str
    automatic: str = "uniform"
    more: tuple[str, ...] = ()


class Schedule(NamedTuple):
    """`comfyui` is "" where ComfyUI has no such schedule."""

    token: str
    a1111: str
    comfyui: str = ""
    more: tuple[str, ...] = ()


SAMPLERS = (
    Sampler("ddim", "DDIM", "ddim"),
    Sampler("euler", "Euler", "euler", more=("k_euler",)),
    Sampler("euler_ancestral", "Euler a", "euler_ancestral", more=("k_euler_a", "k_euler_ancestral")),
    Sampler("heun", "Heun", "heun", more=("k_heun",)),
    Sampler("lms", "LMS", "lms", more=("k_lms",)),
    Sampler("dpm2", "DPM2", "dpm_2", "karras", ("k_dpm_2",)),
    Sampler("dpm2_ancestral", "DPM2 a", "dpm_2_ancestral", "karras", ("k_dpm_2_a", "k_dpm_2_ancestral")),
    Sampler("dpmpp_2s_ancestral", "DPM++ 2S a", "dpmpp_2s_ancestral", "karras", ("k_dpmpp_2s_a",)),
    Sampler("dpmpp_2m", "DPM++ 2M", "dpmpp_2m", "karras", ("k_dpmpp_2m",)),
    Sampler("dpmpp_sde", "DPM++ SDE", "dpmpp_sde", "karras", ("k_dpmpp_sde", "dpmpp_sde_gpu")),
    Sampler("dpmpp_2m_sde", "DPM++ 2M SDE", "dpmpp_2m_sde", "exponential", ("k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu")),
    Sampler("unipc", "UniPC", "uni_pc"),
    Sampler("lcm", "LCM", "lcm", more=("k_lcm",)),
)
SCHEDULES = (
    Schedule("automatic", "Automatic"),
    Schedule("normal", "Normal", "normal"),
    Schedule("uniform", "Uniform"),
    Schedule("karras", "Karras", "karras"),
    Schedule("exponential", "Exponential", "exponential"),
    Schedule("simple", "Simple", "simple"),
    Schedule("ddim_uniform", "DDIM", "ddim_uniform", ("DDIM Uniform",)),
    Schedule("sgm_uniform", "SGM Uniform", "sgm_uniform", ("SGMUniform",)),
)
BEFORE_1_9 = (  # the combined names that A1111 had before its list of schedules
    *("DPM++ 2M Karras", "DPM++ SDE Karras", "DPM++ 2M SDE Exponential", "DPM++ 2M SDE Karras", "LMS Karras"),
    *("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun Exponential", "DPM++ 3M SDE Karras", "DPM++ 3M SDE Exponential"),
    *("DPM2 Karras", "DPM2 a Karras", "DPM++ 2S a Karras"),
)
SAMPLER = {sampler.token: sampler for sampler in SAMPLERS}
SCHEDULE = {schedule.token: schedule for schedule in SCHEDULES}

RNG = {"cpu": "CPU", "gpu": "GPU", "nv": "NV"}
EMPHASIS = {"original": "Original", "no norm": "No norm", "ignore": "Ignore", "none": "None"}
RESIZE_MODE = {
    "just resize": "Just resize",
    "crop and resize": "Crop and resize",
    "resize and fill": "Resize and fill",
    "just resize (latent upscale)": "Just resize (latent upscale)",
}
MASKED_CONTENT = {name: name for name in ("fill", "original", "latent noise", "latent nothing", "grey")}
INPAINT_AREA = {"whole picture": "Whole picture", "only masked": "Only masked"}
MASK_MODE = {False: "Inpaint masked", True: "Inpaint not masked"}
HIRES_UPSCALER = {
    "latent": "Latent",
    "latent (antialiased)": "Latent (antialiased)",
    "latent (bicubic)": "Latent (bicubic)",
    "latent (bicubic antialiased)": "Latent (bicubic antialiased)",
    "latent (nearest)": "Latent (nearest)",
    "latent (nearest-exact)": "Latent (nearest-exact)",
    "lanczos": "Lanczos",
    "nearest": "Nearest",
}


def plain(name: str) -> str:
    """A name without case, spaces, underscores and hyphens, for comparing."""
    return re.sub(r"[\s_\-]+", "", name).casefold()


_SAMPLER_OF = {plain(name): s.token for s in SAMPLERS for name in (s.token, s.a1111, s.comfyui, *s.more)}
_SCHEDULE_OF = {plain(name): s.token for s in SCHEDULES for name in (s.token, s.a1111, s.comfyui, *s.more) if name}


def sampler_token(name: str) -> str | None:
    """Our token for a sampler's name in either host, None for one that we do not have."""
    return _SAMPLER_OF.get(plain(name))


def schedule_token(name: str) -> str | None:
    """Our token for a schedule's name in either host, None for one that we do not have."""
    return _SCHEDULE_OF.get(plain(name))


def combined_tokens(name: str) -> tuple[str | None, str | None]:
    """Sampler and schedule of an old combined name such as "DPM++ 2M Karras"; the schedule is None without one."""
    if sampler_token(name):
        return sampler_token(name), None
    words = name.split()
    for count in (2, 1):
        schedule = schedule_token(" ".join(words[-count:])) if len(words) > count else None
        if schedule:
            return sampler_token(" ".join(words[:-count])), schedule
    return None, None


def names_before_1_9(sampler: str, schedule: str) -> tuple[str, str]:
    """Sampler and "Schedule type" as A1111 before 1.9 understands them: "DPM++ 2M Karras" and nothing; "" for none."""
    known, token = SAMPLER.get(sampler_token(sampler) or ""), schedule_token(schedule)
    if token == "automatic" and known:
        token = known.automatic
    combined = f"{sampler} {SCHEDULE[token].a1111}" if token else ""
    if combined in BEFORE_1_9:
        return combined, ""
    return sampler, token if token in ("karras", "exponential") else ""


def token_of(table: dict, label: str):
    """The key of a table above whose label is `label`, without regard to case; None where there is none."""
    return next((token for token, known in table.items() if plain(known) == plain(label)), None)
