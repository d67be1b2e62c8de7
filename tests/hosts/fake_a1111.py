"""A small A1111 for tests: the functions of `host_api.Host` over a folder, and the page's routes over its desk."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

from lora_core.desk import Desk  # noqa: E402
from lora_core.doors import load_package  # noqa: E402
from lora_core.remote import Child  # noqa: E402

EXTENSION = "lora_loom_a1111"
DEMO = ROOT / "lora_core" / "assets" / "demo"


def extension():
    """Our package under the name that the host's door gives it."""
    return load_package(EXTENSION, ROOT / "a1111_extension")


class FakeHost:
    """Folders below `root`: models/Lora, models/Stable-diffusion (with the demo base), ours."""

    name = "Fake WebUI"

    def __init__(self, root, desk=None, **options):
        self.root = Path(root)
        for folder in (self.lora_folders(), self.checkpoint_folders(), self.embedding_folders(), [self.data_folder()]):
            for path in folder:
                path.mkdir(parents=True, exist_ok=True)
        self.desk = desk or Desk(self.data_folder() / "jobs", Child(python=sys.executable, grace=5.0))
        self.options, self.key = options, secrets.token_urlsafe(16)
        self.targets, self.sends, self.held, self.beside, self.refreshed = {}, [], {}, {}, 0

    def lora_folders(self):
        return (self.root / "models" / "Lora",)

    def checkpoint_folders(self):
        return (self.root / "models" / "Stable-diffusion",)

    def embedding_folders(self):
        return (self.root / "embeddings",)

    def data_folder(self):
        return self.root / "lora_loom"

    def picture_folder(self):
        return self.root / "outputs"

    def choice(self, path, folder):
        from lora_loom_a1111.host_api import Choice

        return Choice(path.relative_to(folder).with_suffix("").as_posix(), str(path))

    def checkpoints(self):
        shipped = [self.choice(DEMO / "demo_base.safetensors", DEMO)]
        folder = self.checkpoint_folders()[0]
        return tuple(shipped + [self.choice(path, folder) for path in sorted(folder.rglob("*.safetensors"))])

    def current_checkpoint(self):
        return self.checkpoints()[0].path

    def loras(self):
        folder = self.lora_folders()[0]
        return tuple(self.choice(path, folder) for path in sorted(folder.rglob("*.safetensors")))

    def vaes(self):
        return ()

    def refresh(self):
        self.refreshed += 1

    def option(self, name):
        from lora_loom_a1111.settings_page import OPTIONS

        return self.options.get(name, next(option.default for option in OPTIONS if option.name == name))

    def page_key(self):
        return self.key

    def access(self, sessions):
        from lora_loom_a1111.guard import Access

        return Access(self.key, sessions=sessions)

    def confined(self, kind, job):
        from lora_core.confine import confine_job

        models = (*self.lora_folders(), *self.checkpoint_folders())
        return confine_job(self.filled(kind, job), (*models, self.root, DEMO), (*models, self.root))

    def filled(self, kind, job):
        if getattr(job, "output_dir", None) == "":
            folder = self.lora_folders()[0] if kind == "train" else self.picture_folder()
            job = dataclasses.replace(job, output_dir=str(folder))
        if getattr(job, "work_dir", None) == "":
            job = dataclasses.replace(job, work_dir=str(self.data_folder() / "work" / job.name))
        return job

    def mask_editor(self, elem_id):
        return None

    def img2img(self):
        return self.held

    def elsewhere(self):
        return self.beside

    def picture_in(self, gallery):
        return gallery[0] if gallery else None

    def paste_target(self, tab, image, fields):
        self.targets[tab] = (image, list(fields))

    def send_button(self, button, tab, image=None, text=None):
        self.sends.append((button, tab, image, text))
