"""Loading our packages inside a host: under names of our own, without an entry in sys.path."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def load_package(name: str, folder: Path) -> ModuleType:
    """The package in `folder` as the top-level module `name`; its submodules then import as `name.sub` at any time.

    Raises ImportError when another package of that name is loaded already.
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        places = [Path(place).resolve() for place in getattr(loaded, "__path__", [])]
        if folder.resolve() not in places:
            where = str(places[0]) if places else "elsewhere"
            raise ImportError(f"LoRA Loom needs {folder}, but {name} is already loaded from {where}: remove that copy.")
        return loaded
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not a package: install LoRA Loom again.")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
