"""`python -m lora_core export --kohya FILE.toml`: a training job as files of sd-scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lora_core.cli import Parser, build, say
from lora_core.cli_flags import add_settings
from lora_core.cli_goal import add_goal
from lora_core.errors import ConfigError, DatasetError, FileError, KeyMismatch
from lora_core.folders import Walk
from lora_core.jobs.train import Subset, TrainJob
from lora_core.kohya_export import exported
from lora_core.kohya_subsets import sources
from lora_core.kohya_toml import toml_text
from lora_core.whole_files import write_text

NAMES = {"dataset_config": "_dataset.toml", "sample_prompts": "_prompts.txt"}


def main(arguments: list[str]) -> int:
    """Write the files and say what they cannot say. Raises ConfigError, FileError."""
    parser = Parser(
        "python -m lora_core export",
        description="Write a training job as sd-scripts' config and dataset config, for its --config_file.",
        allow_abbrev=False,
    )
    parser.add_argument("--kohya", required=True, metavar="FILE.toml", dest="target", help="the config to write")
    parser.add_argument("--config", metavar="JOB.json", help="read settings from a file; flags override it")
    parser.add_argument("--like", metavar="LORA", help="take the settings that a LoRA's metadata tell")
    add_goal(parser)
    add_settings(parser, TrainJob)
    options = parser.parse_args(arguments)
    options.verb = "train"
    for path in write(build(options), Path(options.target)):
        print(path)
    return 0


def write(job: TrainJob, target: Path) -> list[Path]:
    """NAME.toml, NAME_dataset.toml and, with preview prompts, NAME_prompts.txt. Raises ConfigError, FileError."""
    if target.suffix.lower() != ".toml":
        raise ConfigError(f"The config must end in .toml, not {target.name!r}.")
    found = exported(job, on_disk(sources(job)), family_of(job.base))
    for sentence in found.notes:
        say(sentence)
    texts = {"dataset_config": toml_text(found.dataset) if found.dataset else "", "sample_prompts": found.prompts}
    files = {target.with_name(target.stem + NAMES[option]): text for option, text in texts.items() if text}
    named = {option: str(path.absolute()) for option in texts for path in files if path.name.endswith(NAMES[option])}
    files[target] = toml_text({**named, **found.options})
    for path, text in files.items():
        written(path, text)
    return list(reversed(files))


def written(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}.") from error


def on_disk(subsets: list[Subset]) -> list[Subset]:
    """Every folder with pictures as a subset: sd-scripts looks into none below. Folders that are not here stay."""
    found: list[Subset] = []
    for subset in subsets:
        if subset.metadata_file:
            found.append(subset)
            continue
        try:
            walked = Walk().folders(Path(subset.folder), subset)
        except DatasetError:
            found.append(subset)
            continue
        found += [replace(f.subset, folder=str(f.path.absolute())) for f in walked if f.pictures()] or [subset]
    return found


def family_of(base: str) -> str:
    """The base's family, "" where there is no base to look at."""
    from lora_core.architecture import architecture_of

    try:
        return architecture_of(base).family if base and Path(base).exists() else ""
    except (FileError, KeyMismatch):
        return ""
