import importlib.util
import json
import math
from pathlib import Path

import pytest

from lora_core.errors import ConfigError, FileError
from lora_core.jobs import Subset, TrainJob
from lora_core.kohya_config import read_kohya
from lora_core.kohya_dataset import DATASET_OPTIONS, SUBSET_FIELDS
from lora_core.kohya_files import parse_toml
from lora_core.kohya_gui import RENAMED
from lora_core.kohya_network import NETWORK_ARGUMENTS
from lora_core.kohya_optimizer import OPTIMIZERS
from lora_core.kohya_options import OPTIONS
from lora_core.settings import describe

ROOT = Path(__file__).resolve().parents[1]
TRUTH = {
    name: json.loads(default)
    for name, default in (
        line.split("\t") for line in (ROOT / "tests/data/sd_scripts_options.txt").read_text().splitlines()
    )
}
"""Options and defaults as sd-scripts' own argument parsers list them."""


def leaf(job, name):
    value = job
    for part in next(s.path for s in describe(TrainJob) if s.name == name):
        value = getattr(value, part)
    return value


def read(tmp_path, options, name="config.json"):
    path = tmp_path / name
    path.write_text(json.dumps(options), "utf-8")
    return read_kohya(path)


def test_the_table_holds_every_option_of_the_trainer_with_its_default():
    assert len(TRUTH) == 196
    assert {name: option.default for name, option in OPTIONS.items()} == TRUTH


def test_every_row_leads_to_a_setting_or_says_why_not():
    ours = {s.name for s in describe(TrainJob)} | {"subsets"}
    for option in OPTIONS.values():
        assert set(option.settings) <= ours, option.name
        assert option.settings or option.sentence, option.name
        assert option.how in ("done", "differently") or (option.sentence and not option.settings), option.name


VALUES = {bool: True, int: 3, float: 0.25, str: "asked", type(None): "7", list: ["a"]}


@pytest.mark.parametrize("name", [n for n, o in OPTIONS.items() if o.how != "done"])
def test_an_option_that_is_not_followed_is_told(tmp_path, name):
    value = VALUES[type(OPTIONS[name].default)]
    _, notes = read(tmp_path, {"seed": 1, name: value})
    assert len(notes) == 1 and name in notes[0]
    assert OPTIONS[name].how == "not needed" or OPTIONS[name].sentence in notes[0]


@pytest.mark.parametrize("name", ["wandb_api_key", "huggingface_token"])
def test_secrets_are_not_repeated(tmp_path, name):
    _, notes = read(tmp_path, {"seed": 1, name: "hf_sEcReT"})
    assert name in notes[0] and "sEcReT" not in str(notes)


DONE = [
    ({"pretrained_model_name_or_path": "x.safetensors"}, {"base": "x.safetensors"}),
    ({"v2": True}, {}),
    ({"v_parameterization": True}, {"prediction": "v"}),
    ({"vae": "v.pt"}, {"vae": "v.pt"}),
    ({"train_data_dir": "pics"}, {"folder": "pics"}),
    ({"train_data_dir": "p", "in_json": "m.json", "dataset_repeats": 3}, {"metadata_file": "m.json", "repeats": 3}),
    ({"train_batch_size": 4}, {"batch_size": 4}),
    ({"resolution": "512,768"}, {"width": 512, "height": 768}),
    ({"resolution": 640}, {"width": 640, "height": 640}),
    ({"resolution": [512, 640]}, {"width": 512, "height": 640}),
    ({"enable_bucket": True}, {"buckets": True}),
    ({"min_bucket_reso": 128}, {"min_bucket": 128}),
    ({"max_bucket_reso": 2048}, {"max_bucket": 2048}),
    ({"bucket_reso_steps": 32}, {"bucket_step": 32}),
    ({"bucket_no_upscale": True}, {"no_upscale": True}),
    ({"flip_aug": True}, {"flip": True}),
    ({"color_aug": True, "random_crop": True}, {"color_shift": True, "random_crop": True}),
    ({"face_crop_aug_range": "2.0,4.0"}, {"face_crop": "2.0,4.0"}),
    ({"resize_interpolation": "cubic"}, {"resize_filter": "bicubic"}),
    ({"caption_extension": ".txt"}, {"caption_extension": ".txt"}),
    ({"caption_extention": ".cap"}, {"caption_extension": ".cap"}),
    ({"shuffle_caption": True}, {"shuffle": True}),
    ({"caption_separator": ";"}, {"separator": ";"}),
    ({"keep_tokens": 2}, {"keep_tokens": 2}),
    ({"caption_prefix": "a "}, {"caption_prefix": "a "}),
    ({"caption_suffix": " b"}, {"caption_suffix": " b"}),
    ({"caption_dropout_rate": 0.1}, {"caption_dropout": 0.1}),
    ({"caption_tag_dropout_rate": 0.2}, {"tag_dropout": 0.2}),
    ({"max_token_length": 225}, {"max_tokens": 225}),
    ({"clip_skip": 2}, {"clip_skip": 2}),
    ({"network_module": "networks.lora"}, {"conv_rank": 0}),
    ({"network_dim": 32}, {"rank": 32, "alpha": 1.0}),
    ({"network_dim": 32, "network_alpha": 0}, {"rank": 32, "alpha": 32.0}),
    ({"network_train_unet_only": True}, {"train_unet": True, "train_text_encoder": False}),
    ({"network_train_text_encoder_only": True}, {"train_unet": False, "train_text_encoder": True}),
    ({"network_weights": "w", "dim_from_weights": True}, {"start_from": "w"}),
    ({"network_args": ["conv_dim=8", "conv_alpha=4"]}, {"conv_rank": 8, "conv_alpha": 4.0}),
    ({"network_args": ["conv_dim=8"]}, {"conv_rank": 8, "conv_alpha": 1.0}),
    (
        {"network_module": "lycoris.kohya", "network_args": ["preset=attn-only", "conv_dim=4"]},
        {"include": "*attn*", "conv_rank": 0, "train_text_encoder": True},
    ),
    (
        {"network_module": "lycoris.kohya", "network_args": ["preset=unet-convblock-only", "conv_dim=4"]},
        {"include": "*resnets*, *samplers*", "conv_rank": 4, "train_text_encoder": False},
    ),
    ({"learning_rate": 1e-4}, {"learning_rate": 1e-4, "text_encoder_lr": 1e-4, "text_encoder_2_lr": 1e-4}),
    ({"learning_rate": 1e-4, "unet_lr": 2e-4}, {"learning_rate": 2e-4, "text_encoder_lr": 1e-4}),
    ({"text_encoder_lr": [1e-5, 2e-5]}, {"text_encoder_lr": 1e-5, "text_encoder_2_lr": 2e-5}),
    ({"text_encoder_lr": 0}, {"train_text_encoder": False}),
    ({"optimizer_type": "AdamW8bit"}, {"optimizer": "adamw8bit", "weight_decay": 0.01}),
    ({"optimizer_type": "torch.optim.Adam"}, {"optimizer": "adam", "weight_decay": 0.0}),
    ({"optimizer_type": "Lion"}, {"optimizer": "lion", "beta2": None, "weight_decay": 0.0}),
    (
        {"optimizer_type": "AdamW", "optimizer_args": ["weight_decay=0.1", "betas=.9,.99"]},
        {"weight_decay": 0.1, "beta2": 0.99},
    ),
    (
        {"optimizer_type": "Prodigy", "optimizer_args": "use_bias_correction=True d_coef=2"},
        {
            "optimizer": "prodigy",
            "optimizer_args": ("use_bias_correction = True", "safeguard_warmup = False", "d_coef = 2"),
        },
    ),
    (
        {"optimizer_type": "Adafactor", "optimizer_args": ["scale_parameter=False", "relative_step=False"]},
        {"optimizer": "adafactor", "optimizer_args": ("relative_step = False", "scale_parameter = False")},
    ),
    ({"optimizer_type": "Adafactor"}, {"optimizer_args": ("relative_step = True",)}),
    ({"optimizer_type": "PagedLion8bit"}, {"optimizer": "pagedlion8bit"}),
    ({"optimizer_type": "DAdaptation"}, {"optimizer": "dadaptadampreprint", "weight_decay": 0.0}),
    (
        {"optimizer_type": "DAdaptAdam", "optimizer_args": ["growth_rate=1.02"]},
        {"optimizer": "dadaptadam", "optimizer_args": ("growth_rate = 1.02",)},
    ),
    (
        {"optimizer_type": "pytorch_optimizer.CAME", "optimizer_args": ["betas=.9,.99,.999"]},
        {
            "optimizer_class": "pytorch_optimizer.CAME",
            "weight_decay": None,
            "optimizer_args": ("betas = .9,.99,.999",),
        },
    ),
    ({"optimizer_type": "ASGD"}, {"optimizer_class": "ASGD"}),
    (
        {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ["step_rules=1:10,0.1"]},
        {"schedule": "piecewise_constant", "schedule_args": ("step_rules = 1:10,0.1",)},
    ),
    (
        {"lr_scheduler_type": "CosineAnnealingLR", "lr_scheduler_args": ["T_max=100"]},
        {"schedule_class": "CosineAnnealingLR", "schedule_args": ("T_max = 100",)},
    ),
    ({"lr_scheduler": "inverse_sqrt", "lr_scheduler_timescale": 50}, {"schedule_args": ("timescale = 50",)}),
    ({"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 0.3}, {"decay_steps": 0.3}),
    ({"network_dropout": 0.1}, {"dropout": 0.1}),
    ({"scale_weight_norms": 1}, {"max_norm": 1.0}),
    (
        {"base_weights": ["a.safetensors", "b.safetensors"], "base_weights_multiplier": [0.5]},
        {"base_loras": ("a.safetensors = 0.5", "b.safetensors = 1.0")},
    ),
    ({"network_weights": "w"}, {"start_from": "w", "rank_from_start": False}),
    (
        {"network_module": "lycoris.kohya", "network_args": ["algo=lokr", "factor=8", "decompose_both=True"]},
        {"algorithm": "lokr", "lokr_factor": 8, "lokr_both": True, "conv_rank": 4},
    ),
    (
        {"network_module": "lycoris.kohya", "network_args": ["algo=lokr"], "network_dim": 100000},
        {"algorithm": "lokr", "rank": 1024, "conv_rank": 1024},
    ),
    ({"network_module": "lycoris.kohya", "network_args": ["algo=locon", "dora_wd=True"]}, {"algorithm": "dora"}),
    ({"network_module": "lycoris.kohya", "network_args": ["algo=loha", "module_dropout=0.1"]}, {"module_dropout": 0.1}),
    ({"network_module": "lycoris.kohya", "network_args": ["algo=diag-oft"]}, {"algorithm": "oft"}),
    (
        {"network_args": ["block_dims=1,2", "conv_block_alphas=3,4", "rank_dropout=0.2", "rs_lora=True"]},
        {"block_rank": "1,2", "block_conv_alpha": "3,4", "rank_dropout": 0.2, "rs_lora": True},
    ),
    (
        {"network_args": ["down_lr_weight=0.1,0.5", "mid_lr_weight=2", "block_lr_zero_threshold=0.2"]},
        {"block_lr": "0,0.5,1,1,1,1,1,1,1,1,1,1,2,1,1,1,1,1,1,1,1,1,1,1,1"},
    ),
    (
        {"network_args": ["mid_lr_weight=1,1,1", "up_lr_weight=3"]},
        {"block_lr": "1,1,1,1,1,1,1,1,1,1,1,1,3,1,1,1,1,1,1,1,1"},
    ),
    ({"network_args": ["loraplus_lr_ratio=4"]}, {"lora_plus_ratio": 4.0, "lora_plus_text_ratio": None}),
    ({"network_args": ["loraplus_unet_lr_ratio=4"]}, {"lora_plus_ratio": 4.0, "lora_plus_text_ratio": 1.0}),
    ({"use_8bit_adam": True}, {"optimizer": "adamw8bit"}),
    ({"use_lion_optimizer": True}, {"optimizer": "lion"}),
    ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.05}, {"schedule": "cosine", "warmup": 0.05}),
    ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3}, {"cycles": 3}),
    ({"lr_scheduler_power": 2}, {"power": 2.0}),
    ({"lr_scheduler_min_lr_ratio": 0.1}, {"min_lr_ratio": 0.1}),
    ({"max_train_steps": 500}, {"steps": 500}),
    ({"max_train_steps": 500, "max_train_epochs": 7}, {"steps": 0, "epochs": 7}),
    ({"max_grad_norm": 0.5}, {"max_grad_norm": 0.5}),
    ({"gradient_accumulation_steps": 4}, {"accumulation": 4}),
    ({"reg_data_dir": "r", "prior_loss_weight": 0.5}, {"class_pictures": "r", "prior_loss_weight": 0.5}),
    ({"alpha_mask": True, "conditioning_data_dir": "m", "masked_loss": True}, {"alpha_mask": True, "masks": "m"}),
    (
        {"keep_tokens_separator": "|||", "secondary_separator": ";;;", "enable_wildcard": True},
        {"keep_separator": "|||", "secondary_separator": ";;;", "wildcards": True},
    ),
    (
        {
            "caption_dropout_every_n_epochs": 4,
            "token_warmup_min": 2,
            "token_warmup_step": 50,
            "weighted_captions": True,
        },
        {"dropout_every_epochs": 4, "tag_warmup_least": 2, "tag_warmup": 50.0, "weighted": True},
    ),
    ({"noise_offset": 0.0357}, {"noise_offset": 0.0357}),
    ({"noise_offset": 0.1, "noise_offset_random_strength": True}, {"noise_offset_random": True}),
    ({"noise_offset": 0.1, "adaptive_noise_scale": 0.01}, {"adaptive_noise_scale": 0.01}),
    (
        {"multires_noise_iterations": 6, "multires_noise_discount": 0.4},
        {"multires_iterations": 6, "multires_discount": 0.4},
    ),
    (
        {"ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True},
        {"ip_noise_gamma": 0.1, "ip_noise_gamma_random": True},
    ),
    (
        {"debiased_estimation_loss": True, "scale_v_pred_loss_like_noise_pred": True, "v_pred_like_loss": 0.5},
        {"debiased_estimation": True, "scale_v_like_epsilon": True, "v_like_loss": 0.5},
    ),
    (
        {"loss_type": "smooth_l1", "huber_schedule": "exponential", "huber_c": 0.2, "huber_scale": 2},
        {"loss": "smooth_l1", "huber_schedule": "exponential", "huber_c": 0.2, "huber_scale": 2.0},
    ),
    ({"zero_terminal_snr": True}, {"zero_terminal_snr": "on"}),
    ({"min_timestep": 100, "max_timestep": 900}, {"min_timestep": 100, "max_timestep": 900}),
    ({"min_snr_gamma": 5}, {"min_snr_gamma": 5.0}),
    ({"mixed_precision": "bf16"}, {"dtype": "bf16"}),
    ({"gradient_checkpointing": True}, {"gradient_checkpointing": True}),
    ({"cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": True}, {"cache_text": True}),
    ({"output_dir": "out", "output_name": "n"}, {"output_dir": "out", "name": "n"}),
    ({"save_precision": "float"}, {"save_precision": "fp32"}),
    ({"save_every_n_epochs": 2}, {"save_every_epochs": 2}),
    ({"save_every_n_steps": 50}, {"save_every_steps": 50}),
    ({"no_metadata": True}, {"metadata": "minimal"}),
    ({"training_comment": "hi"}, {"comment": "hi"}),
    ({"sample_every_n_steps": 9}, {"preview_every_steps": 9}),
    ({"sample_every_n_epochs": 2, "sample_at_first": True}, {"preview_every_epochs": 2, "preview_first": True}),
    ({"sample_sampler": "k_dpm_2_a"}, {"preview_sampler": "dpm2_ancestral"}),
    ({"save_n_epoch_ratio": 5}, {"save_parts": 5}),
    ({"save_last_n_epochs": 3, "save_every_n_epochs": 1}, {"keep_last": 3}),
    ({"save_last_n_steps": 200, "save_every_n_steps": 100}, {"keep_last": 3}),
    (
        {
            **{"metadata_title": "T", "metadata_author": "A", "metadata_description": "D", "metadata_license": "L"},
            **{"metadata_tags": "a,b", "metadata_usage_hint": "U", "metadata_thumbnail": "t.png"},
            **{"metadata_merged_from": "M", "metadata_trigger_phrase": "P"},
        },
        {
            **{"title": "T", "author": "A", "description": "D", "license": "L", "tags": "a,b", "usage_hint": "U"},
            **{"thumbnail": "t.png", "merged_from": "M", "trigger_phrase": "P"},
        },
    ),
    ({"validate_every_n_epochs": 2}, {"validate_every_epochs": 2}),
    ({"validation_split": 0.1}, {"validation_split": 0.1}),
    ({"validate_every_n_steps": 11}, {"validate_every_steps": 11}),
]


@pytest.mark.parametrize(("options", "expected"), DONE, ids=[" ".join(o) for o, _ in DONE])
def test_an_option_that_is_followed_sets_its_setting_and_says_nothing(tmp_path, options, expected):
    job, notes = read(tmp_path, {"seed": 1, **options})
    assert notes == []
    assert {name: leaf(job, name) for name in expected} == expected


def test_every_option_called_done_is_tried_above_or_has_its_own_test():
    tried = {name for options, _ in DONE for name in options}
    own = {"dataset_config", "seed", "sample_prompts", "full_fp16"}
    assert {n for n, o in OPTIONS.items() if o.how == "done"} <= tried | own


def test_what_is_not_said_is_as_in_the_trainer_and_not_as_our_defaults(tmp_path):
    job, notes = read(tmp_path, {"output_dir": "o"})
    expected = {
        **{"rank": 4, "alpha": 1.0, "learning_rate": 2e-6, "steps": 1600, "min_snr_gamma": 0.0, "shuffle": False},
        **{"keep_tokens": 0, "buckets": False, "schedule": "constant", "warmup": 0.0, "dtype": "fp32", "seed": 0},
        **{"save_precision": "fp32", "name": "last", "batch_size": 1, "caption_extension": "", "max_timestep": 1000},
    }
    assert {name: leaf(job, name) for name in expected} == expected
    assert len(notes) == 1 and "seed" in notes[0].lower()


TOLD = [
    ({"network_module": "lycoris.kohya", "network_args": ["algo=boft", "use_tucker=True"]}, ["boft", "use_tucker"]),
    ({"network_module": "networks.dylora", "network_args": ["unit=4"]}, ["dylora", "resize", "unit"]),
    ({"network_module": "networks.lora_fa"}, ["lora_fa"]),
    ({"network_module": "lycoris.kohya", "network_args": ["preset=mine.toml"]}, ["mine.toml"]),
    ({"network_args": ["down_lr_weight=waves", "nonsense=1"]}, ["waves", "nonsense"]),
    ({"network_module": "lycoris.kohya", "network_args": ["algo=loha", "rank_dropout=0.1"]}, ["belongs to lora"]),
    ({"lr_scheduler": "no_such"}, ["stays constant"]),
    ({"lr_scheduler": "cosine", "lr_scheduler_args": ["a=1"]}, ["takes none"]),
    ({"lr_scheduler": "constant", "lr_warmup_steps": 100}, ["no warm-up"]),
    ({"pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5"}, ["Nothing is downloaded"]),
    ({"bucket_reso_steps": 1}, ["multiples of 64"]),
    ({"save_precision": "fp8"}, ["fp32 is used"]),
    ({"network_dim": 100000}, ["no rank"]),
    ({"no_such_option": 1, "another": 2}, ["no_such_option, another"]),
]


@pytest.mark.parametrize(("options", "words"), TOLD)
def test_values_that_are_not_followed_are_told(tmp_path, options, words):
    job, notes = read(tmp_path, {"seed": 1, **options})
    text = "\n".join(notes)
    assert all(word in text for word in words), text
    assert [p for p in job.problems() if "named" not in p] == []


def test_values_of_the_wrong_kind_are_all_named(tmp_path):
    with pytest.raises(ConfigError) as fault:
        read(tmp_path, {"network_dim": "big", "keep_tokens": 1.5, "flip_aug": "maybe", "resolution": "1,2,3"})
    text = str(fault.value)
    assert len(fault.value.problems) == 4 and all(
        w in text for w in ("network_dim", "keep_tokens", "flip_aug", "1,2,3")
    )


TOML = """
[model_arguments]
pretrained_model_name_or_path = "base.safetensors"
[training_arguments]
seed = 42
network_dim = 16
mixed_precision = "fp16"
dataset_config = "dataset.toml"
xformers = true
"""

DATASET = """
[general]
enable_bucket = true
shuffle_caption = true
caption_extension = ".txt"

[[datasets]]
resolution = [512, 768]
batch_size = 3
keep_tokens = 1

  [[datasets.subsets]]
  image_dir = "faces"
  num_repeats = 10
  class_tokens = "armin person"
  keep_tokens = 2

  [[datasets.subsets]]
  image_dir = "class"
  is_reg = true

[[datasets]]
resolution = 1024
  [[datasets.subsets]]
  image_dir = "faces"
  [[datasets.subsets]]
  image_dir = "more"
  color_aug = true
  custom_attributes = { x = 1 }
  surprise = 3
"""

needs_toml = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("tomllib", "tomli")), reason="no TOML reader"
)


@needs_toml
def test_a_toml_config_with_sections_and_a_dataset_beside_it(tmp_path):
    (tmp_path / "config.toml").write_text(TOML, "utf-8")
    (tmp_path / "dataset.toml").write_text(DATASET, "utf-8")
    (tmp_path / "faces").mkdir()
    job, notes = read_kohya(tmp_path / "config.toml")
    assert (job.base, job.seed, job.network.rank, job.memory.dtype) == ("base.safetensors", 42, 16, "fp16")
    assert (job.dataset.width, job.dataset.height, job.dataset.batch_size) == (512, 768, 3)
    assert job.dataset.buckets and job.dataset.folder == ""
    faces, ordinary, large, more = job.dataset.subsets
    assert (large.folder, large.width, large.height) == (faces.folder, 1024, 1024) and faces.width is None
    assert ordinary.folder == "class" and ordinary.class_pictures and not faces.class_pictures
    assert faces == Subset(
        str(tmp_path / "faces"), 10, "armin person", keep_tokens=2, shuffle=True, caption_extension=".txt"
    )
    assert more.folder == "more" and more.keep_tokens is None and more.color_shift and more.width == 1024
    text = "\n".join(notes)
    for words in ("custom_attributes", "surprise", "xformers"):
        assert words in text


@needs_toml
def test_a_dataset_config_alone_keeps_our_other_defaults(tmp_path):
    path = tmp_path / "dataset.toml"
    path.write_text(DATASET, "utf-8")
    job, _ = read_kohya(path)
    assert job.dataset.batch_size == 3 and len(job.dataset.subsets) == 4
    assert job.network == TrainJob().network and job.optimization == TrainJob().optimization


def test_a_dataset_config_may_be_json_and_needs_a_subset(tmp_path):
    job, _ = read(tmp_path, {"datasets": [{"subsets": [{"image_dir": "a"}]}]})
    assert [s.folder for s in job.dataset.subsets] == ["a"]
    with pytest.raises(ConfigError, match="image_dir"):
        read(tmp_path, {"datasets": [{"subsets": [{"num_repeats": 2}]}]})


def test_masks_and_captions_of_subsets(tmp_path):
    subset = {"image_dir": "a", "conditioning_data_dir": "m", "alpha_mask": True, "keep_tokens_separator": "|||"}
    more = {"enable_wildcard": True, "secondary_separator": ";;;", "caption_dropout_every_n_epochs": 3}
    job, _ = read(tmp_path, {"datasets": [{"subsets": [subset | more | {"token_warmup_step": 0.1}]}]})
    (found,) = job.dataset.subsets
    assert (found.masks, found.alpha_mask) == ("m", True)
    c = job.captions
    assert (c.keep_separator, c.wildcards, c.secondary_separator) == ("|||", True, ";;;")
    assert (c.dropout_every_epochs, c.tag_warmup) == (3, 0.1)


def test_the_keys_of_dataset_configs_stand_for_options():
    assert set(DATASET_OPTIONS.values()) <= OPTIONS.keys()
    assert {field for field, _ in SUBSET_FIELDS.values()} <= set(Subset.__dataclass_fields__)


def test_prompts_of_a_text_file(tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("# none\n1girl, hat --n bad --w 512 --s 28 --l 6.5\n\na dog\n", "utf-8")
    job, notes = read(tmp_path, {"seed": 1, "sample_prompts": str(prompts)})
    assert job.saves.preview_prompts == ("1girl, hat --n bad --w 512 --s 28 --l 6.5", "a dog")
    assert (job.saves.preview_steps, job.saves.preview_cfg) == (30, 7.5)  # as sd-scripts without --s and --l
    assert notes == []


def test_flags_of_prompts_that_are_not_known_are_told(tmp_path):
    text = "a cat --cn c.png --ss k_euler_a --w 64\na dog --ss none --g 3"
    job, notes = read(tmp_path, {"seed": 1, "sample_prompts": text})
    assert job.saves.preview_prompts == ("a cat --ss k_euler_a --w 64", "a dog")
    assert len(notes) == 3 and all(any(f"--{flag} =" in n for n in notes) for flag in ("cn", "ss", "g"))


def test_prompts_of_a_json_file_and_a_file_that_is_not_there(tmp_path):
    prompts = tmp_path / "p.json"
    prompts.write_text(json.dumps([{"prompt": "a cat", "sample_steps": 12}, "a dog"]), "utf-8")
    job, _ = read(tmp_path, {"seed": 1, "sample_prompts": str(prompts)})
    assert job.saves.preview_prompts == ("a cat --s 12", "a dog")
    _, notes = read(tmp_path, {"seed": 1, "sample_prompts": "gone.txt"})
    assert "gone.txt" in notes[0]


@needs_toml
def test_prompts_of_a_toml_file(tmp_path):
    prompts = tmp_path / "p.toml"
    prompts.write_text(
        '[prompt]\nscale = 5\n[[prompt.subset]]\nprompt = "x"\n[[prompt.subset]]\nprompt = "y"\n', "utf-8"
    )
    job, _ = read(tmp_path, {"seed": 1, "sample_prompts": str(prompts)})
    assert job.saves.preview_prompts == ("x --l 5", "y --l 5")


def test_full_precision_names_set_the_base(tmp_path):
    job, notes = read(tmp_path, {"seed": 1, "full_fp16": True, "mixed_precision": "bf16"})
    assert job.memory.dtype == "fp16" and "fp32" in notes[0]


GUI = {
    "LoRA_type": "Kohya LoCon",
    "max_resolution": "768,512",
    "optimizer": "AdamW8bit",
    "optimizer_args": 'weight_decay=0.05 "betas=0.9,0.95"',
    "network_dim": 32,
    "network_alpha": 16,
    "conv_dim": 8,
    "conv_alpha": 4,
    "epoch": 12,
    "max_train_epochs": "",
    "max_train_steps": 0,
    "lr_warmup": 10,
    "lr_scheduler": "cosine",
    "lr_scheduler_num_cycles": "",
    "learning_rate": "0.0001",
    "unet_lr": 0.0001,
    "text_encoder_lr": "5e-05",
    "seed": "1234",
    "xformers": "xformers",
    "noise_offset_type": "Original",
    "noise_offset": 0.05,
    "multires_noise_iterations": 8,
    "multires_noise_discount": 0.3,
    "min_timestep": False,
    "max_timestep": 0,
    "sdxl": True,
    "sdxl_no_half_vae": True,
    "use_cp": True,
    "factor": 6,
    "num_processes": 1,
    "stop_text_encoder_training_pct": 0,
    "t5xxl_dtype": "bf16",
    "sample_prompts": "a cat --w 512\na dog",
}


def test_a_preset_of_the_gui(tmp_path):
    job, notes = read(tmp_path, GUI)
    expected = {
        **{"width": 768, "height": 512, "optimizer": "adamw8bit", "weight_decay": 0.05, "beta2": 0.95, "rank": 32},
        **{"alpha": 16.0, "conv_rank": 8, "conv_alpha": 4.0, "epochs": 12, "steps": 0, "warmup": 0.1, "cycles": 1},
        **{"learning_rate": 1e-4, "text_encoder_lr": 5e-5, "seed": 1234, "noise_offset": 0.05, "min_timestep": 0},
        **{"max_timestep": 1000, "preview_prompts": ("a cat --w 512", "a dog")},
    }
    assert {name: leaf(job, name) for name in expected} == expected
    assert len(notes) == 2, notes
    text = "\n".join(notes)
    assert "no_half_vae" in text and "xformers" in text and "t5xxl_dtype" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"LoRA_type": "Standard"}, {"conv_rank": 0}),
        ({"LoRA_type": "LyCORIS/LoCon"}, {"conv_rank": 8, "conv_alpha": 4.0}),
        ({"text_encoder_lr": 0}, {"train_unet": True, "train_text_encoder": False}),
        ({"unet_lr": 0}, {"train_unet": False, "train_text_encoder": True, "text_encoder_lr": 5e-5}),
        ({"unet_lr": 0, "text_encoder_lr": 0}, {"train_unet": True, "train_text_encoder": True, "learning_rate": 1e-4}),
        ({"max_train_steps": 400}, {"steps": 400}),
        ({"max_train_epochs": "7", "max_train_steps": 400}, {"steps": 0, "epochs": 7}),
        ({"lr_scheduler": "cosine_with_restarts"}, {"cycles": 12}),
        ({"noise_offset_type": "Multires"}, {"noise_offset": 0.0, "multires_iterations": 8}),
        (
            {"additional_parameters": "--network_dim 8 --flip_aug --optimizer_args a=1 betas=.9,.9"},
            {"rank": 8, "flip": True},
        ),
        ({"additional_parameters": "--caption_suffix='a b'"}, {"caption_suffix": "a b"}),
    ],
)
def test_habits_of_the_gui(tmp_path, changes, expected):
    job, _ = read(tmp_path, {**GUI, **changes})
    assert {name: leaf(job, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"LoRA_type": "LyCORIS/LoKr"}, ["use_cp"]),
        ({"LoRA_type": "Kohya DyLoRA"}, ["dylora"]),
        ({"stop_text_encoder_training_pct": 50, "num_processes": 2}, ["stop_text", "num_processes"]),
        ({"brand_new_box": 1}, ["brand_new_box"]),
        ({"additional_parameters": "stray --what_is_this 1"}, ["stray", "what_is_this"]),
    ],
)
def test_what_the_gui_asks_for_in_vain_is_told(tmp_path, changes, words):
    text = "\n".join(read(tmp_path, {**GUI, **changes})[1])
    assert all(word in text for word in words), text


@pytest.mark.parametrize("changes", [{"LoRA_type": "Flux1"}, {"sd3_checkbox": True}])
def test_presets_for_other_model_families_are_refused(tmp_path, changes):
    with pytest.raises(ConfigError, match="SDXL"):
        read(tmp_path, {**GUI, **changes})


def test_renamed_options_of_the_gui_exist():
    assert set(RENAMED.values()) <= OPTIONS.keys()


FILES = [("gone.toml", None, "gone.toml"), ("a.json", "{", "JSON"), ("b.json", "[1]", "named options")]
FILES += [("c.toml", "a = = 1", "TOML")] if importlib.util.find_spec("tomllib") else []


@pytest.mark.parametrize(("name", "content", "words"), FILES)
def test_files_that_are_no_configs_are_a_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=words):
        read_kohya(tmp_path / name)


def test_without_a_toml_reader_the_sentence_says_what_to_do(monkeypatch):
    import sys

    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"tomli.*\.json"):
        parse_toml("a = 1")


def test_the_page_of_the_docs_is_what_the_tables_say():
    spec = importlib.util.spec_from_file_location("write_kohya_options", ROOT / "tools/write_kohya_options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/kohya_options.md").read_text("utf-8")
    assert page == module.page(), "run tools/write_kohya_options.py"
    assert all(f"`{name}`" in page for name in [*TRUTH, *NETWORK_ARGUMENTS, *filter(None, OPTIMIZERS)])


@pytest.mark.parametrize(("kind", "count", "middle"), [("sd15", 12, 1), ("sdxl", 9, 3)])
def test_curves_over_the_blocks_follow_the_base(tmp_path, kind, count, middle):
    tiny = pytest.importorskip("tiny", reason="needs the engine")
    args = ["down_lr_weight=cosine", "up_lr_weight=linear+0.25", "block_lr_zero_threshold=0.1"]
    job, notes = read(tmp_path, {"pretrained_model_name_or_path": str(tiny.checkpoint(kind)), "network_args": args})
    found = [float(n) for n in leaf(job, "block_lr").split(",")]
    places = [i / (count - 1) for i in range(count)]
    down = [math.cos(math.pi * p / 2) for p in places]
    wanted = [d if d > 0.1 else 0 for d in down] + [1.0] * middle + [p + 0.25 for p in places]
    assert found == pytest.approx(wanted, abs=1e-5) and not any("lr_weight" in note for note in notes)
