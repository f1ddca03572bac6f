"""What a row of the index was made from, as keys that fit into the row.

A row stays as it is from one generation to the next only if none of the files that it was made
from has other content. Every file has a key, and so has every realm: files that share a key cost a
render too many, never a stale page. A module is known by its URL without extension, because a file
with another extension could take its place.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from notifications.paths import top_folder
from notifications.short_cached import short_cached
from reindex.reading.documents import Document, module_of, specifier_of
from reindex.reading.places import Place
from reindex.reading.reader import Reader
from reindex.reading.realm_history import stem
from reindex.reading.references import BASE_MODULE, is_plain


@short_cached(maxsize=50_000)
def dependency_key(realm_url: str, path: str = "") -> int:
    """The key of a file, or without a path that of a realm as a whole. A signed 64-bit integer."""
    digest = hashlib.blake2b(f"{realm_url}\n{stem(path)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass
class DependencyTracker:
    """Tells what each of a reader's cards was made from."""

    reader: Reader
    realm_url: str
    _modules: dict[str, tuple[frozenset[int], bool]] = field(default_factory=dict)

    def of(self, url: str, document: Document, links: Iterable[str]) -> tuple[list[int], bool]:
        """The keys of everything that a card was made from, given the linked cards that its render
        asked for; and whether that is all that can change it."""
        keys = {dependency_key(self.realm_url, "realm.json")}
        settled = True
        documents: list[tuple[str, Document | None]] = [(url, document)]
        documents += [(link, self.reader.known(link)) for link in links]
        entries = {BASE_MODULE}
        for each, found in documents:
            place = self.reader.place(each)
            if place is None:
                settled = False
                continue
            keys |= self._keys(place, place.card_path)
            if found is None:
                continue
            settled = settled and is_plain(specifier_of(found))
            module = module_of(each, found)
            if module is not None:
                entries.add(module)
        for entry in entries:
            found_keys, found_settled = self._closure(entry)
            keys |= found_keys
            settled = settled and found_settled
        return sorted(keys), settled

    def of_modules(self, urls: Iterable[str]) -> set[int]:
        """The keys of modules, whatever they import."""
        places = filter(None, map(self.reader.place, urls))
        return {key for place in places for key in self._keys(place, place.path)}

    def _closure(self, entry: str) -> tuple[frozenset[int], bool]:
        if entry not in self._modules:
            keys: set[int] = set()
            asked, settled = self.reader.reached(entry)
            for url in asked:
                place = self.reader.place(url)
                if place is None:
                    settled = False
                else:
                    keys |= self._keys(place, place.path)
            self._modules[entry] = frozenset(keys), settled
        return self._modules[entry]

    def _keys(self, place: Place, path: str) -> set[int]:
        # Another realm may come to stand in the folder.
        folder = top_folder(path)
        realm_url = place.pin.realm_url
        keys = {dependency_key(realm_url, each) for each in ((path, folder) if folder else (path,))}
        # A source realm may be shown elsewhere.
        others = {realm_url, *place.through} - {self.realm_url}
        return keys | {dependency_key(each) for each in others}
