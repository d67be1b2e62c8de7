"""Record what the real hosts make of the prompts in tests/prompt_cases.py, for tests/data/prompts_*.safetensors.

Usage: COMFYUI_DIR=... COMFYUI_PYTHON=... A1111_DIR=... A1111_PYTHON=... python tools/record_prompts.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "real_hosts")]

import prompt_cases  # noqa: E402
from host_programs import host, write_hub  # noqa: E402
from prompt_hosts import ask  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hub = Path(folder, "hub")
        write_hub(hub)
        for arithmetic, variable in (("a1111", "A1111"), ("comfyui", "COMFYUI")):
            program = host(variable, f"{arithmetic}_prompts.py", hub, Path(folder))
            tensors, notes = ask(program, arithmetic, Path(folder, f"{arithmetic}.safetensors"))
            kept = {key: prompt_cases.reduced(tensor) for key, tensor in tensors.items() if key in notes}
            path = ROOT / "tests" / "data" / f"prompts_{arithmetic}.safetensors"
            save_file(kept, path, metadata={"notes": json.dumps(notes)})
            print(f"{path.name}: {len(kept)} tensors, {path.stat().st_size >> 10} KB")


if __name__ == "__main__":
    main()
