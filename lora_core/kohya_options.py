"""Every option of kohya's sd-scripts LoRA trainers (version 0.10.1, 196 options) and what becomes of it here.

"done": the same meaning. "differently": the purpose is met in another way. "not needed": the result is the same without
it. "not supported". Whoever uses an option of the last three kinds is told the sentence of its row.
"""

from __future__ import annotations

from lora_core.kohya_row import Option, number, other, refuse, rule, same, spare, text, truth, whole

LATENTS = "Latents are always cached on disk and checked when they are read."
LOADER = "Pictures are read from the cache, which needs no worker processes."
ATTENTION = "Torch's own memory-saving attention is always used."
ONE_DEVICE = "Start it by torchrun or accelerate launch: each process takes its share of every batch, without settings."
HUB = "Nothing is sent to or fetched from a hub."
ONE_STATE = "One state is kept, the newest."
LOGS = "Progress and losses come as events; the log and the report are in the working folder."
BASE_READS = "Read from the base's own file."
STATE = "A resumable state is kept in the working folder anyway, and the same job goes on from it."

MODEL = (
    rule("pretrained_model_name_or_path", None, "base"),
    rule("v2", False, sentence=BASE_READS),
    rule("v_parameterization", False, "prediction", sentence="False leaves it to the base's own file."),
    rule("vae", None, "vae"),
    spare("no_half_vae", False, "The VAE never runs in fp16, and a latent that is not finite is never trained on."),
    spare("tokenizer_cache_dir", None, "The tokenizer is part of the product."),
    spare("disable_mmap_load_safetensors", False, "Files are read tensor by tensor and leave memory at once."),
    rule("base_weights", None, "base_loras"),
    rule("base_weights_multiplier", None, "base_loras", sentence="1 where none is given."),
    spare("lowram", False, "Each part of the base is loaded straight into its final precision."),
    spare("highvram", False, "Memory is only given back between the stages."),
)

DATASET = (
    rule("train_data_dir", None, "folder"),
    same("reg_data_dir", None, "class_pictures", text),
    rule("in_json", None, "metadata_file", sentence="Caption and tags; each picture's bucket follows from its size."),
    rule("dataset_config", None, "subsets", sentence="See the table of dataset options."),
    refuse("dataset_class", None, "A dataset class is foreign code, which is not run."),
    rule("dataset_repeats", 1, "repeats", sentence="With in_json, as in sd-scripts."),
    same("train_batch_size", 1, "batch_size", whole),
    rule("resolution", None, "width", "height", sentence="512 when it is not given."),
    same("enable_bucket", False, "buckets", truth),
    same("min_bucket_reso", 256, "min_bucket", whole),
    same("max_bucket_reso", 1024, "max_bucket", whole),
    rule("bucket_reso_steps", 64, "bucket_step", sentence="At least 8, the size of a latent cell."),
    same("bucket_no_upscale", False, "no_upscale", truth),
    rule("resize_interpolation", None, "resize_filter", sentence="area, box: averaging where it shrinks (auto)."),
    spare("cache_latents", False, LATENTS),
    spare("cache_latents_to_disk", False, LATENTS),
    spare("vae_batch_size", 1, LATENTS),
    spare("skip_cache_check", False, LATENTS),
    same("flip_aug", False, "flip", truth),
    same("color_aug", False, "color_shift", truth),
    same("random_crop", False, "random_crop", truth),
    same("face_crop_aug_range", None, "face_crop", text),
    same("alpha_mask", False, "alpha_mask", truth),
    rule("masked_loss", False, sentence="Masks count wherever conditioning_data_dir or alpha_mask names them."),
    same("conditioning_data_dir", None, "masks", text),
    spare("cache_info", False, LATENTS),
    other(
        "debug_dataset", False, "A report of pictures, captions and buckets comes before the first step of each run."
    ),
    spare("max_data_loader_n_workers", 8, LOADER),
    spare("persistent_data_loader_workers", False, LOADER),
)

CAPTION = (
    rule("caption_extension", ".caption", "caption_extension", sentence="Not given: all kinds are looked for."),
    rule("caption_extention", None, "caption_extension", sentence="Old spelling of caption_extension."),
    same("shuffle_caption", False, "shuffle", truth),
    same("caption_separator", ",", "separator", text),
    same("keep_tokens", 0, "keep_tokens", whole),
    same("keep_tokens_separator", "", "keep_separator", text),
    same("secondary_separator", None, "secondary_separator", text),
    same("enable_wildcard", False, "wildcards", truth),
    same("caption_prefix", None, "caption_prefix", text),
    same("caption_suffix", None, "caption_suffix", text),
    same("caption_dropout_rate", 0.0, "caption_dropout", number),
    same("caption_dropout_every_n_epochs", 0, "dropout_every_epochs", whole),
    same("caption_tag_dropout_rate", 0.0, "tag_dropout", number),
    same("token_warmup_min", 1, "tag_warmup_least", whole),
    same("token_warmup_step", 0, "tag_warmup", number),
    same("weighted_captions", False, "weighted", truth),
    rule("max_token_length", None, "max_tokens"),
    rule("clip_skip", None, "clip_skip"),
)

NETWORK = (
    rule("network_module", None, "algorithm", sentence="LoRA, LoCon, LoHa, LoKr, (IA)3, DoRA, OFT; else a plain LoRA."),
    rule("network_dim", None, "rank", sentence="4 when it is not given."),
    rule("network_alpha", 1, "alpha", sentence="0 means as the rank."),
    rule("network_dropout", None, "dropout"),
    rule("network_train_unet_only", False, "train_text_encoder"),
    rule("network_train_text_encoder_only", False, "train_unet"),
    rule("network_weights", None, "start_from"),
    rule("dim_from_weights", False, "rank_from_start", sentence="False: other ranks are cut by SVD or padded."),
    same("scale_weight_norms", None, "max_norm", number),
    rule("network_args", None, "conv_rank", "conv_alpha", sentence="See the table of network arguments."),
)

OPTIMIZER = (
    rule("learning_rate", 2e-06, "learning_rate"),
    rule("unet_lr", None, "learning_rate"),
    rule("text_encoder_lr", None, "text_encoder_lr", "text_encoder_2_lr"),
    rule("optimizer_type", "", "optimizer", "optimizer_class", sentence="See the table of optimizers."),
    rule("optimizer_args", None, "optimizer_args", "weight_decay", "beta1", "beta2"),
    rule("use_8bit_adam", False, "optimizer"),
    rule("use_lion_optimizer", False, "optimizer"),
    rule("lr_scheduler", "constant", "schedule"),
    rule("lr_warmup_steps", 0, "warmup", sentence="Steps, or a share below 1; a constant schedule has none."),
    rule("lr_decay_steps", 0, "decay_steps", sentence="Of warmup_stable_decay."),
    rule("lr_scheduler_num_cycles", 1, "cycles"),
    rule("lr_scheduler_power", 1, "power"),
    rule("lr_scheduler_timescale", None, "schedule_args", sentence="Of inverse_sqrt."),
    same("lr_scheduler_min_lr_ratio", None, "min_lr_ratio", number),
    rule("lr_scheduler_type", "", "schedule_class"),
    rule("lr_scheduler_args", None, "schedule_args"),
    rule("max_train_steps", 1600, "steps"),
    rule("max_train_epochs", None, "epochs", "steps"),
    same("max_grad_norm", 1.0, "max_grad_norm", number),
    same("gradient_accumulation_steps", 1, "accumulation", whole),
    spare("fused_backward_pass", False, "The gradients of a LoRA are small."),
    rule("seed", None, "seed", sentence="Not given: 0, so that a run can be repeated."),
)

NOISE_AND_LOSS = (
    same("noise_offset", None, "noise_offset", number),
    same("noise_offset_random_strength", False, "noise_offset_random", truth),
    same("adaptive_noise_scale", None, "adaptive_noise_scale", number),
    same("multires_noise_iterations", None, "multires_iterations", whole),
    same("multires_noise_discount", 0.3, "multires_discount", number),
    same("ip_noise_gamma", None, "ip_noise_gamma", number),
    same("ip_noise_gamma_random_strength", False, "ip_noise_gamma_random", truth),
    rule("zero_terminal_snr", False, "zero_terminal_snr", sentence="False leaves it to the base's own file."),
    same("min_timestep", None, "min_timestep", whole),
    rule("max_timestep", None, "max_timestep"),
    same("min_snr_gamma", None, "min_snr_gamma", number),
    same("debiased_estimation_loss", False, "debiased_estimation", truth),
    same("scale_v_pred_loss_like_noise_pred", False, "scale_v_like_epsilon", truth),
    same("v_pred_like_loss", None, "v_like_loss", number),
    same("loss_type", "l2", "loss", text),
    same("huber_schedule", "snr", "huber_schedule", text),
    same("huber_c", 0.1, "huber_c", number),
    same("huber_scale", 1.0, "huber_scale", number),
    same("prior_loss_weight", 1.0, "prior_loss_weight", number),
)

MEMORY = (
    rule("mixed_precision", "no", "dtype"),
    other(
        "full_fp16",
        False,
        "The base is held in fp16; the LoRA itself stays in fp32, so that small steps count.",
        "dtype",
    ),
    other(
        "full_bf16",
        False,
        "The base is held in bf16; the LoRA itself stays in fp32, so that small steps count.",
        "dtype",
    ),
    refuse(
        "fp8_base",
        False,
        "The base is held in the precision of mixed_precision; fp8 would save memory and cost accuracy.",
    ),
    refuse(
        "fp8_base_unet",
        False,
        "The base is held in the precision of mixed_precision; fp8 would save memory and cost accuracy.",
    ),
    same("gradient_checkpointing", False, "gradient_checkpointing", truth),
    refuse(
        "cpu_offload_checkpointing", False, "Activations stay on the device; gradient_checkpointing keeps few of them."
    ),
    spare("xformers", False, ATTENTION),
    spare("sdpa", False, ATTENTION),
    spare("mem_eff_attn", False, ATTENTION),
    refuse("torch_compile", False, "The model is not compiled; the result is the same."),
    refuse("dynamo_backend", "inductor", "The model is not compiled; the result is the same."),
    rule("cache_text_encoder_outputs", False, "cache_text"),
    rule("cache_text_encoder_outputs_to_disk", False, "cache_text"),
)
DISTRIBUTED = tuple(
    refuse(name, default, ONE_DEVICE)
    for name, default in (
        ("ddp_timeout", None),
        ("ddp_gradient_as_bucket_view", False),
        ("ddp_static_graph", False),
        ("deepspeed", False),
        ("zero_stage", 2),
        ("offload_optimizer_device", None),
        ("offload_optimizer_nvme_path", None),
        ("offload_param_device", None),
        ("offload_param_nvme_path", None),
        ("zero3_init_flag", False),
        ("zero3_save_16bit_model", False),
        ("fp16_master_weights_and_gradients", False),
    )
)

SAVING = (
    rule("output_dir", None, "output_dir"),
    rule("output_name", None, "name", sentence='"last" when it is not given.'),
    other("save_model_as", "safetensors", "Only .safetensors is written: the other kinds can carry code."),
    rule("save_precision", None, "save_precision"),
    same("save_every_n_epochs", None, "save_every_epochs", whole),
    same("save_every_n_steps", None, "save_every_steps", whole),
    same("save_n_epoch_ratio", None, "save_parts", whole),
    rule("save_last_n_epochs", None, "keep_last"),
    rule("save_last_n_steps", None, "keep_last", sentence="The saves that lie so many steps back."),
    *(other(f"save_last_n_{unit}_state", None, ONE_STATE) for unit in ("epochs", "steps")),
    rule("no_metadata", False, "metadata"),
    same("training_comment", None, "comment", text),
    *(
        same(f"metadata_{what}", None, what, text)
        for what in ("title", "author", "description", "license", "tags", "usage_hint", "thumbnail", "merged_from")
    ),
    same("metadata_trigger_phrase", None, "trigger_phrase", text),
    refuse("metadata_preprocessor", None, "It belongs to control nets."),
    refuse("metadata_is_negative_embedding", None, "It belongs to embeddings."),
    other("save_state", False, STATE),
    other("save_state_on_train_end", False, STATE),
    other("resume", None, f"States of other trainers cannot be read. {STATE}"),
    refuse("initial_epoch", None, STATE),
    refuse("initial_step", None, STATE),
    refuse("skip_until_initial_step", False, STATE),
    *(
        refuse(name, default, HUB)
        for name, default in (
            ("huggingface_repo_id", None),
            ("huggingface_repo_type", None),
            ("huggingface_path_in_repo", None),
            ("huggingface_token", None),
            ("huggingface_repo_visibility", None),
            ("save_state_to_huggingface", False),
            ("resume_from_huggingface", False),
            ("async_upload", False),
        )
    ),
)

WATCHING = (
    same("sample_every_n_epochs", None, "preview_every_epochs", whole),
    same("sample_every_n_steps", None, "preview_every_steps", whole),
    same("sample_at_first", False, "preview_first", truth),
    rule(
        "sample_prompts", None, "preview_prompts", sentence="With --n --w --h --d --s --l --ss; 30 steps and CFG 7.5."
    ),
    rule("sample_sampler", "ddim", "preview_sampler", sentence="The nearest of ours."),
    *(other(name, None, LOGS) for name in ("logging_dir", "log_with", "log_prefix", "log_tracker_name")),
    *(other(name, None, LOGS) for name in ("log_tracker_config", "wandb_run_name", "wandb_api_key")),
    other("log_config", False, LOGS),
    *(other(f"console_log_{what}", None, LOGS) for what in ("level", "file")),
    other("console_log_simple", False, LOGS),
    other("config_file", None, "Name this file itself with --kohya."),
    other("output_config", False, "--print-config prints the job."),
    same("validation_split", 0.0, "validation_split", number),
    refuse("validation_seed", None, "The held-out pictures follow from the seed of the training."),
    same("validate_every_n_steps", None, "validate_every_steps", whole),
    same("validate_every_n_epochs", None, "validate_every_epochs", whole),
    refuse("max_validation_steps", None, "All held-out pictures are measured."),
)

GROUPS: dict[str, tuple[Option, ...]] = {
    "Model": MODEL,
    "Dataset": DATASET,
    "Captions": CAPTION,
    "Network": NETWORK,
    "Optimizer and length": OPTIMIZER,
    "Noise and loss": NOISE_AND_LOSS,
    "Precision and memory": MEMORY,
    "Several devices": DISTRIBUTED,
    "Saving and resuming": SAVING,
    "Previews, logs, validation": WATCHING,
}

OPTIONS: dict[str, Option] = {option.name: option for options in GROUPS.values() for option in options}
