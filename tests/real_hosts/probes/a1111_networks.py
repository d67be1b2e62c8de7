"""Load networks of every kind with A1111's Lora extension and let it change weights of known numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import a1111_load as plain
from common import LoraTensors, report, request
from known_weights import base_weight, error, expected


def load(path: str, log: plain.Debug) -> dict[str, object]:
    import network
    import networks

    log.lines.clear()
    on_disk = network.NetworkOnDisk(Path(path).stem, path)
    loaded = networks.load_network(on_disk.name, on_disk)
    placed = {module.network_key.partition(".")[0]: module for module in loaded.modules.values()}
    errors = {}
    for name, wanted in expected(path).items():
        if name in placed:
            updown, _ = placed[name].calc_updown(base_weight(name, tuple(wanted.shape)))
            errors[name] = error(updown, wanted)
    return {
        "log": list(log.lines),
        "words": {
            name: list(one.vec.shape) if hasattr(one.vec, "shape") else sorted(one.vec)
            for name, one in loaded.bundle_embeddings.items()
        },
        "modules": len(loaded.modules),
        "unmatched": sorted(set(LoraTensors(path).names) - set(placed) - {"bundle_emb"}),
        "compared": len(errors),
        "largest_error": max(errors.values()),
    }


def main() -> None:
    asked = request()
    plain.start(asked["host"], asked["data"])
    log = plain.Debug()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    plain.model(asked["host"], asked["family"])
    report({name: load(path, log) for name, path in asked["files"].items()})


main()
