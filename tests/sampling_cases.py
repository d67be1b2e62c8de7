"""The runs of samplers that ours are held against in the hosts. The standard library alone: the hosts import it too."""

from __future__ import annotations

from dataclasses import dataclass

SHAPE = (4, 4, 6)
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
SCHEDULES = ("normal", "karras", "exponential", "simple", "ddim_uniform", "sgm_uniform")


@dataclass(frozen=True)
class Case:
    """One batch of two toy latents. `denoise` None: txt2img; `seeds` are A1111's, ComfyUI takes the first."""

    sampler: str
    scheduler: str = "automatic"
    steps: int = 6
    denoise: float | None = None
    seeds: tuple[int, int] = (7, 8)
    v: bool = False
    ztsnr: bool = False
    masked: bool = False
    eta: float = 1.0
    source: str = "cpu"
    subseed_strength: float = 0.0
    seed_delta: int = 0
    exactly: bool = False

    @property
    def name(self) -> str:
        words = [self.sampler, self.scheduler, str(self.steps)]
        words += [f"denoise{self.denoise}"] if self.denoise is not None else []
        words += [word for word in ("v", "ztsnr", "masked", "exactly") if getattr(self, word)]
        words += [f"eta{self.eta}"] if self.eta != 1 else []
        words += [self.source] if self.source != "cpu" else []
        words += [f"sub{self.subseed_strength}"] if self.subseed_strength else []
        words += [f"ensd{self.seed_delta}"] if self.seed_delta else []
        return "-".join(words)


def common() -> list[Case]:
    cases = [Case(s, schedule) for s in SAMPLERS for schedule in ("automatic", "karras")]
    cases += [Case("dpmpp_2m", schedule, 7) for schedule in SCHEDULES if schedule != "karras"]
    cases += [Case(s, denoise=0.6) for s in SAMPLERS]
    cases += [Case(s, denoise=0.6, masked=True) for s in ("ddim", "euler", "dpm2", "dpmpp_2m_sde", "unipc")]
    cases += [Case(s, v=True) for s in ("ddim", "euler", "unipc")]
    cases += [Case(s, v=True, ztsnr=True) for s in ("ddim", "euler_ancestral", "dpmpp_2m")]
    cases += [Case("ddim", steps=steps) for steps in (1, 4, 20, 30)]
    cases += [Case(s, "ddim_uniform", steps=7) for s in ("euler", "dpm2", "lcm")]
    return [*dict.fromkeys(cases)]


def a1111() -> list[Case]:
    """txt2img as the webui's txt2img, `denoise` as its img2img, `exactly` as its option img2img_fix_steps."""
    cases = common()
    cases += [Case(s, "uniform") for s in ("euler", "lcm", "dpmpp_2m")]
    cases += [Case("euler_ancestral", eta=0.5), Case("dpmpp_sde", eta=0.5), Case("dpmpp_2m_sde", eta=0.0)]
    cases += [Case(s, source="nv") for s in ("ddim", "euler_ancestral", "dpmpp_2m_sde")]
    cases += [Case(s, subseed_strength=0.3) for s in ("ddim", "euler_ancestral")]
    cases += [Case("euler_ancestral", seed_delta=31337), Case("dpmpp_sde", seed_delta=31337)]
    cases += [Case(s, denoise=0.6, exactly=True) for s in ("ddim", "dpmpp_2m", "unipc")]
    cases += [Case("ddim", denoise=d, steps=20) for d in (0.05, 0.5, 1.0)]
    cases += [Case("unipc", steps=20), Case("unipc", denoise=1.0, steps=8)]
    return [*dict.fromkeys(cases)]


def comfyui() -> list[Case]:
    cases = [case for case in common() if case.steps > 1]
    return [*cases, Case("unipc", "sgm_uniform", 3), Case("lcm", "sgm_uniform", 4)]
