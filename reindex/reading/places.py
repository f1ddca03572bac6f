"""Where the content at a URL is read, and as whom."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from notifications.paths import wrong_with_path
from reindex.reading.documents import Document
from reindex.reading.pins import Pin


@dataclass(frozen=True)
class Place:
    """Where the content at a URL is read: at another URL, if that is shown for a source realm; then
    the realms that were passed, from the one of the URL that was asked for on."""

    pin: Pin
    url: str
    through: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path in the pinned realm, unescaped."""
        return self.pin.path_of(self.url)

    @property
    def card_path(self) -> str:
        """The file of the card."""
        return f"{self.path or 'index'}.json"


#: The Authorization header by which a realm is read; None where that user may not.
Authority: TypeAlias = Callable[[str], str | None]


def folder_of(url: str) -> str:
    """What a URL has in common with all that lie in the same folder, and so in the same realm."""
    return url.rpartition("/")[0]


def possible(path: str) -> str | None:
    """The path, if a file may have it. No other is asked for: what a request for it would be
    answered says nothing of the realm."""
    return None if wrong_with_path(path) else path


def content_of(file: Document) -> bytes | str | None:
    """What a line of an answer says of a file: its text, or the bytes of what isn't text."""
    if "base64" in file:
        return b64decode(file["base64"])
    content: str | None = file["content"]
    return content
