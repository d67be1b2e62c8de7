"""Settings of pictures and captions."""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.augment import face_range
from lora_core.settings import setting

RESIZE_FILTERS = ("auto", "nearest", "bilinear", "bicubic", "lanczos")
FOCUS = ("middle", "detail", "faces")


@dataclass(frozen=True)
class Subset:
    """One folder of pictures with its own rules; None means "as in the dataset's captions settings"."""

    folder: str
    repeats: int = 1
    class_words: str = ""
    keep_tokens: int | None = None
    shuffle: bool | None = None
    flip: bool | None = None
    caption_prefix: str | None = None
    caption_suffix: str | None = None
    caption_extension: str | None = None
    caption_dropout: float | None = None
    tag_dropout: float | None = None
    class_pictures: bool = False
    masks: str | None = None
    alpha_mask: bool | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int | None = None
    keeps_base: bool = False
    color_shift: bool | None = None
    random_crop: bool | None = None
    face_crop: str | None = None
    resize_filter: str | None = None
    focus: str | None = None
    metadata_file: str | None = None


@dataclass(frozen=True)
class Dataset:
    folder: str = setting(
        "", "Pictures", "Folder with the pictures and their captions; kohya's N_name folders work too.", widget="folder"
    )
    subsets: tuple[Subset, ...] = ()
    held_out: str = setting(
        "",
        "Held-out pictures",
        "Folder with pictures that are never trained on; they measure the held-out loss.",
        widget="folder",
    )
    validation_split: float = setting(
        0.0,
        "Held-out share",
        "Share of the pictures kept out of training to measure the held-out loss.",
        min=0,
        max=0.9,
    )
    width: int = setting(
        512, "Width", "Training width in pixels; with buckets, the area counts.", min=64, max=4096, step=8
    )
    height: int = setting(512, "Height", "Training height in pixels.", min=64, max=4096, step=8)
    buckets: bool = setting(
        True, "Aspect buckets", "Group pictures by aspect ratio instead of cropping all to one shape."
    )
    min_bucket: int = setting(256, "Shortest bucket side", "In pixels.", min=64, max=4096, advanced=True)
    max_bucket: int = setting(1024, "Longest bucket side", "In pixels.", min=64, max=8192, advanced=True)
    bucket_step: int = setting(64, "Bucket step", "Bucket sides are multiples of this.", min=8, max=256, advanced=True)
    no_upscale: bool = setting(False, "Never upscale", "Pictures smaller than the training area keep their size.")
    batch_size: int = setting(1, "Batch size", "Pictures per forward pass.", min=1, max=256)
    repeats: int = setting(
        1, "Repeats", "How often each picture counts in an epoch (kohya folders bring their own).", min=1, max=10000
    )
    flip: bool = setting(False, "Random flip", "Mirror half of the pictures. Off for asymmetric characters and text.")
    more_sizes: str = setting(
        "", "Also at these sizes", "768, 1024: every picture is trained at these sizes, too.", advanced=True
    )
    color_shift: bool = setting(
        False, "Colour variation", "Hue or gamma of a third of the uses change a little.", advanced=True
    )
    random_crop: bool = setting(
        False, "Random crop", "What overhangs the bucket is cut off anywhere, not at both ends.", advanced=True
    )
    face_crop: str = setting(
        "",
        "Crop around faces",
        "2.0,4.0: crops so many times as large as the face, for files named NAME_x_y_width_height (centre and size).",
        advanced=True,
    )
    focus: str = setting(
        "middle",
        "Crop around",
        "What overhangs is cut off at both ends (middle), or so that what stands out (detail) or faces stay (faces: by "
        "OpenCV where it is installed, or by file names as in face_crop).",
        choices=FOCUS,
    )
    variants: int = setting(
        8,
        "Variants of each picture",
        "With colour variation or random crops: so many are encoded once and take turns.",
        min=1,
        max=256,
        advanced=True,
    )
    resize_filter: str = setting(
        "auto",
        "Resize with",
        "auto: area averaging when smaller, else Lanczos.",
        choices=RESIZE_FILTERS,
        advanced=True,
    )
    drop_copies: bool = setting(False, "Leave out copies", "The same file twice counts once.", advanced=True)
    apply_advice: bool = setting(
        False, "Apply safe advice", "What the look at the pictures advises and cannot harm is done.", advanced=True
    )
    metadata_file: str = setting(
        "",
        "Captions in one file",
        "kohya's meta_cap.json or a .jsonl with caption and tags of each picture; only those in it are trained on.",
        widget="file",
        advanced=True,
    )
    masks: str = setting(
        "", "Masks", "Folder with masks named as the pictures: white is learned, black is not.", widget="folder"
    )
    alpha_mask: bool = setting(False, "Transparency is a mask", "Transparent parts of a picture are not learned.")
    class_pictures: str = setting(
        "",
        "Class pictures",
        "Folder with ordinary pictures of the same kind: they keep the base as it is (prior preservation).",
        widget="folder",
    )
    class_prompt: str = setting(
        "", "Class prompt", "What the base draws where class pictures are missing, such as: a photo of a dog."
    )
    class_count: int = setting(
        50, "Class pictures to have", "With a class prompt: what is there counts.", min=1, max=1000, advanced=True
    )
    prior_loss_weight: float = setting(1.0, "Weight of class pictures", min=0, max=10, advanced=True)
    class_target: str = setting(
        "pictures",
        "Class pictures teach",
        "pictures: what they show; base: what the base itself makes of them, so that nothing is learned from them.",
        choices=("pictures", "base"),
        advanced=True,
    )

    def problems(self) -> list[str]:
        """Settings that cannot be read, and sizes that no latents fit."""
        found: list[str] = []
        for text in [self.face_crop, *(s.face_crop or "" for s in self.subsets)]:
            try:
                face_range(text)
            except ValueError:
                found.append(f"The crop around faces (face_crop) must be two numbers such as 2.0,4.0, not {text!r}.")
        unknown = {s.focus for s in self.subsets} - {None, *FOCUS}
        found += [f"A subset's focus must be one of {', '.join(FOCUS)}, not {name!r}." for name in unknown]
        sides = [side for s in self.subsets for side in (s.width, s.height) if side is not None]
        found += [f"A subset's size of {n} must be a multiple of 8 of at least 64." for n in sides if n % 8 or n < 64]
        try:
            wrong = [side for side in self.sides() if side % 8 or not 64 <= side <= 4096]
            found += [f"A size (more_sizes) of {side} must be a multiple of 8 from 64 to 4096." for side in wrong]
        except ValueError:
            found.append(f"More sizes (more_sizes) must be numbers such as 768, 1024, not {self.more_sizes!r}.")
        return found

    def sides(self) -> tuple[int, ...]:
        """The further sizes of every picture. Raises ValueError."""
        return tuple(int(part) for part in self.more_sizes.split(",") if part.strip())


@dataclass(frozen=True)
class Captions:
    trigger: str = setting("", "Trigger word", "Put in front of every caption that does not hold it already.")
    caption_extension: str = setting(
        "", "Caption extension", "Empty: .txt, .caption, .json and metadata.jsonl are all looked for.", advanced=True
    )
    trigger_first: bool = setting(
        False, "Trigger to the front", "In captions that hold it elsewhere, too.", advanced=True
    )
    shuffle: bool = setting(True, "Shuffle tags", "Shuffle the comma-separated tags at each use.")
    keep_tokens: int = setting(
        1, "Keep first tags", "How many tags at the front stay in place (the trigger).", min=0, max=255
    )
    separator: str = setting(",", "Tag separator", "What stands between tags.", advanced=True)
    caption_prefix: str = setting("", "Caption prefix", "Put in front of every caption.", advanced=True)
    caption_suffix: str = setting("", "Caption suffix", "Put behind every caption.", advanced=True)
    caption_dropout: float = setting(
        0.0, "Caption dropout", "Chance to train a picture with an empty caption.", min=0, max=1
    )
    tag_dropout: float = setting(0.0, "Tag dropout", "Chance to leave out each tag behind the kept ones.", min=0, max=1)
    dropout_every_epochs: int = setting(
        0,
        "Empty captions every N epochs",
        "In those epochs every caption is empty; 0 = off.",
        min=0,
        max=100_000,
        advanced=True,
    )
    keep_separator: str = setting(
        "",
        "Keep separator",
        "Such as |||: what stands before it (and behind a second one) stays in place.",
        advanced=True,
    )
    secondary_separator: str = setting(
        "", "Secondary separator", "Such as ;;;: joins tags that are shuffled and dropped together.", advanced=True
    )
    wildcards: bool = setting(
        False, "Wildcards", "{red|blue} takes one of them at each use; of several lines, one is taken.", advanced=True
    )
    tag_warmup_least: int = setting(
        1,
        "Tags at the start",
        "With a tag warm-up: how many tags the first captions have.",
        min=1,
        max=1000,
        advanced=True,
    )
    tag_warmup: float = setting(
        0.0,
        "Tag warm-up",
        "Below 1: share of all steps; from 1: steps, until captions are whole.",
        min=0,
        max=10_000_000,
        advanced=True,
    )
    weighted: bool = setting(
        False, "Weighted captions", "(tag:1.2) in a caption weighs it as in a prompt.", advanced=True
    )
    max_tokens: int = setting(
        75, "Caption length", "75, 150 or 225 tokens; longer captions are cut.", min=75, max=225, step=75
    )
    clip_skip: int = setting(1, "Clip skip", "1 = last layer of the text encoder. SDXL ignores it.", min=1, max=12)
