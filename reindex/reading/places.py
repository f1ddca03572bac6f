"""Types and functions for finding the realm and the path where the content of a URL is stored."""

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
    """The realm and path where the content of a requested URL is stored.

    The requested URL may lie in a source realm that is replaced by its published realm. In this
    case, `url` is the corresponding URL in the published realm, and `through` has the source realm.
    If the published realm is replaced too, `through` has both replaced realms, and so on.
    """

    pin: Pin
    url: str
    through: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The unescaped path of `url` in the realm."""
        return self.pin.path_of(self.url)

    @property
    def card_path(self) -> str:
        """The path of the file that holds the card at `url`."""
        return file_of(self.path or "index")


#: A function that is made for one user. It takes the URL of a realm, and returns an Authorization
#: header for reading the realm, or None if the user may not read the realm.
Authority: TypeAlias = Callable[[str], str | None]


def folder_of(url: str) -> str:
    """Returns the folder of a URL, without a slash at the end. All URLs of a folder lie in the same
    realm."""
    return url.rpartition("/")[0]


def possible(path: str) -> str | None:
    """Returns the path unchanged, or None if no file can have the path. If the result is None,
    callers treat the file as missing and send no request."""
    return None if wrong_with_path(path) else path


def content_of(file: Document) -> bytes | str | None:
    """Returns a file's text, or its bytes if the file isn't UTF-8. Returns None if the file is
    missing. `file` is one parsed line of a replica's answer to a request for several files."""
    if "base64" in file:
        return b64decode(file["base64"])
    content: str | None = file["content"]
    return content
