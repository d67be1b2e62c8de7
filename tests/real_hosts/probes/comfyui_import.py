"""Milliseconds of CPU that the pack in argv[2] adds to the start of the ComfyUI in argv[1]: the least of several.

What ComfyUI does with a pack: import it, ask for its nodes, build the schema of each. Libraries of ComfyUI's own are
loaded before.
"""

import asyncio
import importlib
import importlib.util
import os
import sys
import time

REPEATS = 5


def load(folder):
    spec = importlib.util.spec_from_file_location(folder, os.path.join(folder, "__init__.py"))
    module = sys.modules[folder] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    return [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]


def main(folder, pack):
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, folder)
    os.chdir(folder)
    import comfy.options

    comfy.options.enable_args_parsing()
    for name in ("utils.install_util", "nodes", "server"):
        importlib.import_module(name)

    took = []
    for _ in range(REPEATS):
        for name in [n for n in sys.modules if n.startswith((pack, "lora_core"))]:
            del sys.modules[name]
        began = time.process_time()
        found = load(pack)
        took.append(1000 * (time.process_time() - began))
    print(len(found), *(f"{ms:.1f}" for ms in took))


if __name__ == "__main__":
    main(*sys.argv[1:3])
