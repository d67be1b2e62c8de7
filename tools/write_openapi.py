"""Write docs/openapi.json from the jobs' declarations. `--print`: to stdout instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lora_core.doors import load_package  # noqa: E402

load_package("lora_loom_a1111", ROOT / "a1111_extension")

from lora_loom_a1111.openapi import document  # type: ignore[import-not-found] # noqa: E402


def main() -> None:
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if "--print" in sys.argv:
        sys.stdout.buffer.write(text.encode("utf-8"))
    else:
        (ROOT / "docs" / "openapi.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
