"""What a render reads: cards, the cards they link to, and modules with everything they import.

Every realm is read at one pinned generation, whichever replica answers. A realm that turns up on
the way (an import or a link across a border) is pinned at the generation that the registry has
when it is first met; the job keeps that, so all of its batches read the same.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from django.conf import settings

from notifications.paths import wrong_with_path
from reindex import history
from reindex.history import EXECUTABLE, stem
from reindex.pins import CLOSED, Access, Pin
from reindex.replicas import ReplicaUnavailable, Response, get_pinned, standing_at

Document: TypeAlias = dict[str, Any]

#: How `@realm/base` is spelt as a URL.
BASE_REALM = f"{settings.REALM_PUBLIC_ORIGIN}/base/"
BASE_MODULE = f"{BASE_REALM}mod.ts"

#: White space as JavaScript has it, which is Python's and the byte order mark.
_S = r"[\s\ufeff]*+"
#: Static and literal dynamic imports in what the transpiler emits. Finding too much is harmless.
_IMPORT = re.compile(rf"""\b(?:from|import){_S}(?:\({_S})?(["'])([^"'\n]+)\1""")

#: What the fleet could serve. Nothing else is ever asked for on a card's behalf.
_SERVABLE = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/[^\s\x00-\x1f\x7f]{0,4000}")

#: A relative reference that ends in a name which every spelling of a URL has in the same way.
_PLAIN = re.compile(r"(\.\.?/(?:[^?#]*/)?)([A-Za-z0-9_-][A-Za-z0-9._-]*)")

#: What stands unescaped in the path of a URL, as JavaScript writes it (WHATWG URL, section 1.3).
_UNESCAPED = "/:@!$&'()*+,;=~-._[]|^"

#: As many files as one request asks for. With the longest paths there are, it is not too long.
MANY_FILES = 1000
NDJSON = "application/x-ndjson"

#: A document that nests deeper is not a card: no template means it, and a parser's stack is finite.
MAX_DEPTH = 100


#: What Python and JavaScript take to mean the same: packages, relative references, and what is
#: spelt out as URLs of realms are. A browser's URLs have more ways to say `..` and `/`.
_ALIKE = re.compile(
    r"@?[A-Za-z][\w./-]*|\.\.?/[^\\\x00-\x20\x7f]*"
    r"|(?:/|https?://[a-z0-9.-]+(?::(?!80/|443/)[0-9]+)?/)(?![/.])(?:(?!/\.)[^\\\x00-\x20\x7f])*"
)
_ESCAPED_DOT = re.compile("%2e", re.IGNORECASE)

#: An import, or what could be one: no `_IMPORT` begins at the same place where a comment stands in
#: between, a quote in the specifier, or anything but a literal.
_MAY_IMPORT = re.compile(
    rf"""\bfrom{_S}(?:["']|/[/*])|\bimport{_S}(?:["'(]|/[/*]|\.{_S}(?:source|defer)\b)"""
)


#: What may follow the specifier of a dynamic import: nothing, or the options.
_CLOSES = re.compile(rf"{_S}[,)]")


@dataclass(frozen=True)
class Module:
    """What a module's URL leads to: a file or none, its imports and whether these are all, and its
    text, or why it has none."""

    file: str | None
    imports: tuple[str, ...] = ()
    complete: bool = True
    text: str = ""
    refusal: str = ""


class _KnownModules(dict[tuple[Pin, str], Module]):
    """What is known of modules of pinned realms: at one generation a module never changes."""

    MAX_CHARACTERS = 32 * 1024 * 1024
    MAX_MODULES = 10_000

    def keep(self, pin: Pin, url: str, module: Module) -> None:
        """Keeps a module, and nothing else where all of them have become too many."""
        self._characters += len(module.text)
        if self._characters > self.MAX_CHARACTERS or len(self) >= self.MAX_MODULES:
            forget_modules()
        self[pin, url] = module

    def clear(self) -> None:
        super().clear()
        self._characters = 0

    _characters = 0


_known_modules = _KnownModules()


#: The Authorization header by which a realm is read; None where that user may not.
Authority: TypeAlias = Callable[[str], str | None]


@dataclass
class Reader:
    """Reads for one job. `pins` are the realms known so far; `pin` says which generation a newly
    met realm is to be read at, given the registry's; `CLOSED` for one that may not be read.

    It reads what everyone may; with an `authority`, which makes the Authorization header for a
    realm that is somebody's to read, what that user may. `private` are the realms that needed one.
    """

    pins: dict[str, int]
    pin: Callable[[str, int], int] = lambda realm_url, generation: generation
    #: Says where the pages of a realm are.
    address: Callable[[str], str] = lambda realm_url: realm_url
    authority: Authority | None = None
    access: Access = field(default_factory=Access)
    private: set[str] = field(default_factory=set)
    #: The replica that was last read from.
    read_from: str = ""
    #: Called before each request, and may end the reading by raising.
    go_on: Callable[[], None] = lambda: None
    _documents: dict[str, Document | None] = field(default_factory=dict)
    _imports: dict[str, Module] = field(default_factory=dict)
    _strangers: set[str] = field(default_factory=set)
    _carried: set[Pin] = field(default_factory=set)
    _closed: set[str] = field(default_factory=set)

    # --- realms ---

    def locate(self, url: str) -> Pin | None:
        """The pin of the realm that a public URL lies in; None outside every realm that this may
        read."""
        known = [realm for realm in self.pins if url.startswith(realm)]
        if known:
            realm_url = max(known, key=len)
            return Pin(realm_url, self.pins[realm_url])
        place = url.rsplit("/", 1)[0]
        if place in self._strangers or not _SERVABLE.fullmatch(url):
            return None
        realm_url, generation = standing_at(url)
        if realm_url in self._closed or not url.startswith(realm_url):
            # A replica's own address stands for the public one, and is nobody's to import from.
            generation = CLOSED
        elif realm_url:
            if generation == CLOSED:
                generation = self._privately(realm_url)
            generation = self.pin(realm_url, generation)
        if generation == CLOSED:
            # A private realm's bytes never reach the render of another.
            self._closed.add(realm_url)
            self._strangers.add(place)
            return None
        self.pins[realm_url] = generation
        return Pin(realm_url, generation)

    def _privately(self, realm_url: str) -> int:
        """The generation of a realm that is not everyone's, for the one user as whom this reads:
        what is made from it is kept for nobody else."""
        header = self.authority(realm_url) if self.authority else None
        if header is None:
            return CLOSED
        found, generation = standing_at(realm_url, header)
        if found != realm_url or generation == CLOSED:
            return CLOSED
        self.private.add(realm_url)
        return generation

    def elsewhere(self) -> dict[str, str]:
        """Where the pages of the realms known so far are, if not at their own URLs."""
        found = {realm_url: self.address(realm_url) for realm_url in sorted(self.pins)}
        return {realm_url: address for realm_url, address in found.items() if address != realm_url}

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
        wanted: dict[Pin, dict[str, str]] = {}
        for url in urls:
            if url in self._documents:
                continue
            pin = self.locate(url)
            path = None if pin is None else possible(card_path(pin, url))
            if pin is None or path is None:
                self._documents[url] = None
            else:
                wanted.setdefault(pin, {})[url] = path
        for pin, paths in wanted.items():
            contents = self._get_many(pin, list(dict.fromkeys(paths.values())))
            for url, path in paths.items():
                content = contents[path]
                self._documents[url] = None if content is None else parse_card(content)

    def _get_many(self, pin: Pin, paths: list[str]) -> dict[str, str | None]:
        """The content of files by path. An answer may end early; then the rest is asked for."""
        found: dict[str, str | None] = {}
        while len(found) < len(paths):
            asked = paths[len(found) : len(found) + MANY_FILES]
            body = json.dumps({"paths": asked}).encode()
            response = self._get(pin, "", NDJSON, body)
            if response.status != 200:
                raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
            answered = [json.loads(line) for line in response.body.splitlines()]
            if not answered:
                raise ReplicaUnavailable(
                    f"{response.replica} answered nothing of {len(asked)} files"
                )
            found.update((file["path"], file["content"]) for file in answered)
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
        pin = self.locate(url)
        if pin is None:
            return Module(None)
        self._check_access(pin)
        self._carry_over(pin)
        module = _known_modules.get((pin, url))
        if module is None:
            path = possible(pin.path_of(url))
            module = Module(None) if path is None else _module_in(url, self._get(pin, path))
            _known_modules.keep(pin, url, module)
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
        advanced = history.advance(pin, self.access)
        if advanced is None:
            return
        before, differing = advanced
        stems = {stem(path) for path in differing}
        for (known_pin, url), module in list(_known_modules.items()):
            if known_pin == before and stem(pin.path_of(url)) not in stems:
                _known_modules.keep(pin, url, module)

    def source(self, url: str) -> Document:
        """What the sandbox gets for a module's URL: `code`, or the `data` of a file that is none,
        the URL that it leads to (`redirect`), or the `error` of importing it."""
        if self.locate(url) is None:
            message = f"{url} is not in a realm of this server that everyone may read"
            return _no_import(url, 403, "Import refused", message)
        module = self._module(url)
        if module.file is None:
            return _no_import(url, 404, "Module not found", f"There is no module {url}")
        if module.file != url:
            return {"redirect": module.file}
        if module.refusal:
            return _no_import(url, 406, "The module can't be transpiled", module.refusal)
        return {"code" if url.endswith(EXECUTABLE) else "data": module.text}

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


def _no_import(url: str, status: int, title: str, message: str) -> Document:
    error = {"status": status, "title": title, "message": message, "causes": [], "module": url}
    return {"error": error}


def card_path(pin: Pin, url: str) -> str:
    """The file of the card at a public URL of a realm."""
    return f"{pin.path_of(url) or 'index'}.json"


def possible(path: str) -> str | None:
    """The path, if a file may have it. No other is asked for: what a request for it would be
    answered says nothing of the realm."""
    return None if wrong_with_path(path) else path


def parse_card(data: bytes | str) -> Document | None:
    """A file's content as a card document, or None if it isn't one.

    References that begin with `/` mean a realm on this server, wherever the card is published, and
    are made absolute here; so is what they say to the card library.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        document = json.loads(text, parse_float=finite, parse_constant=no_number)
    except (ValueError, RecursionError):
        return None
    # Hardly any has to be looked at: what opens fewer brackets can't be deeper.
    brackets = text.count("{") + text.count("[")
    if brackets > MAX_DEPTH and _deeper_than(MAX_DEPTH, document):
        return None
    match document:
        case {"data": {"meta": {"adoptsFrom": {"module": str(), "name": str()} as adopts} as meta}}:
            rooted = {**meta, "adoptsFrom": {**adopts, "module": _rooted(adopts["module"])}}
            relationships = _rooted_links(document["data"].get("relationships"))
            data_ = {**document["data"], "meta": rooted, "relationships": relationships}
            return {**document, "data": data_}
    return None


def finite(literal: str) -> float | None:
    """A number of a JSON document; None for one beyond the range, as JavaScript writes it."""
    return value if isfinite(value := float(literal)) else None


def no_number(literal: str) -> None:
    """Refuses what JSON has no name for. Raises ValueError."""
    raise ValueError(f"{literal} is Python's, not JSON's")


def _deeper_than(depth: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(depth - 1, each) for each in inner)


def _rooted(reference: str) -> str:
    return settings.REALM_PUBLIC_ORIGIN + reference if reference.startswith("/") else reference


def _rooted_links(value: Any) -> Any:
    match value:
        case {"links": {"self": str(link)}}:
            return {**value, "links": {**value["links"], "self": _rooted(link)}}
        case dict():
            return {key: _rooted_links(each) for key, each in value.items()}
        case list():
            return [_rooted_links(each) for each in value]
    return value


def forget_modules() -> None:
    """Empties this process's memory of modules."""
    _known_modules.clear()
    history.forget()


def _module_in(url: str, response: Response) -> Module:
    if response.status == 302:
        return Module(_joined(url, response.headers["location"]))
    if response.status == 406:
        return Module(url, refusal=str(json.loads(response.body)["errors"][0]["message"]))
    if response.status != 200:
        return Module(None)
    text = response.body.decode(errors="replace")
    imports = {match.start(): match[2] for match in _IMPORT.finditer(text)}
    complete = all(map(is_plain, imports.values())) and all(
        match.start() in imports and _is_whole(text, match.start())
        for match in _MAY_IMPORT.finditer(text)
    )
    return Module(url, tuple(imports_of(url, response.body)), complete, text)


def _is_whole(text: str, start: int) -> bool:
    """Whether the literal of an import is all that it says: `import("./a" + b)` goes on."""
    match = _IMPORT.match(text, start)
    if match is None:
        return False
    dynamic = match[0].startswith("import") and "(" in match[0].partition(match[1])[0]
    return not dynamic or bool(_CLOSES.match(text, match.end()))


def module_of(url: str, document: Document) -> str | None:
    """The URL of the module that a card adopts from."""
    return resolve_module(specifier_of(document), url)


def specifier_of(document: Document) -> str:
    """The module that a card adopts from, as the card spells it."""
    return str(document["data"]["meta"]["adoptsFrom"]["module"])


def imports_of(url: str, code: bytes) -> list[str]:
    """The public URLs that the module at `url` imports, by its code, transpiled or not."""
    text = code.decode(errors="replace")
    imports = [resolve_module(match[2], url) for match in _IMPORT.finditer(text)]
    return [each for each in imports if each is not None]


def resolve_module(specifier: str, base: str) -> str | None:
    """The public URL that a specifier means in the module or card at `base`; None for packages."""
    if specifier == "@realm/base":
        return BASE_MODULE
    if specifier.startswith(("./", "../", "/", "http://", "https://")):
        return _joined(base, _rooted(specifier))
    return None


def is_plain(specifier: str) -> bool:
    """Whether `resolve_module` is sure to say what JavaScript will make of a specifier."""
    return bool(_ALIKE.fullmatch(specifier)) and not _ESCAPED_DOT.search(specifier)


def module_url(realm_url: str, path: str) -> str:
    """The URL of the module in a file, spelt as its own code would spell it."""
    return realm_url + quote(path, safe=_UNESCAPED)


def card_url(realm_url: str, path: str) -> str:
    """The public URL of the card in a file, spelt as its own code would spell it."""
    return realm_url + quote(path.removesuffix(".json"), safe=_UNESCAPED)


def _joined(base: str, reference: str) -> str | None:
    """The URL that a reference means, without query and fragment; None where nothing can be."""
    if not reference.startswith(("./", "../")):
        return _joined_once(base, reference)
    # All files of a folder mean the same by it, and where a plain name leads, its folder tells.
    base = f"{base.rpartition('/')[0]}/"
    plain = _PLAIN.fullmatch(reference)
    if plain is None:
        return _joined_once(base, reference)
    folder = _joined_once(base, plain[1])
    url = f"{folder}{plain[2]}"
    return url if folder and _SERVABLE.fullmatch(url) else None


@lru_cache(maxsize=50_000)
def _joined_once(base: str, reference: str) -> str | None:
    try:
        parts = urlsplit(urljoin(base, reference))
        # What is escaped already stays as it is.
        path = quote(parts.path, safe=f"{_UNESCAPED}%")
    except ValueError:
        return None
    url = f"{parts.scheme}://{parts.netloc}{path}"
    return url if _SERVABLE.fullmatch(url) else None


def links_of(url: str, document: Document) -> list[str]:
    """The public URLs of the cards that a card links to."""
    relationships = document["data"].get("relationships")
    found: list[str] = []
    if not isinstance(relationships, dict):
        return found
    for value in relationships.values():
        for each in value if isinstance(value, list) else [value]:
            match each:
                case {"links": {"self": str(link)}} if link:
                    target = _joined(url, link)
                    if target is not None:
                        found.append(target.removesuffix(".json"))
    return found
