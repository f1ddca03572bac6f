"""Computes dependency keys. A dependency key is a 64-bit hash that identifies a file or a realm.
The index stores, for each card, the keys of the files and realms that the card was made from.

A card is carried over to the realm's next generation only if all these files and realms are
unchanged. A card that is carried over isn't rendered again. If two files happen to have the same
key, a card may be rendered unnecessarily, but no page is stale. The key of a module leaves out the
file's extension. An import of `./post` loads `post.ts`, but loads `post.tsx` if somebody creates
that file.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from definitions.extensions import stem
from notifications.short_cached import short_cached
from notifications.texts import top_folder
from reindex.reading.card_paths import REALM_CONFIG
from reindex.reading.documents import Document, module_of, specifier_of
from reindex.reading.places import Place
from reindex.reading.reader import Reader
from reindex.reading.references import BASE_MODULE, is_plain


@short_cached(maxsize=50_000)
def dependency_key(realm_url: str, path: str = "") -> int:
    """Returns the dependency key of a file. If `path` is empty, returns the key of the whole realm.
    The key is a signed 64-bit integer."""
    digest = hashlib.blake2b(f"{realm_url}\n{stem(path)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass
class DependencyTracker:
    """Finds the dependency keys of cards of the realm `realm_url`. `reader` has already read these
    cards and the cards that they link to."""

    reader: Reader
    realm_url: str
    #: A cache of the results of `_closure`, by module URL.
    _modules: dict[str, tuple[frozenset[int], bool]] = field(default_factory=dict)
    #: A cache of the results of `_card`, because many cards of a batch link to the same card.
    _cards: dict[str, tuple[frozenset[int], bool, str | None]] = field(default_factory=dict)

    def of(self, url: str, document: Document, links: Iterable[str]) -> tuple[list[int], bool]:
        """Returns the dependency keys of all files and realms that a card was made from. Also
        returns whether the keys are complete. If they are, only a change of these files and realms
        can change the card. `links` has the URLs of the linked cards that the rendering
        requested."""
        keys = {dependency_key(self.realm_url, REALM_CONFIG)}
        cacheable = True
        documents: list[tuple[str, Document | None]] = [(url, document)]
        documents += [(link, self.reader.known(link)) for link in links]
        entries = {BASE_MODULE}
        for each, linked in documents:
            found_keys, plain, module = self._card(each, linked)
            keys |= found_keys
            cacheable = cacheable and plain
            if module is not None:
                entries.add(module)
        for entry in entries:
            found_keys, complete = self._closure(entry)
            keys |= found_keys
            cacheable = cacheable and complete
        return sorted(keys), cacheable

    def _card(self, url: str, document: Document | None) -> tuple[frozenset[int], bool, str | None]:
        """Returns three values: the dependency keys of the file with the card, whether the two
        other values are certain, and the URL of the module that the card adopts from. The URL is
        None if the card is missing."""
        known = self._cards.get(url)
        if known is not None:
            return known
        place = self.reader.place(url)
        if place is None:
            return frozenset(), False, None
        keys = frozenset(self._keys(place, place.card_path))
        if document is None:
            return keys, True, None
        found = keys, is_plain(specifier_of(document)), module_of(url, document)
        self._cards[url] = found
        return found

    def of_modules(self, urls: Iterable[str]) -> set[int]:
        """Returns the dependency keys of the given modules, without the keys of their imports."""
        places = filter(None, map(self.reader.place, urls))
        return {key for place in places for key in self._keys(place, place.path)}

    def _closure(self, entry: str) -> tuple[frozenset[int], bool]:
        """Returns the dependency keys of a module and of everything that it imports. Also returns
        whether the keys are complete."""
        if entry not in self._modules:
            keys: set[int] = set()
            urls, complete = self.reader.reached(entry)
            for url in urls:
                place = self.reader.place(url)
                if place is None:
                    complete = False
                else:
                    keys |= self._keys(place, place.path)
            self._modules[entry] = frozenset(keys), complete
        return self._modules[entry]

    def _keys(self, place: Place, path: str) -> set[int]:
        # If a realm is created or removed below the path's top folder, the path may lead to another
        # realm than before. So the keys include the folder's key, which then counts as changed.
        folder = top_folder(path)
        realm_url = place.pin.realm_url
        keys = {dependency_key(realm_url, each) for each in ((path, folder) if folder else (path,))}
        # Each realm in `place` also has a key as a whole, except the tracker's own realm. This key
        # counts as changed if the realm's published address changes, or if it is unknown which of
        # the realm's files changed.
        others = {realm_url, *place.through} - {self.realm_url}
        return keys | {dependency_key(each) for each in others}
