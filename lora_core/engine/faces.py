"""Faces in pictures, by OpenCV's own detector where that package is installed; nothing is installed or fetched."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_core.augment import Face, face_of
from lora_core.whole_files import write_text

DETECTOR = "haarcascade_frontalface_alt2.xml"
LONGEST = 1024
SMALLEST = 16  # a face is at least 1/16 of the shorter side
NEIGHBOURS = 5
MISSING = (
    "Faces are not looked for, because OpenCV (the package opencv-python) is not installed: crops follow the faces "
    "that file names tell, else the detail."
)


class Faces:
    """Faces by picture, kept in a JSON file by content (None: nowhere); `told`: why none are looked for, or ""."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._detector, self.version = detector()
        self.told = "" if self._detector is not None else MISSING
        self._known: dict[str, list[list[int]]] = {}
        self._fresh = False
        try:
            data = json.loads(path.read_text("utf-8")) if path else {}
            if data.get("detector") == self.version:
                self._known = {
                    str(mark): [[int(n) for n in face] for face in rows] for mark, rows in data["faces"].items()
                }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self._known = {}

    def of(self, stem: str, mark: str, rgb: Any) -> list[Face]:
        """The faces of a picture: those that its file's name tells, else those found; `rgb()` gives its pixels."""
        named = face_of(stem)
        if named or self._detector is None:
            return [named] if named else []
        if mark not in self._known:
            self._known[mark] = found(self._detector, rgb())
            self._fresh = True
        return [Face(*row) for row in self._known[mark]]

    def save(self) -> None:
        """Write what is new; a folder that cannot be written costs only time."""
        if not self._path or not self._fresh:
            return
        with contextlib.suppress(OSError):
            write_text(self._path, json.dumps({"detector": self.version, "faces": self._known}))


def detector() -> tuple[Any, str]:
    """OpenCV's cascade and its version, or (None, "") where the package or its data is missing or does not work."""
    try:
        cv2: Any = importlib.import_module("cv2")
        cascade = cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, DETECTOR))
        works = not cascade.empty() and len(cascade.detectMultiScale(np.zeros((64, 64), np.uint8))) == 0
        return (cascade, f"{DETECTOR} {cv2.__version__}") if works else (None, "")
    except Exception:  # a broken installation fails in any way and must not cost the training
        return None, ""


def found(cascade: Any, rgb: np.ndarray) -> list[list[int]]:
    """[centre x, centre y, width, height] of each face in pixels, the largest first; uint8 [h, w, 3]."""
    height, width = rgb.shape[:2]
    scale = min(1.0, LONGEST / max(width, height))
    grey = Image.fromarray(rgb).convert("L").resize((max(1, round(width * scale)), max(1, round(height * scale))))
    least = max(20, min(grey.size) // SMALLEST)
    boxes = np.asarray(cascade.detectMultiScale(np.asarray(grey), 1.1, NEIGHBOURS, 0, (least, least)))
    rows = [
        [round((x + w / 2) / scale), round((y + h / 2) / scale), round(w / scale), round(h / scale)]
        for x, y, w, h in boxes.reshape(-1, 4).tolist()
    ]
    return sorted(rows, key=lambda row: (-row[2] * row[3], row))
