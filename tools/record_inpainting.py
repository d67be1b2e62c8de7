"""Record what the real A1111 draws for tests/inpaint_cases.py: `python tools/record_inpainting.py OUT.npz`.

Needs A1111_DIR and A1111_PYTHON. Each request is sent twice and the second answer kept: A1111 draws the VAE's noise
from what the request before has left.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "real_hosts")]


def record(out: Path, work: Path, only: str = "") -> Iterator[str]:
    """Write the pictures of all cases whose name contains `only`; others stay in the file as they are."""
    import numpy as np
    from a1111_live import running_a1111
    from inpaint_cases import CASES, packed, payload, picture
    from small_models import write_small_hub, write_small_model

    found = dict(np.load(out)) if out.exists() else {}
    write_small_hub(work / "home")
    for model in ("small", "small_inpainting"):
        cases = [case for case in CASES if case.model == model and only in case.name]
        if not cases:
            continue
        checkpoint = write_small_model(work / model, inpainting=model != "small")
        with running_a1111(checkpoint, work / "home", work / f"data-{model}") as host:
            for case in cases:
                mask = None if case.mask is None else picture(case.mask)
                for _ in range(2):
                    drawn = host.img2img(picture(case.image), mask, **payload(case))
                found[case.name] = packed(case, np.stack(drawn))
                np.savez_compressed(out, **found)
                yield f"{case.name}: {len(drawn)} of {drawn[0].shape}"


def lines(arguments: list[str] | None = None) -> Iterator[str]:
    """The command: yields what a person reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        yield from record(chosen.out, Path(work), chosen.only)


if __name__ == "__main__":
    for text in lines():
        sys.stderr.write(text + "\n")
