"""Record what ComfyUI draws for tests/comfy_inpaint_cases.py: `python tools/record_comfyui_inpainting.py OUT.npz`.

Needs COMFYUI_DIR and COMFYUI_PYTHON.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "real_hosts")]


def record(out: Path) -> int:
    """Write the pictures of all graphs; their number."""
    import numpy as np
    from comfy_inpaint_cases import GRAPHS
    from comfy_inpaint_host import pictures
    from inpaint_cases import packed

    with tempfile.TemporaryDirectory() as work:
        drawn = pictures(Path(work))
    np.savez_compressed(out, **{graph.name: packed(graph.case, drawn[graph.name]) for graph in GRAPHS})
    return len(drawn)


if __name__ == "__main__":
    sys.stderr.write(f"{record(Path(sys.argv[1]))} pictures\n")
