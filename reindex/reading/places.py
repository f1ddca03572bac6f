"""Types and functions for the place where the content of a URL is read."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from notifications.texts import wrong_with_path
from reindex.reading.card_paths import file_of
from reindex.reading.documents import Document
from reindex.reading.pins import Pin


@dataclass(frozen=True)
class Place:
    """Where the content of a URL is read.

    A published realm may be read in place of a source realm. Then `url` lies in the published
    realm, and `through` lists the realms that it replaces, beginning with the source realm.
    """

    pin: Pin
    url: str
    through: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path in the pinned realm, unescaped."""
        return self.pin.path_of(self.url)

    @property
    def card_path(self) -> str:
        """The path of the file that holds the card."""
        return file_of(self.path or "index")


#: Makes the Authorization header for reading a realm; None if the user may not read it.
Authority: TypeAlias = Callable[[str], str | None]


def folder_of(url: str) -> str:
    """The folder of a URL. URLs of the same folder lie in the same realm."""
    return url.rpartition("/")[0]


def possible(path: str) -> str | None:
    """The path, or None if no file can have such a path. Callers don't request impossible paths,
    because the response would say nothing about the realm."""
    return None if wrong_with_path(path) else path


def content_of(file: Document) -> bytes | str | None:
    """The content of a file in a realm's response: its text, or its bytes if it isn't text."""
    if "base64" in file:
        return b64decode(file["base64"])
    content: str | None = file["content"]
    return content
