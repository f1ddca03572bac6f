"""Renders the cards of a batch, each beside those that may share a sandbox with it.

What may be imported is decided here: a sandbox gets the modules of the realms that it was started
for, and no others. Cards that load code of another realm are rendered apart from those that don't,
and from those that load other realms' code: what one realm's code does can change only pages that
show it. Their rows depend on every module that their sandbox was given.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from reindex.prerender import sandbox
from reindex.prerender.dead_references import DeadReferences
from reindex.prerender.hangs import LostTime
from reindex.prerender.host import Library
from reindex.prerender.pool import renderers
from reindex.prerender.results import MAX_WARNINGS, Message, checked_card, failed
from reindex.prerender.sandbox import SandboxDied
from reindex.reading.dependency_keys import DependencyTracker
from reindex.reading.documents import Document, links_of, module_of
from reindex.reading.reader import Reader
from reindex.reading.references import BASE_MODULE, BASE_REALM

#: So far the links of a whole batch are followed at once, a level each time that one of its cards
#: turns out to show more. What lies further is read for the card that comes to it.
LEVELS_AT_ONCE = 3
#: So many processes in a row may each find but another module that doesn't end. The card that they
#: were about has an error then.
MAX_IN_VAIN = 5

#: The other realms whose code a card loads.
Strangers: TypeAlias = frozenset[str]


def library(reader: Reader) -> Library:
    """The card library as a reader reads it."""
    modules = reader.modules([BASE_MODULE])
    return Library(BASE_REALM, BASE_MODULE, {url: reader.source(url) for url in modules})


def render_cards(
    reader: Reader,
    realm: Document,
    cards: Mapping[str, Document],
    receive: Callable[[Message], None],
    go_on: Callable[[], None],
    lost: LostTime,
) -> None:
    """Renders cards, given by public URL, and hands over one result for each. `go_on` is called now
    and then, and ends it by raising. `lost` knows what is not tried again, and is told what hangs.

    A card that hangs, or takes the process with it, gets an error document; the others are
    rendered. Raises ReplicaUnavailable where the fault is none of theirs.
    """
    documents: dict[str, Document | None] = dict(cards)
    _Batch(reader, realm, list(cards), _Known(reader, documents), receive, go_on, lost).render()


@dataclass
class _Known:
    """The documents that the renders of a batch may show, as far as they are known."""

    reader: Reader
    documents: dict[str, Document | None]
    #: What the linked cards adopt from, with the realms whose code is loaded with it.
    modules: dict[str, Strangers] = field(default_factory=dict)
    _levels: int = 0

    def __post_init__(self) -> None:
        self._learn(self.documents)
        self._add_level()

    def supply(self, urls: list[str]) -> Message:
        """What a render has come to. Cards of a batch are much alike: where one needs what its
        links link to, so will the others, and all of it is read at once."""
        before = self.documents.keys() | set()
        if self._levels < LEVELS_AT_ONCE:
            self._add_level()
        wanted = [url for url in urls if url not in self.documents]
        self.reader.read_cards(wanted)
        self._learn({url: self.reader.known(url) for url in wanted})
        return {url: self.documents[url] for url in (self.documents.keys() - before) | set(urls)}

    def realms_of(self, url: str) -> set[str]:
        """The realms whose code a card loads for itself and for what it links to."""
        document = self.documents[url]
        assert document is not None
        found: set[str] = set()
        for each in (url, *links_of(url, document)):
            linked = self.documents.get(each)
            module = None if linked is None else module_of(each, linked)
            found |= self.modules.get(module or "", frozenset())
        return found

    def _add_level(self) -> None:
        self._levels += 1
        self._learn(self.reader.linked(self.documents))

    def _learn(self, documents: Mapping[str, Document | None]) -> None:
        found = {url: document for url, document in documents.items() if document is not None}
        modules = filter(None, {module_of(url, document) for url, document in found.items()})
        for module in sorted(set(modules) - self.modules.keys()):
            self.modules[module] = frozenset(self.reader.realms_of([module]))
        self.documents |= documents


@dataclass
class _Batch:
    """Renders the cards of a batch, those together that load the same other realms' code."""

    reader: Reader
    realm: Document
    cards: list[str]
    known: _Known
    receive: Callable[[Message], None]
    go_on: Callable[[], None]
    lost: LostTime

    def __post_init__(self) -> None:
        self.realm_url = str(self.realm["url"])
        self.library = library(self.reader)
        self.dependencies = DependencyTracker(self.reader, self.realm_url)
        self.dead = DeadReferences(self.reader, self.realm_url)
        modules = {self._module(url) for url in self.cards} - {None}
        self.imports = {each: self.reader.modules([each]) for each in sorted(filter(None, modules))}

    def render(self) -> None:
        """Renders all of them. The fewer realms' code a card loads, the sooner."""
        self.lost.recall(
            {*self.imports, *(each for all_ in self.imports.values() for each in all_)}
        )
        waiting: dict[Strangers, list[str]] = {}
        for url in self.cards:
            waiting.setdefault(self.strangers(self.known.realms_of(url)), []).append(url)
        while waiting:
            strangers = min(waiting, key=lambda each: (len(each), sorted(each)))
            group = _Group(self, strangers)
            group.render(waiting.pop(strangers))
            for url, further in group.moved.items():
                waiting.setdefault(further, []).append(url)

    def strangers(self, realms: Iterable[str]) -> Strangers:
        """Those of some realms whose code is neither this realm's own nor the server's."""
        return frozenset(realms) - {self.realm_url, BASE_REALM}

    def answer(
        self, result: Message, doubtful: bool, strangers: Strangers, given: Iterable[str]
    ) -> None:
        """Hands over a result with whose code made it, and what it was made from, `given` among
        it."""
        url, documents = result["url"], self.known.documents
        document = documents[url]
        assert document is not None
        links = [link for link in result.get("links", ()) if link in documents]
        doubtful = doubtful or len(links) < len(result.get("links", ()))
        keys, settled = self.dependencies.of(url, document, links)
        dead, files = self.dead.warnings(result.get("references", ()))
        keys = sorted({*keys, *files, *self.dependencies.of_modules(given)})
        named = _with_module(result, self._module(url))
        if "html" in named:
            named = {**named, "html": {**named["html"], "lang": self.realm["lang"]}}
        warnings = [*result.get("warnings", ()), *dead][:MAX_WARNINGS]
        told = {"made_from": keys, "settled": settled and not doubtful, "warnings": warnings}
        self.receive({**named, **told, "strangers": sorted(strangers)})
        self.go_on()

    def _module(self, url: str) -> str | None:
        document = self.known.documents[url]
        return None if document is None else module_of(url, document)


@dataclass
class _Group:
    """Renders some cards of a batch in as many processes as it takes, each of which gets the code
    of the batch's own realm and of these others."""

    batch: _Batch
    strangers: Strangers
    #: Cards that turned out to load more than that, with all that they load.
    moved: dict[str, Strangers] = field(default_factory=dict)
    _answers: list[tuple[Message, bool]] = field(default_factory=list)
    #: The modules that the processes were given, and those that they had to ask for.
    _given: set[str] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)

    def render(self, urls: list[str]) -> None:
        """Renders cards, each of which is answered or moved."""
        self._render(urls, dict(self.batch.lost.modules))
        for result, doubtful in self._answers:
            self.batch.answer(result, doubtful, self.strangers, self._given)

    def _render(self, urls: list[str], hung: Message, *, again: bool = False) -> None:
        """Renders cards in one process; if it dies, what is left is rendered in halves. `hung` are
        modules that are known not to end: what is rendered without them may come out otherwise
        another time."""
        left = dict.fromkeys(urls)
        unavailable: Message | None = hung
        lost = self.batch.lost

        def take(result: Message) -> None:
            lost.heard(result.get("url"))
            if result["type"] == "stopped":
                return
            if result["type"] == "error":
                raise SandboxDied(result["error"]["message"])
            if result["url"] in left:
                answer(checked_card(result), bool(hung))

        def answer(result: Message, doubtful: bool) -> None:
            del left[result["url"]]
            self._answer(result, doubtful)

        # Each process but the last answers a card that hangs, or names a module that does.
        in_vain = 0
        while left and unavailable is not None:
            for url in list(left):
                if error := lost.error_of(url):
                    answer({"type": "card", "url": url, "error": error}, True)
            if not left:
                return
            self.batch.go_on()
            hung, before = unavailable, len(left)
            try:
                unavailable = self._run(left, take, hung)
                if unavailable is not None:
                    lost.stopped(unavailable)
            except _Moved:
                left = dict.fromkeys(url for url in left if url not in self.moved)
                continue
            except SandboxDied as death:
                lost.died(list(left))
                self._divide(list(left), death, hung, again=again)
                return
            in_vain = in_vain + 1 if len(left) == before else 0
            if in_vain == MAX_IN_VAIN:
                answer(failed(next(iter(left)), "it leads to ever more that does not end"), True)
                in_vain = 0
        for url in list(left):
            answer(failed(url, "it was not answered"), True)

    def _answer(self, result: Message, doubtful: bool) -> None:
        """Answers a card that is not moved: at once where no other realm's code is loaded."""
        if result["url"] in self.moved:
            return
        if self.strangers:
            self._answers.append((result, doubtful))
        else:
            self.batch.answer(result, doubtful, self.strangers, self._asked)

    def _run(
        self, left: Mapping[str, None], take: Callable[[Message], None], unavailable: Message
    ) -> Message | None:
        batch, documents = self.batch, self.batch.known.documents

        def supply(asked: Message) -> Message:
            batch.go_on()
            with batch.lost.watch.paused():
                found = batch.known.supply(asked["documents"]) if asked["documents"] else {}
                # The first that has no answer yet is what the process is at.
                at = next(iter(left))
                sources = {
                    url: each
                    for module in asked["modules"]
                    for url, each in self._source(module, at).items()
                }
            if asked["dynamic"] and at in self.moved:
                # The module would go on without it, and be no more what the next cards import.
                raise _Moved
            return {"documents": found, "sources": sources}

        entries = [module for module in batch.known.modules if self._may_load(module)]
        task = {
            "type": "cards",
            "realm": batch.realm,
            "imports": batch.imports,
            "addresses": batch.reader.elsewhere(),
            "cards": [{"url": url, "doc": documents[url]} for url in left],
            # Also those of the batch that are rendered already, or by another process.
            "linked": {url: doc for url, doc in documents.items() if url not in left},
            "sources": self._sources(entries),
        }
        process = renderers.acquire(batch.library)
        batch.lost.watch.start(process.process.pid)
        hung = sandbox.run(task, process, take, supply, unavailable)
        if hung is None:
            renderers.release(process)
        return hung

    # --- What may be imported ---

    def _may_load(self, module: str) -> bool:
        """Whether all that the type of a card imports may be loaded here."""
        return self.batch.strangers(self.batch.known.modules[module]) <= self.strangers

    def _source(self, url: str, card: str) -> dict[str, Message]:
        """What a sandbox gets for a module that it asks for, with all that this imports. Where that
        is other realms' code than this group may load, the card is moved."""
        realms = self.batch.strangers(self.batch.reader.realms_of([url]))
        if not realms <= self.strangers:
            self.moved[card] = self.strangers | realms
            return {url: refused(url, 503, "it is rendered apart from what does not load it")}
        # Nobody knew that it is imported: what is rendered from here on may depend on it.
        self._asked |= self.batch.reader.reached(url)[0]
        return self._sources([url])

    def _sources(self, modules: Iterable[str]) -> dict[str, Message]:
        reader = self.batch.reader
        reached = {url for module in modules for url in reader.reached(module)[0]}
        given = reached - self.batch.library.sources.keys()
        self._given |= given
        return {url: reader.source(url) for url in sorted(given)}

    # --- Processes that die ---

    def _divide(self, urls: list[str], death: SandboxDied, hung: Message, *, again: bool) -> None:
        if len(urls) == 1 and again:
            self._answer(failed(urls[0], death), True)
        elif len(urls) == 1:
            # Somebody else may have ended it: only a card that does so twice is to blame.
            self._render(urls, hung, again=True)
        elif urls:
            half = len(urls) // 2
            self._render(urls[:half], hung)
            self._render(urls[half:], hung)


class _Moved(Exception):
    """Card code waits for what its sandbox is not to have; it is ended."""


def refused(url: str, status: int, why: str) -> Message:
    """What a sandbox gets for a module that it may not import."""
    message = f"{url} can't be imported: {why}"
    error = {"status": status, "title": "Import refused", "message": message, "causes": []}
    return {"error": {**error, "module": url}}


def _with_module(result: Message, module: str | None) -> Message:
    """The result; its error names a module, the card's own unless it says another."""
    error = result.get("error")
    if not error or error.get("module") or module is None:
        return result
    return {**result, "error": {**error, "module": module}}
