"""Build CLIP's tokenizer files (vocab.json, merges.txt) from OpenAI's bpe_simple_vocab_16e6.txt.gz.

The list is shipped inside the open_clip_torch wheel:

    pip download --no-deps open_clip_torch==2.20.0 -d out/
    python tools/demo_base/build_clip_vocabulary.py out/open_clip_torch-2.20.0-py3-none-any.whl
"""

import argparse
import gzip
import json
import zipfile
from pathlib import Path

TARGET = Path(__file__).parents[2] / "lora_core/assets/clip"
MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2


def byte_symbols() -> list[str]:
    """CLIP's printable stand-in for each byte, in vocabulary order (printable bytes first)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(others))]


def read_merges(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(MEMBER)).decode("utf-8")
    return text.split("\n")[1 : MERGES + 1]


def vocabulary(merges: list[str]) -> dict[str, int]:
    symbols = byte_symbols()
    words = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    merges = read_merges(parser.parse_args().wheel)
    table = vocabulary(merges)
    if len(table) != 49408:
        raise SystemExit(f"expected 49408 words, found {len(table)}: is this the right wheel?")
    TARGET.mkdir(parents=True, exist_ok=True)
    compact = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    (TARGET / "vocab.json").write_text(compact, encoding="utf-8")
    (TARGET / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
