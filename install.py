"""Prepare the private engine. Run by AUTOMATIC1111 at each start, by ComfyUI-Manager once, or by hand:

    python install.py              install the engine where the host's own packages do not suffice
    python install.py --uninstall  delete it again

Uses the Python that runs it, which must be the host's. Changes nothing in the host's packages.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from lora_core import overlay  # noqa: E402
from lora_core.errors import EngineMissing, LoomError  # noqa: E402

if TYPE_CHECKING:
    from lora_core.overlay import Engine


def ready() -> "Engine | None":
    """The usual case, at every start of the host: a few milliseconds, no network."""
    try:
        return overlay.engine(ROOT)
    except EngineMissing:
        return None


def prepare() -> "Engine":
    from lora_core import overlay_install

    installer = overlay_install.Installer(say=lambda sentence: print(f"LoRA Loom: {sentence}", flush=True))
    return overlay_install.prepare(ROOT, installer)


def uninstall() -> None:
    from lora_core import overlay_install

    gone = overlay_install.remove(ROOT)
    print("LoRA Loom: " + (f"removed {', '.join(map(str, gone))}." if gone else "there was no engine to remove."))


def main(arguments: list[str]) -> int:
    """Prints nothing when nothing is to do. A fault is one sentence on stdout; the host starts anyway."""
    by_hand = sys.stdout.isatty()
    try:
        if "--uninstall" in arguments:
            uninstall()
        else:
            engine = ready() or prepare()
            if by_hand:
                print(f"LoRA Loom: ready, engine from the {engine.source} ({engine.reason}).")
    except LoomError as error:
        print(f"LoRA Loom: {error}")
        return 1 if by_hand or "--strict" in arguments else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
