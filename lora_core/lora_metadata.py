"""The metadata header of LoRA files: kohya's ss_* keys, modelspec.* of the SAI model spec 1.0.1, and two of our own.

All values are strings as Python's `str` gives them; mappings and lists are JSON. No absolute path, user or host name
gets in: of paths only the last part is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_core.modelspec import Summary, last_part, minimal_metadata, private_parts, spelled
from lora_core.shapes import Architecture

__all__ = ["Summary", "TrainingFacts", "last_part", "minimal_metadata", "private_parts", "training_metadata"]

if TYPE_CHECKING:
    from lora_core.jobs import TrainJob
    from lora_core.jobs.noise import NoiseAndLoss

FIXED = {
    # kohya's options that this program does not have, at the values that mean "not used"
    "ss_caption_dropout_every_n_epochs": 0,
    "ss_fp8_base": False,
    "ss_fp8_base_unet": False,
    "ss_full_fp16": False,
    "ss_lowram": False,
    "ss_max_validation_steps": None,
    "ss_num_reg_images": 0,
    "ss_prior_loss_weight": 1.0,
    "ss_reg_dataset_dirs": "{}",
}
ABOUT = ("title", "author", "description", "license", "tags", "usage_hint", "trigger_phrase", "merged_from")


@dataclass(frozen=True)
class TrainingFacts:
    """What a run knows beyond its job. Times are unix seconds, sizes (width, height), hashes as `file_hashes` gives.

    `dataset_dirs` is folder name -> (repeats, pictures); `tag_frequency` folder name -> tag -> pictures; `buckets` a
    list of (size, count with repeats); `text_encoder_lr` one rate per text encoder; `dim`, `alpha` and `network_args`
    None as the job says.
    """

    arch: Architecture
    session_id: int
    started_at: float
    finished_at: float
    step: int
    epoch: int
    num_epochs: int
    max_train_steps: int
    warmup_steps: int
    num_train_images: int
    num_batches_per_epoch: int
    dim: int | str | None = None
    alpha: float | str | None = None
    network_args: Mapping[str, str] | None = None
    optimizer: str = "torch.optim.adamw.AdamW"
    unet_lr: float | None = None
    text_encoder_lr: tuple[float, ...] = ()
    mixed_precision: str = "no"
    prediction: str = ""
    zero_terminal_snr: bool | None = None
    num_validation_images: int = 0
    base_hash: str = ""
    base_sha256: str = ""
    vae_hash: str = ""
    vae_sha256: str = ""
    buckets: tuple[tuple[tuple[int, int], int], ...] = ()
    mean_ar_error: float = 0.0
    dataset_dirs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    flip: bool = False
    cache_latents: bool = True
    thumbnail: str = ""


def training_metadata(job: TrainJob, facts: TrainingFacts, output_name: str = "") -> dict[str, str]:
    """Everything that kohya's trainer writes, for a file named `output_name` (default: the job's name).

    With job.saves.metadata "minimal", only `minimal_metadata`.
    """
    summary = _summary(job, facts, output_name or job.name)
    least = minimal_metadata(summary) | _modelspec_extras(job, facts)
    if job.saves.metadata == "minimal":
        return least
    parts = (_run(job, facts, summary), _optimization(job, facts), _dataset(job, facts), _captions(job, facts))
    return spelled({key: value for part in (FIXED, *parts) for key, value in part.items()}) | least


def _summary(job: TrainJob, facts: TrainingFacts, title: str) -> Summary:
    prediction = facts.prediction or facts.arch.prediction
    ztsnr = facts.arch.zero_terminal_snr if facts.zero_terminal_snr is None else facts.zero_terminal_snr
    args = facts.network_args
    if args is None:
        n = job.network
        args = {"conv_dim": str(n.conv_rank), "conv_alpha": str(n.conv_alpha)} if n.conv_rank else {}
    return Summary(
        facts.arch.family,
        job.network.rank if facts.dim is None else facts.dim,
        float(job.network.alpha) if facts.alpha is None else facts.alpha,
        title,
        prediction,
        ztsnr,
        args,
        (job.dataset.width, job.dataset.height),
        facts.finished_at,
        trigger=job.captions.trigger,
    )


def _modelspec_extras(job: TrainJob, facts: TrainingFacts) -> dict[str, str]:
    told = {name: getattr(job.saves, name) for name in ABOUT} | {"thumbnail": facts.thumbnail}
    found = {f"modelspec.{name}": value for name, value in told.items() if value}
    if (job.noise.min_timestep, job.noise.max_timestep) != (0, 1000):
        found["modelspec.timestep_range"] = f"{job.noise.min_timestep},{job.noise.max_timestep}"
    if facts.arch.family != "sdxl" and job.captions.clip_skip > 1:
        found["modelspec.encoder_layer"] = str(job.captions.clip_skip)
    return found


def _run(job: TrainJob, facts: TrainingFacts, summary: Summary) -> dict[str, Any]:
    found = {
        "ss_session_id": facts.session_id,
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": facts.finished_at,
        "ss_output_name": summary.title,
        "ss_seed": job.seed,
        "ss_steps": facts.step,
        "ss_epoch": facts.epoch,
        "ss_num_epochs": facts.num_epochs,
        "ss_max_train_steps": facts.max_train_steps,
        "ss_training_comment": job.saves.comment or None,
        "ss_mixed_precision": facts.mixed_precision,
        "ss_zero_terminal_snr": summary.zero_terminal_snr,
        "ss_sd_model_name": last_part(job.base),
        "ss_sd_model_hash": facts.base_hash or None,
        "ss_new_sd_model_hash": facts.base_sha256 or None,
    }
    if job.vae:
        found |= {
            "ss_vae_name": last_part(job.vae),
            "ss_vae_hash": facts.vae_hash or None,
            "ss_new_vae_hash": facts.vae_sha256 or None,
        }
    return found


def _optimization(job: TrainJob, facts: TrainingFacts) -> dict[str, Any]:
    o, noise = job.optimization, job.noise
    text_lr = list(facts.text_encoder_lr) if len(facts.text_encoder_lr) > 1 else (*facts.text_encoder_lr, None)[0]
    return {
        "ss_learning_rate": o.learning_rate,
        "ss_unet_lr": facts.unet_lr,
        "ss_text_encoder_lr": text_lr,
        "ss_optimizer": facts.optimizer,
        "ss_lr_scheduler": o.schedule_class or o.schedule,
        "ss_lr_warmup_steps": facts.warmup_steps,
        "ss_gradient_accumulation_steps": o.accumulation,
        "ss_gradient_checkpointing": job.memory.gradient_checkpointing,
        "ss_max_grad_norm": o.max_grad_norm,
        "ss_network_dropout": job.network.dropout or None,
        "ss_scale_weight_norms": job.network.max_norm or None,
        **_noise(noise),
    }


def _noise(noise: NoiseAndLoss) -> dict[str, Any]:
    huber = noise.loss in ("huber", "smooth_l1")
    return {
        "ss_min_snr_gamma": None if noise.debiased_estimation else noise.min_snr_gamma or None,
        "ss_debiased_estimation": noise.debiased_estimation,
        "ss_loss_type": noise.loss,
        "ss_huber_schedule": noise.huber_schedule if huber else None,
        "ss_huber_c": noise.huber_c if huber else None,
        "ss_huber_scale": noise.huber_scale if huber else None,
        "ss_noise_offset": noise.noise_offset or None,
        "ss_noise_offset_random_strength": noise.noise_offset_random,
        "ss_adaptive_noise_scale": noise.adaptive_noise_scale or None,
        "ss_multires_noise_iterations": noise.multires_iterations or None,
        "ss_multires_noise_discount": noise.multires_discount if noise.multires_iterations else None,
        "ss_ip_noise_gamma": noise.ip_noise_gamma or None,
        "ss_ip_noise_gamma_random_strength": noise.ip_noise_gamma_random,
    }


def _dataset(job: TrainJob, facts: TrainingFacts) -> dict[str, Any]:
    d = job.dataset
    buckets = {str(i): {"resolution": list(size), "count": n} for i, (size, n) in enumerate(facts.buckets)}
    return {
        "ss_num_train_images": facts.num_train_images,
        "ss_num_validation_images": facts.num_validation_images,
        "ss_num_batches_per_epoch": facts.num_batches_per_epoch,
        "ss_batch_size_per_device": d.batch_size,
        "ss_total_batch_size": d.batch_size * job.optimization.accumulation,
        "ss_resolution": (d.width, d.height),
        "ss_enable_bucket": d.buckets,
        "ss_bucket_no_upscale": d.no_upscale,
        "ss_min_bucket_reso": d.min_bucket if d.buckets else None,
        "ss_max_bucket_reso": d.max_bucket if d.buckets else None,
        "ss_bucket_info": {"buckets": buckets, "mean_img_ar_error": facts.mean_ar_error} if d.buckets else None,
        "ss_flip_aug": facts.flip or d.flip,
        "ss_color_aug": d.color_shift,
        "ss_random_crop": d.random_crop,
        "ss_face_crop_aug_range": d.face_crop or None,
        "ss_resize_interpolation": None if d.resize_filter == "auto" else d.resize_filter,
        "ss_cache_latents": facts.cache_latents,
        "ss_dataset_dirs": {
            last_part(name): {"n_repeats": repeats, "img_count": count}
            for name, (repeats, count) in facts.dataset_dirs.items()
        },
        "ss_validation_split": d.validation_split,
        "ss_validation_seed": None,
        "ss_validate_every_n_steps": job.saves.validate_every_steps or None,
        "ss_validate_every_n_epochs": job.saves.validate_every_epochs or None,
    }


def _captions(job: TrainJob, facts: TrainingFacts) -> dict[str, Any]:
    c = job.captions
    return {
        "ss_shuffle_caption": c.shuffle,
        "ss_keep_tokens": c.keep_tokens,
        "ss_caption_dropout_rate": c.caption_dropout,
        "ss_caption_tag_dropout_rate": c.tag_dropout,
        "ss_clip_skip": None if facts.arch.family == "sdxl" else c.clip_skip,
        "ss_max_token_length": c.max_tokens if c.max_tokens > 75 else None,
        "ss_tag_frequency": {last_part(name): dict(tags) for name, tags in facts.tag_frequency.items()},
    }
