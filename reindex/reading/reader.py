"""Reads cards and their linked cards, and modules and their imports, from any replica.

A pin says at which generation a job reads a realm. When a card or module first refers to a realm
that has no pin yet, the reader asks the registry (the table of all realms) for the realm's current
generation. The job stores this generation as the realm's pin, so all batches of the job read the
same files. A published realm shows the files of its source realm at another URL.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from definitions.extensions import CODE_EXTENSIONS
from reindex.reading import realm_history
from reindex.reading.documents import Document, absolute, links_of, read_document
from reindex.reading.media_types import ANY, NDJSON
from reindex.reading.modules import Module, import_error, known_modules, module_in
from reindex.reading.pins import SOURCE_HEADER, UNREADABLE_GENERATION, Access, Pin
from reindex.reading.places import Authority, Place, content_of, folder_of, possible
from reindex.reading.references import (
    BASE_REALM,
    SERVABLE,
    with_composed,
)
from reindex.reading.replicas import (
    MISDIRECTED,
    ReplicaUnavailable,
    Response,
    get_pinned,
    standing_at,
)
from reindex.reading.strict_json import BrokenDocument

#: The maximum number of files per request. Replicas accept this many paths even if all are long.
MANY_FILES = 1000


@dataclass
class Reader:
    """Reads realms for one job, or to build the definitions of one module.

    `pins` has the generation to read for each realm known so far. For each new realm, the reader
    calls `pin` with the realm's URL and current generation. If the realm may not be read, this
    generation is UNREADABLE_GENERATION. The function `pin` returns the generation to read.

    Without an `authority`, the reader reads only public realms and the realm that the job renders.
    An `authority` makes Authorization headers for one user. With an `authority`, the reader also
    reads the private realms that this user may read, and adds them to `private`.
    """

    pins: dict[str, int]
    pin: Callable[[str, int], int] = lambda realm_url, generation: generation
    #: The reader calls `not_found` with a public URL that lies in no realm, once for each folder.
    not_found: Callable[[str], None] = lambda url: None
    #: Returns the URL where visitors find a realm's pages.
    address: Callable[[str], str] = lambda realm_url: realm_url
    #: Whether the reader reads published realms in place of their source realms.
    as_published: bool = False
    authority: Authority | None = None
    access: Access = field(default_factory=Access)
    private: set[str] = field(default_factory=set)
    #: The address of the replica that answered last.
    read_from: str = ""
    #: The reader calls `go_on` before each read of files, but not before it requests a realm's
    #: generation, address or changes. `go_on` may raise an exception to end the reading.
    go_on: Callable[[], None] = lambda: None
    #: The errors of the broken cards read so far, by card URL.
    broken: dict[str, BrokenDocument] = field(default_factory=dict)
    #: For each source realm's URL, the published realm that is read in its place.
    shown_at: dict[str, str] = field(default_factory=dict)
    #: The JSON files at these card URLs hold plain data instead of a card.
    data: set[str] = field(default_factory=set)
    _documents: dict[str, Document | None] = field(default_factory=dict)
    _imports: dict[str, Module] = field(default_factory=dict)
    #: Folders that lie in no readable realm.
    _strangers: set[str] = field(default_factory=set)
    _carried: set[Pin] = field(default_factory=set)
    #: Realms that may not be read.
    _closed: set[str] = field(default_factory=set)
    #: Folders of the source realms in `shown_at` about which the registry has been asked.
    _own_folders: set[str] = field(default_factory=set)

    # --- realms ---

    def locate(self, url: str) -> Pin | None:
        """Returns the pin of the readable realm that contains a public URL, or None."""
        place = self.place(url)
        return None if place is None else place.pin

    def place(self, url: str) -> Place | None:
        """Returns the realm and path of a public URL's content. If `shown_at` has the URL's realm,
        the place is in the published realm. Returns None if no readable realm contains the URL."""
        if folder_of(url) in self._strangers:
            return None
        realm_url = self._around(url)
        unknown = not realm_url or (realm_url in self.shown_at and self._is_unknown(url))
        if unknown and SERVABLE.fullmatch(url):
            realm_url = self._meet(url) or ""
        if realm_url not in self.shown_at:
            return Place(Pin(realm_url, self.pins[realm_url]), url) if realm_url else None
        place = self.place(self.shown_at[realm_url] + url.removeprefix(realm_url))
        return place and Place(place.pin, place.url, (realm_url, *place.through))

    def _around(self, url: str) -> str:
        """Returns the innermost known realm that contains a URL; "" if none does."""
        innermost = ""
        for known in (self.pins, self.shown_at):
            for realm_url in known:
                if len(realm_url) > len(innermost) and url.startswith(realm_url):
                    innermost = realm_url
        return innermost

    def _is_unknown(self, url: str) -> bool:
        """Returns True for the first URL of each folder of a source realm. The caller then asks the
        registry for inner realms of the source realm, which the published realm doesn't have."""
        unknown = folder_of(url) not in self._own_folders
        self._own_folders.add(folder_of(url))
        return unknown

    def _meet(self, url: str) -> str | None:
        """Asks the registry which realm contains a URL, and returns this realm's URL. Pins a new
        realm, or adds it to `shown_at`. Returns None if no readable realm contains the URL."""
        realm_url, generation = standing_at(url)
        if not url.startswith(realm_url):
            # The URL has another origin than the realm, such as a replica's.
            self._strangers.add(folder_of(url))
            return None
        if realm_url in self.pins or realm_url in self.shown_at:
            return realm_url
        if self.as_published and realm_url:
            address = self.address(realm_url)
            if address != realm_url:
                self.shown_at[realm_url] = address
                self._own_folders.add(folder_of(url))
                return realm_url
        if realm_url in self._closed:
            generation = UNREADABLE_GENERATION
        elif realm_url:
            if generation == UNREADABLE_GENERATION:
                generation = self._privately(realm_url)
            generation = self.pin(realm_url, generation)
        if not realm_url:
            self.not_found(url)
        if generation == UNREADABLE_GENERATION:
            # A private realm's content must not appear on the pages of another realm.
            self._closed.add(realm_url)
            self._strangers.add(folder_of(url))
            return None
        self.pins[realm_url] = generation
        return realm_url

    def _is_within(self, pin: Pin, url: str) -> bool:
        """Checks a replica's answer that a URL lies in an inner realm of the pinned realm. Pins the
        inner realm if it is new. Returns False if the inner realm has been deleted meanwhile."""
        if self.locate(url) == pin:
            self._meet(url)
        located = self.locate(url)
        return located is None or len(located.realm_url) > len(pin.realm_url)

    def _privately(self, realm_url: str) -> int:
        """Returns a private realm's current generation number, or UNREADABLE_GENERATION if the user
        may not read the realm. Adds a readable realm to `private`, so that no other user gets
        results made from the realm."""
        header = self.authority(realm_url) if self.authority else None
        if header is None:
            return UNREADABLE_GENERATION
        found, generation = standing_at(realm_url, header)
        if found != realm_url or generation == UNREADABLE_GENERATION:
            return UNREADABLE_GENERATION
        self.private.add(realm_url)
        return generation

    def elsewhere(self) -> dict[str, str]:
        """Returns the addresses of moved realms and of all known realms inside a moved realm. A
        realm counts as moved if its address differs from its URL. The keys of the result are the
        realms' URLs. Inner realms come first."""
        known = {realm_url: self.address(realm_url) for realm_url in self.pins} | self.shown_at
        inner_first = {
            realm_url: known[realm_url] for realm_url in sorted(known, key=len, reverse=True)
        }
        moved = tuple(
            realm_url for realm_url, address in inner_first.items() if address != realm_url
        )
        return {url: address for url, address in inner_first.items() if url.startswith(moved)}

    # --- cards ---

    def card(self, url: str) -> Document | None:
        """Returns the card at a public URL (without .json), or None if there is no card."""
        if url not in self._documents:
            self._documents[url] = self._read_card(url)
        return self._documents[url]

    def _read_card(self, url: str) -> Document | None:
        self.read_cards([url])
        return self._documents[url]

    def read_cards(self, urls: Iterable[str]) -> None:
        """Reads those of the given cards that have not been read yet, in few requests."""
        left = [url for url in dict.fromkeys(urls) if url not in self._documents]
        while left:
            left = self._read_some(left)

    def _read_some(self, urls: Iterable[str]) -> list[str]:
        """Reads cards. Returns the URLs that lie in inner realms and must be read again."""
        wanted: dict[Pin, dict[str, tuple[Place, str]]] = {}
        for url in urls:
            place = self.place(url)
            path = None if place is None else possible(place.card_path)
            if place is None or path is None:
                self._documents[url] = None
            else:
                wanted.setdefault(place.pin, {})[url] = place, path
        again: list[str] = []
        for pin, places in wanted.items():
            files = self._get_many(pin, list(dict.fromkeys(path for _, path in places.values())))
            for url, (place, path) in places.items():
                if files[path].get("elsewhere") and self._is_within(pin, place.url):
                    again.append(url)
                else:
                    self._documents[url] = self._document(url, path, content_of(files[path]))
        return again

    def _document(self, url: str, path: str, content: bytes | str | None) -> Document | None:
        if content is None:
            return None
        try:
            document = read_document(content, path)
        except BrokenDocument as error:
            self.broken[url] = error
            return None
        if document is None:
            self.data.add(url)
            return None
        return absolute(document, self._at_home)

    def _at_home(self, url: str) -> str:
        """If a URL lies in the source realm that the rendered realm shows, returns the URL of the
        same file in the rendered realm. Returns any other URL unchanged."""
        own = self.access.own
        if self.shown_at.get(self._around(url)) != own:
            return url
        # `place` may find an inner realm that wasn't known before. So `_around` is called again.
        place, around = self.place(url), self._around(url)
        is_source = place is not None and self.shown_at.get(around) == own
        return own + url.removeprefix(around) if is_source else url

    def _get_many(self, pin: Pin, paths: list[str]) -> dict[str, Document]:
        """Requests files of a realm, and returns the answer for each path. If a response ends
        before the last requested file, sends another request for the remaining files."""
        files: dict[str, Document] = {}
        while len(files) < len(paths):
            requested = paths[len(files) : len(files) + MANY_FILES]
            body = json.dumps({"paths": requested}).encode()
            response = self._get(pin, "", NDJSON, body)
            if response.status != 200:
                raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
            source_url = response.headers.get(SOURCE_HEADER.lower())
            if pin.realm_url == self.access.own and source_url:
                self.shown_at[source_url] = pin.realm_url
            answered = [json.loads(line) for line in response.body.splitlines()]
            if not answered:
                raise ReplicaUnavailable(
                    f"{response.replica} returned none of {len(requested)} files"
                )
            files.update((file["path"], file) for file in answered)
        return files

    def known(self, url: str) -> Document | None:
        """Returns a card that has been read before; None for any other card."""
        return self._documents.get(url)

    def linked(self, cards: Mapping[str, Document | None]) -> dict[str, Document | None]:
        """Returns the cards that the given cards link to, except the given cards themselves. The
        keys are the cards' URLs. The value for a missing card is None."""
        targets = {
            target
            for url, document in cards.items()
            if document is not None
            for target in links_of(url, document)
        }
        wanted = sorted(targets - cards.keys())
        self.read_cards(wanted)
        return {target: self.known(target) for target in wanted}

    # --- modules ---

    def modules(self, urls: Iterable[str]) -> list[str]:
        """Returns the URLs of the files of modules and of all their imports, dependencies first.
        Leaves out missing modules, because the rendering of a card reports them."""
        order: list[str] = []
        entered: set[str] = set()
        stack = [(url, False) for url in reversed(list(urls))]
        while stack:
            url, left = stack.pop()
            if left:
                order.append(url)
                continue
            module = self._module(url)
            if module.file is None or module.file in entered:
                continue
            entered.add(module.file)
            stack.append((module.file, True))
            stack.extend((imported, False) for imported in reversed(module.imports))
        return order

    def missing(self, url: str) -> list[str]:
        """Returns those URLs from `reached(url)` that lead to no module."""
        reached, _ = self.reached(url)
        return sorted(each for each in reached if self._module(each).file is None)

    def reached(self, url: str) -> tuple[set[str], bool]:
        """Returns the URLs of a module and of all its direct and indirect imports, before and after
        redirects, also of missing ones. Also returns whether the set is certainly complete."""
        requested: set[str] = set()
        complete = True
        stack = [url]
        while stack:
            url = stack.pop()
            if url in requested:
                continue
            module = self._module(url)
            requested |= {url, module.file or url}
            complete = complete and module.complete
            stack.extend(module.imports)
        return requested, complete

    def _module(self, url: str) -> Module:
        if url not in self._imports:
            self._imports[url] = self._read_module(url)
        return self._imports[url]

    def _read_module(self, url: str) -> Module:
        if with_composed(url) != url:
            # All Unicode spellings of a path lead to the same file.
            return self._module(with_composed(url))
        place = self.place(url)
        if place is None:
            return Module(None)
        if place.url != url:
            # If a module were loaded from two URLs, each of its classes would become two classes.
            return self._module(place.url)
        pin = place.pin
        self._check_access(pin)
        self._carry_over(pin)
        module = known_modules.get((pin, url))
        if module is None:
            path = possible(place.path)
            response = None if path is None else self._get(pin, path)
            if response is not None and response.status == MISDIRECTED:
                return self._read_module(url) if self._is_within(pin, url) else Module(None)
            module = Module(None) if response is None else module_in(url, response)
            known_modules.keep(pin, url, module)
        # A URL without extension redirects to the file's URL.
        return module if module.file in (None, url) else self._module(str(module.file))

    def _check_access(self, pin: Pin) -> None:
        """Asks a replica, once for each pin, whether the realm may still be read. For modules that
        an earlier job has cached, no other request would show this. Raises PinEnded."""
        if pin not in self._carried and pin.realm_url not in (self.access.own, BASE_REALM):
            self._get(pin, "", NDJSON, b'{"paths": []}')

    def _carry_over(self, pin: Pin) -> None:
        """Caches the unchanged modules of an earlier generation for the pinned generation too."""
        if pin in self._carried:
            return
        self._carried.add(pin)
        if pin.realm_url in self.private:
            return
        advanced = realm_history.note_read(pin, self.access)
        if advanced is not None:
            before, differing = advanced
            known_modules.carry_over(before, pin, differing)

    def source(self, url: str) -> Document:
        """Returns what a sandbox gets for a module's URL: the `code` of the module, the `data` of a
        file that isn't code, a `redirect` to another URL, or an `error`."""
        module = self._module(url)
        if self.locate(url) is None:
            message = f"{url} is not in a public realm of this server"
            return import_error(url, 403, "Import refused", message)
        if module.file is None:
            return import_error(url, 404, "Module not found", f"There is no module {url}")
        if module.file != url:
            return {"redirect": module.file}
        if module.refusal:
            return import_error(url, 406, "The module can't be transpiled", module.refusal)
        return {"code" if url.endswith(CODE_EXTENSIONS) else "data": module.text}

    def realms_of(self, modules: Iterable[str]) -> set[str]:
        """Returns the realms of the given modules and of everything that they import."""
        pins = (self.locate(url) for module in modules for url in self.reached(module)[0])
        return {pin.realm_url for pin in pins if pin is not None}

    def _get(self, pin: Pin, path: str, accept: str = ANY, body: bytes | None = None) -> Response:
        self.go_on()
        private = pin.realm_url in self.private
        response = get_pinned(pin, path, accept, self.access, private=private, body=body)
        self.read_from = response.replica
        return response
