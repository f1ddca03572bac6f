"""The prerenderer as the rest of the project sees it: cards to HTML, modules to definitions."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from definitions.lookup import Built, Located
from reindex import host, sandbox
from reindex.made_from import Origins
from reindex.reader import BASE_MODULE, Authority, Document, Reader, module_of, module_url
from reindex.replicas import ReplicaUnavailable, addresses, shun
from reindex.results import Message, checked_card, checked_definitions, failed, not_built
from reindex.sandbox import SandboxDied

#: So far the links of a whole batch are followed at once, a level each time that one of its cards
#: turns out to show more. What lies further is read for the card that comes to it.
LEVELS_AT_ONCE = 3
#: So many processes in a row may each find but another module that doesn't end. The card that they
#: were about has an error then.
MAX_IN_VAIN = 5

#: What Deno says of an import that the replica refused to transpile.
_REFUSED = re.compile(r"Import '([^']+)' failed: 406")


def render_cards(
    reader: Reader,
    realm: Document,
    cards: Mapping[str, Document],
    receive: Callable[[Message], None],
    go_on: Callable[[], None],
) -> None:
    """Renders cards, given by public URL, and hands over one result for each. `go_on` is called now
    and then, and ends it by raising.

    A card that hangs, or takes the process with it, gets an error document; the others are
    rendered. Raises ReplicaUnavailable where the fault is none of theirs.
    """
    reader.locate(BASE_MODULE)
    own = {module_of(url, document) for url, document in cards.items()}
    imports = {module: reader.modules([module]) for module in sorted(filter(None, own))}
    origins = Origins(reader, realm["url"])

    def explain(result: Message, doubtful: bool) -> None:
        links = [link for link in result.get("links", ()) if link in known.documents]
        doubtful = doubtful or len(links) < len(result.get("links", ()))
        keys, settled = origins.of(result["url"], cards[result["url"]], links)
        named = _with_module(result, module_of(result["url"], cards[result["url"]]))
        receive({**named, "made_from": keys, "settled": settled and not doubtful})

    task = {"type": "cards", "realm": realm, "imports": imports}
    known = _Known(reader, dict(cards))
    _Batch(reader, task, known, explain, go_on).render(list(cards))


class _OtherPins(Exception):
    """A card leads to what the process can't import, or would import as it was before."""


@dataclass
class _Known:
    """The documents that the renders of a batch may show, as far as they are known."""

    reader: Reader
    documents: dict[str, Document | None]
    #: Those that the linked cards adopt from.
    modules: set[str] = field(default_factory=set)
    _levels: int = 0

    def __post_init__(self) -> None:
        self._add_level()

    def supply(self, urls: list[str]) -> Message:
        """What a render has come to. Cards of a batch are much alike: where one needs what its
        links link to, so will the others, and all of it is read at once."""
        before = self.documents.keys() | set()
        if self._levels < LEVELS_AT_ONCE:
            self._add_level()
        self._add(urls)
        return {url: self.documents[url] for url in (self.documents.keys() - before) | set(urls)}

    def _add_level(self) -> None:
        self._levels += 1
        self._learn(self.reader.linked(self.documents))

    def _add(self, urls: list[str]) -> None:
        wanted = [url for url in urls if url not in self.documents]
        self.reader.read_cards(wanted)
        self._learn({url: self.reader.known(url) for url in wanted})

    def _learn(self, documents: Mapping[str, Document | None]) -> None:
        found = {url: document for url, document in documents.items() if document is not None}
        modules = filter(None, {module_of(url, document) for url, document in found.items()})
        new = sorted(set(modules) - self.modules)
        # The realms of all modules are known before a process starts, and so its import map.
        self.reader.modules(new)
        self.modules.update(new)
        self.documents |= documents


@dataclass
class _Batch:
    """Renders the cards of a batch in as many processes as it takes."""

    reader: Reader
    task: Message
    known: _Known
    receive: Callable[[Message, bool], None]
    go_on: Callable[[], None]

    def render(self, urls: list[str], hung: Message | None = None, *, again: bool = False) -> None:
        """Renders some of the cards in one process; if it dies, what is left is rendered in halves.
        `hung` are modules that are known not to end: what is rendered without them may come out
        otherwise another time."""
        left = dict.fromkeys(urls)
        unavailable: Message | None = hung or {}

        def take(result: Message) -> None:
            if result["type"] == "error":
                shun(self.reader.read_from, result["error"]["message"])
                raise ReplicaUnavailable(result["error"]["message"])
            if result["url"] not in left:
                return
            checked = _explained(self.reader, checked_card(result))
            if checked.get("error", {}).get("status") == 503:
                # Another try goes to another replica.
                shun(self.reader.read_from, checked["error"]["message"])
            answer(checked, bool(hung))

        def answer(result: Message, doubtful: bool) -> None:
            del left[result["url"]]
            self.receive(result, doubtful)
            self.go_on()

        # Each process but the last answers a card that hangs, names a module that does, or has met
        # something that it can't import.
        in_vain = 0
        while left and unavailable is not None:
            self.go_on()
            hung, before = unavailable, len(left)
            try:
                unavailable = self._run(list(left), take, hung)
            except _OtherPins:
                continue
            except SandboxDied as death:
                self._divide(list(left), death, hung, again=again)
                return
            in_vain = in_vain + 1 if len(left) == before else 0
            if in_vain == MAX_IN_VAIN:
                answer(failed(next(iter(left)), "it leads to ever more that does not end"), True)
                in_vain = 0
        for url in list(left):
            answer(failed(url, "it was not answered"), True)

    def _run(
        self, urls: list[str], take: Callable[[Message], None], unavailable: Message
    ) -> Message | None:
        documents = self.known.documents
        asked = set(urls)
        pins = self._code_pins()

        def supply(wanted: list[str]) -> Message:
            self.go_on()
            found = self.known.supply(wanted)
            if self._code_pins() != pins:
                raise _OtherPins
            return found

        part = {
            "addresses": self.reader.elsewhere(),
            "cards": [{"url": url, "doc": documents[url]} for url in urls],
            # Also those of the batch that are rendered already, or by another process.
            "linked": {url: doc for url, doc in documents.items() if url not in asked},
        }
        process = host.take(pins, self.reader.replica)
        if process is None:
            process = host.start(pins, self.reader.replica or addresses()[0])
        self.reader.read_from = process.replica
        hung = sandbox.run({**self.task, **part}, process, take, supply, unavailable)
        if hung is None:
            host.rest(process, list(self.task["imports"]))
        return hung

    def _code_pins(self) -> dict[str, int]:
        return self.reader.code_pins({*self.task["imports"], *self.known.modules})

    def _divide(self, urls: list[str], death: SandboxDied, hung: Message, *, again: bool) -> None:
        if len(urls) == 1 and again:
            self.receive(failed(urls[0], death), True)
        elif len(urls) == 1:
            # Somebody else may have ended it: only a card that does so twice is to blame.
            self.render(urls, hung, again=True)
        elif urls:
            half = len(urls) // 2
            self.render(urls[:half], hung)
            self.render(urls[half:], hung)


def _explained(reader: Reader, result: Message) -> Message:
    """Adds what the transpiler said to the error of a module that it refused: the importing side is
    told the status only."""
    error = result.get("error")
    if error and error.get("status") == 406 and error.get("module"):
        # Of the module that was asked for, or of one that it imports.
        refused = _REFUSED.search(error["message"])
        said = reader.refusal(refused[1] if refused else error["module"])
        if said:
            return {**result, "error": {**error, "message": said}}
    return result


def _with_module(result: Message, module: str | None) -> Message:
    """The result; its error names a module, the card's own unless it says another."""
    error = result.get("error")
    if not error or error.get("module") or module is None:
        return result
    return {**result, "error": {**error, "module": module}}


#: So many imports that lead nowhere are named.
MAX_MISSING = 5

#: One build at a time in a process: the threads of a web service share Deno's folder of modules.
_building = threading.Lock()


class ModuleBuilder:
    """Builds definitions of modules (a `definitions.lookup.Builder`): of what everyone may read, or
    of what the user of an `authority` may.

    It reads what the registry has *now*, and never a job's pins: a build that begins after a change
    must see that change, or the late work of an overtaken job would be stored as the newest.
    """

    def __init__(self, authority: Authority | None = None) -> None:
        self._authority = authority

    def locate(self, url: str) -> Located | None:
        """Asks the registry anew each time, so that it can't say less than has been committed."""
        reader = Reader({}, authority=self._authority)
        pin = reader.locate(url)
        modules = reader.modules([url]) if pin else []
        if pin is None or not modules:
            return None
        # Whatever the module imports, the prerenderer imports the card library.
        reader.locate(BASE_MODULE)
        *imported, canonical = modules
        # What isn't there may come: then the module is to be built anew.
        dependencies = _spelt(reader, imported + reader.missing(url))
        realms = sorted(reader.pins.keys() - {pin.realm_url})
        return Located(
            canonical,
            pin.realm_url,
            pin.generation,
            tuple(dependencies),
            tuple(realms),
            bool(reader.private),
        )

    def build(self, located: Located) -> Built:
        """Imports the module in a sandbox and asks its cards what they are."""
        reader = Reader({located.realm_url: located.generation}, authority=self._authority)
        reader.locate(BASE_MODULE)
        modules = reader.modules([located.module_url])
        dependencies = [module for module in modules if module != located.module_url]
        task = {"type": "definitions", "module": located.module_url, "modules": dependencies}
        with _building:
            result = _define(reader, task)
            if result.get("error", {}).get("status") == 503:
                # It is the replica's fault, most likely: the other try goes to another.
                shun(reader.read_from, result["error"]["message"])
                result = _define(reader, task)
        missing = reader.missing(located.module_url)
        error = result.get("error")
        if error:
            failed = [_refused(reader, each) for each in error.get("dependencies", ())]
            failed += [_missing(module) for module in missing[:MAX_MISSING]]
            error = {**_refused(reader, error), "dependencies": failed}
        return Built(
            result.get("definitions"),
            error,
            tuple(_spelt(reader, dependencies + missing)),
            tuple(sorted(reader.pins.keys() - {located.realm_url})),
            bool(reader.private),
        )


def _spelt(reader: Reader, urls: list[str]) -> list[str]:
    """URLs as a change of the files announces them: an import may escape what needs no escaping."""
    pins = [(url, reader.locate(url)) for url in urls]
    return [
        url if pin is None else module_url(pin.realm_url, pin.path_of(url)) for url, pin in pins
    ]


def _define(reader: Reader, task: Message) -> Message:
    results: list[Message] = []
    process = host.start(reader.pins, reader.replica or addresses()[0])
    reader.read_from = process.replica
    try:
        if sandbox.run(task, process, results.append) is None:
            process.end()
    except SandboxDied as error:
        return not_built(500, error)
    if not results:
        return not_built(504, "the module ran into its time limit")
    return checked_definitions(results[0])


def _missing(module: str) -> Message:
    """What is wrong with an import that leads nowhere, for whomever the module is built."""
    message = f"{module} is not there, or is not to be read by everyone who may read this"
    return {"status": 404, "title": "Module not found", "message": message, "module": module}


def _refused(reader: Reader, error: Message) -> Message:
    return dict(_explained(reader, {"error": error})["error"])
