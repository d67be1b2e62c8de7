"""What the pages ask of the host. `host.py` gives it for the real ones, the tests have a small fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Union

if TYPE_CHECKING:
    from lora_core.desk import Desk

    from .compat import Editor
    from .guard import Access

PasteField = tuple[Any, Union[str, Callable[[dict[str, Any]], Any]]]


@dataclass(frozen=True)
class Choice:
    """A file of the host's lists: what a person reads, and where it lies."""

    title: str
    path: str


@dataclass(frozen=True)
class Option:
    """One option of our settings page. `name` is without the prefix under which the host stores it."""

    name: str
    default: Any
    label: str
    choices: tuple[str, ...] = ()
    help: str = ""


class Host(Protocol):
    """The host's lists, folders and mechanisms. Every method is quick and may be called from any thread."""

    @property
    def name(self) -> str:
        """ "AUTOMATIC1111", "Forge"; for sentences."""
        ...

    @property
    def desk(self) -> Desk:
        """The one queue of jobs. Submitting frees the host's models where memory asks for it."""
        ...

    def checkpoints(self) -> tuple[Choice, ...]:
        """All base models, by their titles in the host."""
        ...

    def current_checkpoint(self) -> str:
        """The path of the loaded one, "" for none."""
        ...

    def loras(self) -> tuple[Choice, ...]:
        """All LoRA files of the host's folders; titles are unique (relative to their folder, without suffix)."""
        ...

    def vaes(self) -> tuple[Choice, ...]: ...

    def lora_folders(self) -> tuple[Path, ...]:
        """Where LoRAs are looked for; new ones go into the first."""
        ...

    def checkpoint_folders(self) -> tuple[Path, ...]:
        """Where base models are looked for; merged ones go into the first."""
        ...

    def embedding_folders(self) -> tuple[Path, ...]: ...

    def data_folder(self) -> Path:
        """Ours, inside the host's data: uploads, jobs, reports."""
        ...

    def picture_folder(self) -> Path:
        """Where the host writes img2img pictures today."""
        ...

    def refresh(self) -> None:
        """Read the folders of LoRAs and base models again."""
        ...

    def option(self, name: str) -> Any:
        """The value of an `Option`, its default where nothing is stored."""
        ...

    def page_key(self) -> str:
        """A secret of this run of the host, put into our page and sent back as header X-LoRA-Loom by its script.

        Only who may open the page has it: routes take it in place of the API's password.
        """
        ...

    def access(self, sessions: Mapping[str, Any]) -> Access:
        """What the routes ask of a caller now. `sessions`: the page's logged-in tokens."""
        ...

    def confined(self, kind: str, job: Any) -> Any:
        """The job of a request, gaps filled in. Raises ConfigError for paths that lead out of the host's folders."""
        ...

    def filled(self, kind: str, job: Any) -> Any:
        """The job with the host's folders where it names none: of results, work (never below the LoRAs), LoRAs."""
        ...

    def paste_target(self, tab: str, image: Any, fields: Sequence[PasteField]) -> None:
        """Make our page `tab` a target of "send to": its picture, and its fields by infotext key or function."""
        ...

    def mask_editor(self, elem_id: str) -> Editor | None:
        """The host's own component for painting on a picture; None: it is gradio's."""
        ...

    def img2img(self) -> Mapping[str, Any]:
        """Widgets of the host's img2img page: settings by our names, "picture", "painted" and "painted mask".

        What this version has, and nothing where the page is not built yet. In "painted" alone a mask may be included.
        """
        ...

    def elsewhere(self) -> Mapping[str, Any]:
        """Widgets of further pages: "extras results" (a gallery) and "picture", "pnginfo picture" and "text"."""
        ...

    def picture_in(self, gallery: Any) -> Any:
        """The first picture of what the host's gallery holds, None for an empty one."""
        ...

    def send_button(self, button: Any, tab: str, image: Any = None, text: Any = None) -> None:
        """Let a button send a picture component and an infotext component to the host's page `tab`.

        `tab`: "txt2img", "img2img", "inpaint", "extras", or one that `paste_target` announced.
        """
        ...
