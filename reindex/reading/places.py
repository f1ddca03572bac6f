"""Types and functions for finding the realm and path of a URL's content."""

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
    """The realm and path of a URL's content.

    If a published realm is read in place of a source realm, `url` lies in the published realm.
    `through` lists the realms that were replaced, beginning with the source realm.
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
        """The path of the file that holds the card at `url`."""
        return file_of(self.path or "index")


#: Returns the Authorization header for a user's reads of a realm, or None if the user may not read
#: the realm.
Authority: TypeAlias = Callable[[str], str | None]


def folder_of(url: str) -> str:
    """Returns the folder of a URL. URLs of the same folder lie in the same realm."""
    return url.rpartition("/")[0]


def possible(path: str) -> str | None:
    """Returns the path unchanged, or None if no file can have the path. Callers don't request
    impossible paths, because the response would say nothing about the realm."""
    return None if wrong_with_path(path) else path


def content_of(file: Document) -> bytes | str | None:
    """Returns a file's text, or its bytes if the file isn't text. Returns None if the realm has no
    such file. `file` is one line of the response to a pinned read of several files."""
    if "base64" in file:
        return b64decode(file["base64"])
    content: str | None = file["content"]
    return content
