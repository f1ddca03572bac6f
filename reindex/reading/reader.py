"""What a render reads: cards, the cards they link to, and modules with everything they import.

Every realm is read at one pinned generation, whichever replica answers. A realm that turns up on
the way (an import or a link across a border) is pinned at the generation that the registry has
when it is first met; the job keeps that, so all of its batches read the same.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from notifications.paths import top_folder
from reindex.reading import realm_history
from reindex.reading.documents import Document, absolute, links_of, read_document
from reindex.reading.modules import Module, import_error, known_modules, module_in
from reindex.reading.pins import SOURCE_HEADER, UNREADABLE_GENERATION, Access, Pin
from reindex.reading.places import Authority, Place, content_of, folder_of, possible
from reindex.reading.realm_history import CODE, stem
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

#: As many files as one request asks for. With the longest paths there are, it is not too long.
MANY_FILES = 1000
NDJSON = "application/x-ndjson"


@dataclass
class Reader:
    """Reads for one job. `pins` are the realms known so far; `pin` says which generation a newly
    met realm is to be read at, given the registry's; `CLOSED` for one that may not be read.

    It reads what everyone may; with an `authority`, which makes the Authorization header for a
    realm that is somebody's to read, what that user may. `private` are the realms that needed one.
    """

    pins: dict[str, int]
    pin: Callable[[str, int], int] = lambda realm_url, generation: generation
    #: Called with a public URL that lies in no realm.
    in_vain: Callable[[str], None] = lambda url: None
    #: Says where the pages of a realm are.
    address: Callable[[str], str] = lambda realm_url: realm_url
    #: Whether what is read of source realms is what is published of them, at their `address`.
    as_published: bool = False
    authority: Authority | None = None
    access: Access = field(default_factory=Access)
    private: set[str] = field(default_factory=set)
    #: The replica that was last read from.
    read_from: str = ""
    #: Called before each request, and may end the reading by raising.
    go_on: Callable[[], None] = lambda: None
    #: By card what is wrong with its file, of those that were read.
    broken: dict[str, BrokenDocument] = field(default_factory=dict)
    #: By source realm the published realm whose content is read for its own.
    shown_at: dict[str, str] = field(default_factory=dict)
    #: What would be cards by their names, and are data.
    data: set[str] = field(default_factory=set)
    _documents: dict[str, Document | None] = field(default_factory=dict)
    _imports: dict[str, Module] = field(default_factory=dict)
    _strangers: set[str] = field(default_factory=set)
    _carried: set[Pin] = field(default_factory=set)
    _closed: set[str] = field(default_factory=set)
    #: Folders of source realms that are shown elsewhere, and are known to lie in no inner realm.
    _own_folders: set[str] = field(default_factory=set)

    # --- realms ---

    def locate(self, url: str) -> Pin | None:
        """The pin of the realm whose content is read at a public URL; None outside every realm that
        this may read."""
        place = self.place(url)
        return None if place is None else place.pin

    def place(self, url: str) -> Place | None:
        """Where the content at a public URL is read; None outside every realm that this may read.

        What lies in a source realm that is shown elsewhere is read there.
        """
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
        """The innermost known realm around a URL; "" if there is none."""
        known = [realm for realm in (*self.pins, *self.shown_at) if url.startswith(realm)]
        return max(known, key=len, default="")

    def _is_unknown(self, url: str) -> bool:
        """Whether a folder of a source realm could be another's, which stands within it: what is
        read in its place doesn't tell. Asked once."""
        unknown = folder_of(url) not in self._own_folders
        self._own_folders.add(folder_of(url))
        return unknown

    def _meet(self, url: str) -> str | None:
        """The realm that a URL lies in, by the registry: it knows also the realms that stand within
        known ones. None where there is none that this may read."""
        realm_url, generation = standing_at(url)
        if realm_url in self.pins or realm_url in self.shown_at:
            return realm_url
        if self.as_published and realm_url and url.startswith(realm_url):
            address = self.address(realm_url)
            if address != realm_url:
                self.shown_at[realm_url] = address
                self._own_folders.add(folder_of(url))
                return realm_url
        if realm_url in self._closed or not url.startswith(realm_url):
            # A replica's own address stands for the public one, and is nobody's to import from.
            generation = UNREADABLE_GENERATION
        elif realm_url:
            if generation == UNREADABLE_GENERATION:
                generation = self._privately(realm_url)
            generation = self.pin(realm_url, generation)
        if not realm_url:
            self.in_vain(url)
        if generation == UNREADABLE_GENERATION:
            # A private realm's bytes never reach the render of another.
            self._closed.add(realm_url)
            self._strangers.add(folder_of(url))
            return None
        self.pins[realm_url] = generation
        return realm_url

    def _is_within(self, pin: Pin, url: str) -> bool:
        """Whether what a realm says is not its own lies in one that stands within it; that one is
        known from now on. Not so if it has gone since."""
        if self.locate(url) == pin:
            self._meet(url)
        found = self.locate(url)
        return found is None or len(found.realm_url) > len(pin.realm_url)

    def _privately(self, realm_url: str) -> int:
        """The generation of a realm that is not everyone's, for the one user as whom this reads:
        what is made from it is kept for nobody else."""
        header = self.authority(realm_url) if self.authority else None
        if header is None:
            return UNREADABLE_GENERATION
        found, generation = standing_at(realm_url, header)
        if found != realm_url or generation == UNREADABLE_GENERATION:
            return UNREADABLE_GENERATION
        self.private.add(realm_url)
        return generation

    def elsewhere(self) -> dict[str, str]:
        """Where the pages of the realms known so far are, if not at their own URLs, and of the
        realms within those. Inner realms come before those around them."""
        known = {realm_url: self.address(realm_url) for realm_url in self.pins} | self.shown_at
        found = {realm_url: known[realm_url] for realm_url in sorted(known, key=len, reverse=True)}
        moved = tuple(realm_url for realm_url, address in found.items() if address != realm_url)
        return {url: address for url, address in found.items() if url.startswith(moved)}

    # --- cards ---

    def card(self, url: str) -> Document | None:
        """The document of the card at a public URL (without .json); None if there is no card."""
        if url not in self._documents:
            self._documents[url] = self._read_card(url)
        return self._documents[url]

    def _read_card(self, url: str) -> Document | None:
        self.read_cards([url])
        return self._documents[url]

    def read_cards(self, urls: Iterable[str]) -> None:
        """Reads the cards that aren't known yet, many in one request."""
        left = [url for url in dict.fromkeys(urls) if url not in self._documents]
        while left:
            left = self._read_some(left)

    def _read_some(self, urls: Iterable[str]) -> list[str]:
        """Reads cards. Answers those that turn out to lie within other realms than was known."""
        wanted: dict[Pin, dict[str, tuple[Place, str]]] = {}
        for url in urls:
            place = self.place(url)
            path = None if place is None else possible(place.card_path)
            if place is None or path is None:
                self._documents[url] = None
            else:
                wanted.setdefault(place.pin, {})[url] = place, path
        again: list[str] = []
        for pin, found in wanted.items():
            files = self._get_many(pin, list(dict.fromkeys(path for _, path in found.values())))
            for url, (place, path) in found.items():
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
        """A URL; one in the source realm of the pages that are made, as what they show of it."""
        own, place = self.access.own, None
        if self.shown_at.get(self._around(url)) == own:
            # What stands within the source is another realm; that may be this one itself.
            place = self.place(url)
        around = self._around(url)
        is_source = place is not None and self.shown_at.get(around) == own
        return own + url.removeprefix(around) if is_source else url

    def _get_many(self, pin: Pin, paths: list[str]) -> dict[str, Document]:
        """What a realm answers about files, by path. An answer may end early; then the rest is
        asked for."""
        found: dict[str, Document] = {}
        while len(found) < len(paths):
            asked = paths[len(found) : len(found) + MANY_FILES]
            body = json.dumps({"paths": asked}).encode()
            response = self._get(pin, "", NDJSON, body)
            if response.status != 200:
                raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
            source_url = response.headers.get(SOURCE_HEADER.lower())
            if pin.realm_url == self.access.own and source_url:
                self.shown_at[source_url] = pin.realm_url
            answered = [json.loads(line) for line in response.body.splitlines()]
            if not answered:
                raise ReplicaUnavailable(
                    f"{response.replica} answered nothing of {len(asked)} files"
                )
            found.update((file["path"], file) for file in answered)
        return found

    def known(self, url: str) -> Document | None:
        """The document of a card, if it has been read."""
        return self._documents.get(url)

    def linked(self, cards: Mapping[str, Document | None]) -> dict[str, Document | None]:
        """The cards that these link to, with None where there is none; without these themselves."""
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
        """The canonical URLs of modules and all that they import, dependencies first.

        What is missing or wrong is passed over: the render will say so at the right card.
        """
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
        """What importing a module asks for in vain."""
        asked, _ = self.reached(url)
        return sorted(each for each in asked if self._module(each).file is None)

    def reached(self, url: str) -> tuple[set[str], bool]:
        """Every URL that importing a module asks for, whether or not anything is there, and whether
        these are all that it could ask for."""
        asked: set[str] = set()
        complete = True
        stack = [url]
        while stack:
            url = stack.pop()
            if url in asked:
                continue
            module = self._module(url)
            asked |= {url, module.file or url}
            complete = complete and module.complete
            stack.extend(module.imports)
        return asked, complete

    def _module(self, url: str) -> Module:
        if url not in self._imports:
            self._imports[url] = self._read_module(url)
        return self._imports[url]

    def _read_module(self, url: str) -> Module:
        if with_composed(url) != url:
            # What an import spells in another way leads to the file itself as well.
            return self._module(with_composed(url))
        place = self.place(url)
        if place is None:
            return Module(None)
        if place.url != url:
            # One identity, wherever it is imported by: a class that is loaded twice is two.
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
        # An extensionless spelling leads to the file itself.
        return module if module.file in (None, url) else self._module(str(module.file))

    def _check_access(self, pin: Pin) -> None:
        """Makes sure, once, that another realm is open: its modules may be known from an earlier
        job. Raises PinEnded."""
        if pin not in self._carried and pin.realm_url not in (self.access.own, BASE_REALM):
            self._get(pin, "", NDJSON, b'{"paths": []}')

    def _carry_over(self, pin: Pin) -> None:
        """Knows the modules of a generation by those of an earlier one: but for what has changed in
        between they are the same."""
        if pin in self._carried:
            return
        self._carried.add(pin)
        if pin.realm_url in self.private:
            return
        advanced = realm_history.advance(pin, self.access)
        if advanced is None:
            return
        before, differing = advanced
        stems = {stem(path) for path in differing}
        for (known_pin, url), module in list(known_modules.items()):
            path = pin.path_of(url)
            if known_pin == before and stems.isdisjoint((stem(path), top_folder(path))):
                known_modules.keep(pin, url, module)

    def source(self, url: str) -> Document:
        """What the sandbox gets for a module's URL: `code`, or the `data` of a file that is none,
        the URL that it leads to (`redirect`), or the `error` of importing it."""
        module = self._module(url)
        if self.locate(url) is None:
            message = f"{url} is not in a realm of this server that everyone may read"
            return import_error(url, 403, "Import refused", message)
        if module.file is None:
            return import_error(url, 404, "Module not found", f"There is no module {url}")
        if module.file != url:
            return {"redirect": module.file}
        if module.refusal:
            return import_error(url, 406, "The module can't be transpiled", module.refusal)
        return {"code" if url.endswith(CODE) else "data": module.text}

    def realms_of(self, modules: Iterable[str]) -> set[str]:
        """The realms whose modules are loaded with these."""
        pins = (self.locate(url) for module in modules for url in self.reached(module)[0])
        return {pin.realm_url for pin in pins if pin is not None}

    def _get(self, pin: Pin, path: str, accept: str = "*/*", body: bytes | None = None) -> Response:
        self.go_on()
        private = pin.realm_url in self.private
        response = get_pinned(pin, path, accept, self.access, private=private, body=body)
        self.read_from = response.replica
        return response
