"""What a render reads: cards, the cards they link to, and modules with everything they import.

Every realm is read at one pinned generation, whichever replica answers. A realm that turns up on
the way (an import or a link across a border) is pinned at the generation that the registry has
when it is first met; the job keeps that, so all of its batches read the same.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urljoin, urlsplit

from django.conf import settings

from reindex.pins import Pin
from reindex.replicas import Response, ask_registry, get_pinned

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

#: A document that nests deeper is not a card: no template means it, and a parser's stack is finite.
MAX_DEPTH = 100


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
    _imports: dict[str, tuple[str, list[str]] | None] = field(default_factory=dict)
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
        pin = self.locate(url)
        if pin is None:
            return None
        path = unquote(url.removeprefix(pin.realm_url))
        response = self._get(pin, f"{path or 'index'}.json", SOURCE)
        return parse_card(response.body) if response.status == 200 else None

    def linked(self, cards: Mapping[str, Document]) -> dict[str, Document]:
        """The cards that these link to, and those again, within the link depth."""
        found: dict[str, Document] = {}
        front = dict(cards)
        for _ in range(LINK_DEPTH):
            targets = {t for url, document in front.items() for t in links_of(url, document)}
            front = {}
            for target in sorted(targets - found.keys() - cards.keys()):
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
            if module is None or module[0] in entered:
                continue
            canonical, imports = module
            entered.add(canonical)
            stack.append((canonical, True))
            stack.extend((imported, False) for imported in reversed(imports))
        return order

    def _module(self, url: str) -> tuple[str, list[str]] | None:
        if url not in self._imports:
            self._imports[url] = self._read_module(url)
        return self._imports[url]

    def _read_module(self, url: str) -> tuple[str, list[str]] | None:
        pin = self.locate(url)
        if pin is None:
            return None
        response = self._get(pin, unquote(url.removeprefix(pin.realm_url)))
        if response.status == 302:
            file = _joined(url, response.headers["location"])
            return self._module(file) if file else None
        if response.status == 406:
            return url, []
        if response.status != 200:
            return None
        return url, imports_of(url, response.body)

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


def parse_card(data: bytes) -> Document | None:
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
