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
from urllib.parse import quote, unquote, urljoin, urlsplit

from django.conf import settings

from reindex.pins import Pin
from reindex.replicas import ReplicaUnavailable, Response, ask_registry, get_pinned

Document: TypeAlias = dict[str, Any]

SOURCE = "application/vnd.card+source"
#: How `@realm/base` is spelt as a URL.
BASE_REALM = f"{settings.REALM_PUBLIC_ORIGIN}/base/"
BASE_MODULE = f"{BASE_REALM}mod.ts"

#: Static and literal dynamic imports in what the transpiler emits. Finding too much is harmless.
_IMPORT = re.compile(r"""\b(?:from|import)\s*\(?\s*(["'])([^"'\n]+)\1""")

#: What the fleet could serve. Nothing else is ever asked for on a card's behalf.
_SERVABLE = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/[^\s\x00-\x1f\x7f]{0,4000}")

#: What stands unescaped in the path of a URL, as JavaScript writes it (WHATWG URL, section 1.3).
_UNESCAPED = "/:@!$&'()*+,;=~-._[]|^"

#: Links are followed this far from the cards of a batch: what an embedded card may show in turn.
LINK_DEPTH = 3

#: As many files as one request asks for.
MANY_FILES = 2000
NDJSON = "application/x-ndjson"

#: A document that nests deeper is not a card: no template means it, and a parser's stack is finite.
MAX_DEPTH = 100


#: A dynamic import: what it imports can be told only where it names nothing but a literal.
_DYNAMIC = re.compile(r"""\bimport\s*(?:/[/*].*?)?\((?!\s*(["'])[^"'\n]+\1\s*\))""", re.DOTALL)


@dataclass(frozen=True)
class Module:
    """What a module's URL leads to: a file, or none, its imports, and whether these are all."""

    file: str | None
    imports: tuple[str, ...] = ()
    complete: bool = True


#: What is known of modules of pinned realms: at one generation a module never changes.
_known_modules: dict[tuple[Pin, str], Module] = {}
KNOWN_MODULES = 10_000


@dataclass
class Reader:
    """Reads for one job. `pins` are the realms known so far; `pin` says which generation a newly
    met realm is to be read at, given the registry's."""

    pins: dict[str, int]
    pin: Callable[[str, int], int] = lambda realm_url, generation: generation
    replica: str | None = None
    #: The replica that was last read from.
    read_from: str = ""
    _documents: dict[str, Document | None] = field(default_factory=dict)
    _imports: dict[str, Module] = field(default_factory=dict)
    _strangers: set[str] = field(default_factory=set)

    # --- realms ---

    def locate(self, url: str) -> Pin | None:
        """The pin of the realm that a public URL lies in; None outside every public realm."""
        known = [realm for realm in self.pins if url.startswith(realm)]
        if known:
            realm_url = max(known, key=len)
            return Pin(realm_url, self.pins[realm_url])
        place = url.rsplit("/", 1)[0]
        if place in self._strangers or not _SERVABLE.fullmatch(url):
            return None
        told = ask_registry(url).headers
        realm_url = told.get("x-boxel-realm-url", "")
        # A private realm's bytes never reach the render of another.
        if not realm_url or told.get("x-boxel-realm-public-readable") != "true":
            self._strangers.add(place)
            return None
        self.pins[realm_url] = self.pin(realm_url, int(told["x-realm-generation"]))
        return Pin(realm_url, self.pins[realm_url])

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
            if pin is None:
                self._documents[url] = None
            else:
                wanted.setdefault(pin, {})[url] = card_path(pin, url)
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
            response = get_pinned(pin, "", NDJSON, self.replica, body=body)
            if response.status != 200:
                raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
            self.read_from = response.replica
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

    def linked(self, cards: Mapping[str, Document]) -> dict[str, Document]:
        """The cards that these link to, and those again, within the link depth."""
        found: dict[str, Document] = {}
        front = dict(cards)
        for _ in range(LINK_DEPTH):
            targets = {t for url, document in front.items() for t in links_of(url, document)}
            front = {}
            wanted = sorted(targets - found.keys() - cards.keys())
            self.read_cards(wanted)
            for target in wanted:
                document = self.card(target)
                if document is not None:
                    front[target] = document
            found |= front
        return found

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
        module = _known_modules.get((pin, url))
        if module is None:
            module = _module_in(url, self._get(pin, unquote(url.removeprefix(pin.realm_url))))
            if len(_known_modules) >= KNOWN_MODULES:
                forget_modules()
            _known_modules[pin, url] = module
        # An extensionless spelling leads to the file itself.
        return module if module.file in (None, url) else self._module(str(module.file))

    def refusal(self, url: str) -> str | None:
        """What the transpiler said of a module that it refused."""
        pin = self.locate(url)
        if pin is None:
            return None
        response = self._get(pin, unquote(url.removeprefix(pin.realm_url)))
        return (
            str(json.loads(response.body)["errors"][0]["message"])
            if response.status == 406
            else None
        )

    def _get(self, pin: Pin, path: str, accept: str = "*/*") -> Response:
        response = get_pinned(pin, path, accept, self.replica)
        self.read_from = response.replica
        return response


def card_path(pin: Pin, url: str) -> str:
    """The file of the card at a public URL of a realm."""
    return f"{unquote(url.removeprefix(pin.realm_url)) or 'index'}.json"


def parse_card(data: bytes | str) -> Document | None:
    """A file's content as a card document, or None if it isn't one.

    References that begin with `/` mean a realm on this server, wherever the card is published, and
    are made absolute here; so is what they say to the card library.
    """
    try:
        document = json.loads(data, parse_float=_finite, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    if _deeper_than(MAX_DEPTH, document):
        return None
    match document:
        case {"data": {"meta": {"adoptsFrom": {"module": str(), "name": str()} as adopts} as meta}}:
            rooted = {**meta, "adoptsFrom": {**adopts, "module": _rooted(adopts["module"])}}
            relationships = _rooted_links(document["data"].get("relationships"))
            data_ = {**document["data"], "meta": rooted, "relationships": relationships}
            return {**document, "data": data_}
    return None


def _finite(literal: str) -> float | None:
    # As JavaScript writes a number that is beyond its range.
    return value if isfinite(value := float(literal)) else None


def _no_number(literal: str) -> None:
    raise ValueError(f"{literal} is Python's, not JSON's")


def _deeper_than(depth: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(depth - 1, each) for each in inner)


def _rooted(reference: str) -> str:
    public = settings.REALM_PUBLIC_ORIGIN
    return public + reference if reference.startswith("/") else reference


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


def _module_in(url: str, response: Response) -> Module:
    if response.status == 302:
        return Module(_joined(url, response.headers["location"]))
    if response.status == 406:
        return Module(url)
    if response.status != 200:
        return Module(None)
    text = response.body.decode(errors="replace")
    return Module(url, tuple(imports_of(url, response.body)), not _DYNAMIC.search(text))


def module_of(url: str, document: Document) -> str | None:
    """The URL of the module that a card adopts from."""
    return resolve_module(document["data"]["meta"]["adoptsFrom"]["module"], url)


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


def card_url(realm_url: str, path: str) -> str:
    """The public URL of the card in a file, spelt as its own code would spell it."""
    return realm_url + quote(path.removesuffix(".json"), safe=_UNESCAPED)


def _joined(base: str, reference: str) -> str | None:
    """The URL that a reference means, without query and fragment; None where nothing can be."""
    if reference.startswith(("./", "../")):
        # All files of a folder mean the same by it.
        base = f"{base.rpartition('/')[0]}/"
    return _joined_once(base, reference)


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
