"""`python -m lora_core caption FOLDER`: captions for pictures that have none, by a program or model of the user."""

from __future__ import annotations

from lora_core.captioning import by_command, caption_folder
from lora_core.cli import Parser, say


def main(arguments: list[str]) -> int:
    """Write the captions; 1 when a picture could not be captioned. Raises ConfigError, DatasetError, EngineMissing."""
    parser = Parser(
        "python -m lora_core caption",
        description="Write .txt captions beside pictures that have none. Nothing is downloaded or overwritten.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--command", metavar="LINE", help="run for each picture, {picture} is its path; it prints the text"
    )
    how.add_argument("--model", metavar="FILE.onnx", help="a tagging model on this machine; needs onnxruntime")
    parser.add_argument("--tags", metavar="FILE", help="the model's tags: selected_tags.csv, or one a line")
    parser.add_argument("--threshold", type=float, default=0.35, metavar="X", help="least probability of a tag")
    parser.add_argument("--trigger", default="", metavar="TEXT", help="put in front of each caption")
    parser.add_argument("--seconds", type=float, default=300, metavar="X", help="how long the command may take")
    options = parser.parse_args(arguments)
    if options.model and not options.tags:
        parser.error("--model needs --tags")
    if options.model:
        from lora_core.tagger import by_model

        captioner = by_model(options.model, options.tags, options.threshold)
    else:
        captioner = by_command(options.command, options.seconds)
    failed = 0
    for one in caption_folder(options.folder, captioner, options.trigger):
        failed += bool(one.fault)
        say(f"{one.name}: {one.fault}.") if one.fault else print(f"{one.name}: {one.caption}")
    return 1 if failed else 0
