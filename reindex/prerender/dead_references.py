"""Images and links to files that aren't there, in the values of cards and in `realm.json`.

A realm's own files are known by its manifest, at the generation that is rendered. Looked at is what
lies in that realm, in another that the job reads anyhow, or at the server's own origin: nobody is
asked about every address of the web that a text names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.conf import settings

from reindex.prerender.results import Message
from reindex.reading import realm_history
from reindex.reading.dependency_keys import dependency_key
from reindex.reading.pins import Pin
from reindex.reading.places import Place
from reindex.reading.reader import Reader
from reindex.reading.realm_history import EXECUTABLE

#: What a realm answers without a file: its endpoints, and what search engines ask for.
_GENERATED = ("robots.txt", "sitemap.xml")


@dataclass
class DeadReferences:
    """Tells which references of the cards of one batch lead to nothing."""

    reader: Reader
    realm_url: str
    _files: dict[Pin, frozenset[str]] = field(default_factory=dict)

    def warnings(self, references: Iterable[Message]) -> tuple[list[Message], set[int]]:
        """A warning for each `{"key", "url", "kind"}` that leads to nothing, and the keys of the
        files whose coming or going would change that. Raises ReplicaUnavailable and PinEnded."""
        found: list[Message] = []
        keys: set[int] = set()
        for each in references:
            place = self._place(each["url"])
            if place is None:
                continue
            pin = place.pin
            asked = _files_at(place.path, each["kind"])
            keys |= {dependency_key(pin.realm_url, file) for file in asked}
            keys |= {
                dependency_key(other)
                for other in {pin.realm_url, *place.through} - {self.realm_url}
            }
            if asked and self._known(pin).isdisjoint(asked):
                message = f"{each['key']} names {each['url']}, where there is nothing"
                found.append({"key": each["key"], "message": message})
        return found, keys

    def _place(self, url: str) -> Place | None:
        """Where a file is looked for; None for what is not looked at."""
        near = (*self.reader.pins, f"{settings.REALM_PUBLIC_ORIGIN}/")
        if not url.startswith(near):
            return None
        parts = urlsplit(url)
        return self.reader.place(f"{parts.scheme}://{parts.netloc}{parts.path}")

    def _known(self, pin: Pin) -> frozenset[str]:
        if pin not in self._files:
            self._files[pin] = realm_history.files(pin, self.reader.access)
        return self._files[pin]


def _files_at(path: str, kind: str) -> set[str]:
    """The files any of which answers at a path; none where something else does."""
    if path == "" or path.startswith("_") or path.endswith(_GENERATED):
        return set()
    if kind == "image":
        return {path}
    if path.endswith("/"):
        return {f"{path}index.json", f"{path}index.html"}
    pages = {path, f"{path}.json", f"{path}/index.json"}
    return pages | {f"{path}{extension}" for extension in EXECUTABLE}
