"""Finds dead references: images and links to missing files, in cards and in `realm.json`.

A file counts as missing if the list of its realm's files, at the generation that the job reads,
doesn't contain it. A reference is checked only if it leads to a realm that the job reads or to the
server's own origin. The references themselves are never requested.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.conf import settings

from definitions.extensions import EXECUTABLE_EXTENSIONS
from reindex.prerender.results import Message, cut
from reindex.reading import realm_history
from reindex.reading.card_paths import FRONT_PAGE, GENERATED, file_of
from reindex.reading.dependency_keys import dependency_key
from reindex.reading.pins import Pin
from reindex.reading.places import Place
from reindex.reading.reader import Reader


@dataclass
class DeadReferences:
    """Finds the dead references of the cards of one batch."""

    reader: Reader
    realm_url: str
    _files: dict[Pin, frozenset[str]] = field(default_factory=dict)

    def warnings(self, references: Iterable[Message]) -> tuple[list[Message], set[int]]:
        """Returns a warning for each reference `{"key", "url", "kind"}` that leads to no file. Also
        returns the dependency keys of the files and realms that decide whether there is a warning.
        Raises ReplicaUnavailable, PinEnded and WrongGeneration."""
        warnings: list[Message] = []
        keys: set[int] = set()
        for each in references:
            place = self._place(each["url"])
            if place is None:
                continue
            pin = place.pin
            candidates = _files_at(place.path, each["kind"])
            if place.path == "" and pin.realm_url != self.realm_url:
                # At another realm's own URL, the server may show a notice in place of a page.
                candidates = set()
            keys |= {dependency_key(pin.realm_url, file) for file in candidates}
            keys |= {
                dependency_key(other)
                for other in {pin.realm_url, *place.through} - {self.realm_url}
            }
            if candidates and self._known(pin).isdisjoint(candidates):
                message = cut(f"{each['key']} names {each['url']}") + ", which does not exist"
                warning = {"key": each["key"], "message": message}
                warnings += [] if warning in warnings else [warning]
        return warnings, keys

    def _place(self, url: str) -> Place | None:
        """Returns the realm and path that a reference leads to. Returns None if the reference isn't
        checked."""
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
    """Returns the files with which the server could answer a request for a path. Returns no files
    for a path that isn't checked: an API endpoint, `robots.txt` or `sitemap.xml`."""
    if path.startswith("_") or f"/{path}".endswith(GENERATED):
        return set()
    if kind == "image":
        return {path}
    if path == "" or path.endswith("/"):
        return {path + FRONT_PAGE}
    pages = {path, file_of(path), f"{path}/{FRONT_PAGE}"}
    return pages | {f"{path}{extension}" for extension in EXECUTABLE_EXTENSIONS}
