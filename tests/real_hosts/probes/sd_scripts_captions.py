"""What sd-scripts' own dataset classes make of a dataset config: each picture's caption and repeats."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

from common import report, request


def pictures(config: str) -> dict[str, list[object]]:
    from library import config_util

    user = config_util.load_user_config(config)
    sanitizer = config_util.ConfigSanitizer(True, True, False, True)
    blueprint = config_util.BlueprintGenerator(sanitizer).generate(user, SimpleNamespace(debug_dataset=False))
    made = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
    group = made[0] if isinstance(made, tuple) else made
    rows = [
        (info.absolute_path, info.caption, info.num_repeats) for d in group.datasets for info in d.image_data.values()
    ]
    return {os.path.basename(path): [caption, repeats] for path, caption, repeats in rows}


def main() -> None:
    asked = request()
    sys.path.insert(0, asked["host"])
    from library import strategy_base, strategy_sd

    caching = strategy_sd.SdSdxlLatentsCachingStrategy(True, False, 1, False)
    strategy_base.LatentsCachingStrategy.set_strategy(caching)
    report({name: json.loads(json.dumps(pictures(path))) for name, path in asked["files"].items()})


main()
