"""Renders a batch, which is a part of the cards of one realm. Cards that load code of the same
realms share a sandbox.

A sandbox may import modules only of the realms that its cards use. So a realm's code can't affect
pages that don't use the realm. But a module may affect all pages of its sandbox. A sandbox may load
code of a third realm, which is neither the rendered realm nor the card library's realm. In this
case, each card of the sandbox depends on every module that the sandbox was given.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
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

#: At most this many levels of links are read for all cards of a batch. The first level has the
#: cards that the batch's cards link to, the second has the cards that the first level links to, and
#: so on. The first level is read at the start. Each time that a card needs an unread document, the
#: next level is read. Deeper links are read only for the card that needs them.
LEVELS_AT_ONCE = 3
#: The number of consecutive prerenderers (processes that render cards) that may end without the
#: result of any card. A prerenderer may end without a result if the module of a linked card hangs.
#: After MAX_FRUITLESS such prerenderers, the next card gets an error.
MAX_FRUITLESS = 5

#: The realms that a card loads code from, without the card's own realm and the card library's
#: realm.
Strangers: TypeAlias = frozenset[str]


def library(reader: Reader) -> Library:
    """Returns the card library's modules at the generation that `reader` reads."""
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
    """Renders cards and calls `receive` with each card's result. The keys of `cards` are public
    URLs. `go_on` is called regularly and may raise an exception to end the rendering. `lost` knows
    which cards and modules hang, and records new hangs.

    A card that hangs or kills its process gets an error document; the other cards are rendered.
    Raises ReplicaUnavailable if the documents or modules can't be read.
    """
    documents: dict[str, Document | None] = dict(cards)
    _Batch(reader, realm, list(cards), _Known(reader, documents), receive, go_on, lost).render()


@dataclass
class _Known:
    """The documents read so far: the cards of a batch and the cards that they link to."""

    reader: Reader
    documents: dict[str, Document | None]
    #: The modules that define the types of these cards. Each module is mapped to all realms that it
    #: loads code from.
    modules: dict[str, Strangers] = field(default_factory=dict)
    #: For each card's URL, the module that defines the card's type.
    module_of: dict[str, str] = field(default_factory=dict)
    _levels: int = 0

    def __post_init__(self) -> None:
        self._learn(self.documents)
        self._add_level()

    def supply(self, urls: list[str]) -> Message:
        """Returns the documents at `urls`, which a process requests while it renders a card. If one
        card needs more linked documents, the other cards of the batch probably need more, too. So
        this method also reads and returns the next level of linked documents, until LEVELS_AT_ONCE
        levels are read."""
        before = self.documents.keys() | set()
        if self._levels < LEVELS_AT_ONCE:
            self._add_level()
        wanted = [url for url in urls if url not in self.documents]
        self.reader.read_cards(wanted)
        self._learn({url: self.reader.known(url) for url in wanted})
        return {url: self.documents[url] for url in (self.documents.keys() - before) | set(urls)}

    def realms_of(self, url: str) -> set[str]:
        """Returns the realms that a card and its linked cards load code from."""
        document = self.documents[url]
        assert document is not None
        realms: set[str] = set()
        for each in (url, *links_of(url, document)):
            if each in self.module_of:
                realms |= self.modules[self.module_of[each]]
        return realms

    def _add_level(self) -> None:
        self._levels += 1
        self._learn(self.reader.linked(self.documents))

    def _learn(self, documents: Mapping[str, Document | None]) -> None:
        for url in documents.keys() - self.module_of.keys():
            document = documents[url]
            module = None if document is None else module_of(url, document)
            if module is not None:
                self.module_of[url] = module
        for module in sorted(set(self.module_of.values()) - self.modules.keys()):
            self.modules[module] = frozenset(self.reader.realms_of([module]))
        self.documents |= documents


@dataclass
class _Batch:
    """Renders the cards of a batch, in groups. All cards of a group load code of the same set of
    realms."""

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
        module_of = self.known.module_of
        modules = sorted({module_of[url] for url in self.cards if url in module_of})
        self.imports = {each: self.reader.modules([each]) for each in modules}

    def render(self) -> None:
        """Renders all cards. The group that loads code of the fewest other realms comes first,
        because this group may leave cards to groups that load code of more realms."""
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
        """Returns `realms` without the batch's own realm and the card library's realm."""
        return frozenset(realms) - {self.realm_url, BASE_REALM}

    def answer(
        self, result: Message, doubtful: bool, strangers: Strangers, given: Iterable[str]
    ) -> None:
        """Passes a card's result to `receive`, with further values: the dependency keys, which
        identify what the card was made from; the warnings; and the realms in `strangers`. The
        dependency keys include those of the modules in `given`. If the result is `doubtful`, the
        card isn't cacheable, so the next job renders it again."""
        url, documents = result["url"], self.known.documents
        document = documents[url]
        assert document is not None
        links = [link for link in result.get("links", ()) if link in documents]
        doubtful = doubtful or len(links) < len(result.get("links", ()))
        keys, cacheable = self.dependencies.of(url, document, links)
        dead, files = self.dead.warnings(result.get("references", ()))
        keys = sorted({*keys, *files, *self.dependencies.of_modules(given)})
        named = _with_module(result, self.known.module_of.get(url))
        if "html" in named:
            named = {**named, "html": {**named["html"], "lang": self.realm["lang"]}}
        warnings = [*result.get("warnings", ()), *dead][:MAX_WARNINGS]
        self.receive({
            **named,
            "made_from": keys,
            "cacheable": cacheable and not doubtful,
            "warnings": warnings,
            "strangers": sorted(strangers),
        })  # fmt: skip


@dataclass
class _Group:
    """Renders a group of a batch's cards, in as many processes as needed. The processes may load
    the card library, the code of the rendered realm, and the code of the realms in `strangers`."""

    batch: _Batch
    strangers: Strangers
    #: The cards that this group leaves to later groups. These cards need code that this group may
    #: not load. Each card's URL is mapped to the `strangers` of the later group: the `strangers` of
    #: this group and the realms that contain the missing code.
    moved: dict[str, Strangers] = field(default_factory=dict)
    _answers: list[tuple[Message, bool]] = field(default_factory=list)
    #: `_given` has the modules that were sent to the processes. `_asked` has the modules that the
    #: processes requested.
    _given: set[str] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)

    def render(self, urls: list[str]) -> None:
        """Renders cards. Each card gets a result or is moved to another group."""
        try:
            self._render(urls, dict(self.batch.lost.modules))
        finally:
            # The results so far are passed on even if `go_on` has ended the rendering. These
            # results depend on the modules in `_given`.
            for result, doubtful in self._answers:
                self.batch.answer(result, doubtful, self.strangers, self._given)

    def _render(self, urls: list[str], hung: Message, *, again: bool = False) -> None:
        """Renders cards. If a process dies, the cards without a result are divided into halves,
        which are rendered separately. `hung` has the errors of the modules that are known to hang.
        The processes don't load these modules. If `hung` isn't empty, all results are marked as
        doubtful. `again` is true if `urls` has one card and a process has already died while it
        rendered this card."""
        left = dict.fromkeys(urls)
        unavailable: Message | None = hung
        lost = self.batch.lost

        # Each round of the loop runs one process. If the process does its whole task, `unavailable`
        # becomes None. If a card or module hangs, or a card ends its sandbox, `unavailable` gets
        # the errors of all modules that are known to hang.
        fruitless = 0
        while left and unavailable is not None:
            for url in list(left):
                if error := lost.error_of(url):
                    self._settle(left, {"type": "card", "url": url, "error": error}, True)
            if not left:
                return
            self.batch.go_on()
            hung, before = unavailable, len(left)
            try:
                take = partial(self._take, left, doubtful=bool(hung))
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
            fruitless = fruitless + 1 if len(left) == before else 0
            if fruitless == MAX_FRUITLESS:
                card = next(iter(left))
                self._settle(left, failed(card, "it loads too many modules that hang"), True)
                fruitless = 0
        for url in list(left):
            self._settle(left, failed(url, "the prerenderer returned no result"), True)

    def _take(self, left: dict[str, None], result: Message, *, doubtful: bool) -> None:
        """Handles one message from the prerenderer's process. Raises SandboxDied if the message
        reports an error of the process."""
        self.batch.lost.heard(result.get("url"))
        if result["type"] == "error":
            raise SandboxDied(result["error"]["message"])
        if result["type"] != "stopped" and result["url"] in left:
            self._settle(left, checked_card(result), doubtful)

    def _settle(self, left: dict[str, None], result: Message, doubtful: bool) -> None:
        del left[result["url"]]
        self._answer(result, doubtful)

    def _answer(self, result: Message, doubtful: bool) -> None:
        """Passes a card's result on, unless the card was moved to another group. If the group loads
        other realms' code, the result is kept until the group is done, because each result depends
        on all modules that the group was given."""
        if result["url"] in self.moved:
            return
        if self.strangers:
            self._answers.append((result, doubtful))
        else:
            self.batch.answer(result, doubtful, self.strangers, self._asked)
        self.batch.go_on()

    def _run(
        self, left: Mapping[str, None], take: Callable[[Message], None], unavailable: Message
    ) -> Message | None:
        batch, documents = self.batch, self.batch.known.documents

        def supply(needs: Message) -> Message:
            batch.go_on()
            with batch.lost.watch.paused():
                supplied = batch.known.supply(needs["documents"]) if needs["documents"] else {}
                # The process renders the first card that has no answer yet.
                at = next(iter(left))
                sources = {
                    url: each
                    for module in needs["modules"]
                    for url, each in self._source(module, at).items()
                }
            if needs["dynamic"] and at in self.moved:
                # Card code can continue after a refused `import()`. Without this exception, the
                # process would render the next cards with a module that lacks the import.
                raise _Moved
            return {"documents": supplied, "sources": sources}

        entries = [module for module in batch.known.modules if self._may_load(module)]
        task = {
            "type": "cards",
            "realm": batch.realm,
            "imports": batch.imports,
            "addresses": batch.reader.elsewhere(),
            "cards": [{"url": url, "doc": documents[url]} for url in left],
            # `linked` includes cards of the batch that are already rendered or belong to another
            # group.
            "linked": {url: doc for url, doc in documents.items() if url not in left},
            "sources": self._sources(entries),
        }
        process = renderers.acquire(batch.library)
        batch.lost.watch.start(process.process.pid)
        hung = sandbox.run(task, process, take, supply, unavailable)
        if hung is None:
            renderers.release(process)
        return hung

    # --- Allowed imports ---

    def _may_load(self, module: str) -> bool:
        """Returns whether this group may load a module and everything that the module imports."""
        return self.batch.strangers(self.batch.known.modules[module]) <= self.strangers

    def _source(self, url: str, card: str) -> dict[str, Message]:
        """Returns the sources of a module that a sandbox requests, and the sources of all the
        module's imports. If the module needs code that this group may not load, returns an error
        for the module and moves the card `card` to another group."""
        realms = self.batch.strangers(self.batch.reader.realms_of([url]))
        if not realms <= self.strangers:
            self.moved[card] = self.strangers | realms
            return {url: refused(url, 503, "its realm's code is not loaded in this sandbox")}
        # The import wasn't known when the process got its task. All later results of the process
        # may depend on this import.
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
            # Perhaps the card didn't cause the process to die. So the card fails only if a second
            # process dies, too.
            self._render(urls, hung, again=True)
        elif urls:
            half = len(urls) // 2
            self._render(urls[:half], hung)
            self._render(urls[half:], hung)


class _Moved(Exception):
    """Ends a process because its card code waits for a module that the sandbox may not load."""


def refused(url: str, status: int, why: str) -> Message:
    """Returns the error that a sandbox gets when it may not import a module."""
    message = f"{url} can't be imported: {why}"
    error = {"status": status, "title": "Import refused", "message": message, "causes": []}
    return {"error": {**error, "module": url}}


def _with_module(result: Message, module: str | None) -> Message:
    """Adds the card's own module to a result's error if the error has no module."""
    error = result.get("error")
    if not error or error.get("module") or module is None:
        return result
    return {**result, "error": {**error, "module": module}}
