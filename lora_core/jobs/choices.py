"""Choices that more than one kind of job offers."""

SAMPLERS = (
    "ddim",
    "euler",
    "euler_ancestral",
    "heun",
    "lms",
    "dpm2",
    "dpm2_ancestral",
    "dpmpp_2s_ancestral",
    "dpmpp_2m",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "unipc",
    "lcm",
)
