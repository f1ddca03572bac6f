"""The prerenderer as the rest of the project sees it: cards to HTML, modules to definitions."""

from collections.abc import Callable, Mapping

from definitions.lookup import Built, Located
from reindex import sandbox
from reindex.made_from import Origins
from reindex.reader import BASE_MODULE, Document, Reader, module_of
from reindex.replicas import ReplicaUnavailable, addresses, shun
from reindex.sandbox import Message, SandboxDied

#: A card's HTML and search document together; a database row has its limits. Unit: bytes.
MAX_RESULT = 8_000_000


def render_cards(
    reader: Reader,
    realm: Document,
    cards: Mapping[str, Document],
    receive: Callable[[Message], None],
) -> None:
    """Renders cards, given by public URL, and hands over one result for each.

    A card that hangs, or takes the process with it, gets an error document; the others are
    rendered. Raises ReplicaUnavailable where the fault is none of theirs.
    """
    linked = reader.linked(cards)
    reader.locate(BASE_MODULE)
    own = {module_of(url, document) for url, document in cards.items()}
    imports = {module: reader.modules([module]) for module in sorted(filter(None, own))}
    others = {module_of(url, document) for url, document in linked.items()} - own
    reader.modules(sorted(filter(None, others)))
    origins = Origins(reader, realm["url"])

    def explain(result: Message, doubtful: bool) -> None:
        keys, settled = origins.of(result["url"], cards[result["url"]], result.get("links", ()))
        receive({**result, "made_from": keys, "settled": settled and not doubtful})

    task = {"type": "cards", "realm": realm, "imports": imports}
    _render(reader, task, {**linked, **cards}, list(cards), explain)


def _render(
    reader: Reader,
    task: Message,
    documents: Mapping[str, Document],
    urls: list[str],
    receive: Callable[[Message, bool], None],
    hung: Message | None = None,
    *,
    again: bool = False,
) -> None:
    """Renders some of the documents in one process, which may show all of them; if it dies, what
    is left is rendered in halves. `hung` are modules that are known not to end: what is rendered
    without them may come out otherwise another time."""
    left = dict.fromkeys(urls)
    unavailable: Message | None = hung or {}

    def take(result: Message) -> None:
        if result.get("error", {}).get("status") == 503:
            # Another try goes to another replica.
            shun(reader.read_from, result["error"]["message"])
        if result["type"] == "error":
            raise ReplicaUnavailable(result["error"]["message"])
        if result["url"] in left:
            del left[result["url"]]
            receive(_explained(reader, _checked(result)), bool(hung))

    # Each process but the last answers a card that hangs, or names a module that does.
    while left and unavailable is not None:
        hung = unavailable
        part = {
            "cards": [{"url": url, "doc": documents[url]} for url in left],
            # Also those of the batch that are rendered already, or by another process.
            "linked": {url: doc for url, doc in documents.items() if url not in left},
        }
        try:
            unavailable = _run({**task, **part}, reader, take, hung)
        except SandboxDied as death:
            rest = list(left)
            if len(rest) == 1 and again:
                receive(_failed(rest[0], death), True)
            elif len(rest) == 1:
                # Somebody else may have ended it: only a card that does so twice is to blame.
                _render(reader, task, documents, rest, receive, hung, again=True)
            elif rest:
                half = len(rest) // 2
                _render(reader, task, documents, rest[:half], receive, hung)
                _render(reader, task, documents, rest[half:], receive, hung)
            return
    for url in left:
        receive(_failed(url, "it was not answered"), True)


def _run(
    task: Message,
    reader: Reader,
    receive: Callable[[Message], None],
    unavailable: Message | None = None,
) -> Message | None:
    replica = reader.read_from = reader.replica or addresses()[0]
    return sandbox.run(task, reader.pins, replica, receive, unavailable)


def _checked(result: Message) -> Message:
    """The result, if it has the form of one: it was made where card code could reach it."""
    match result:
        case {
            "html": dict(html),
            "search": {"_type": {"module": str()}},
            "links": [*links],
        } if all(isinstance(part, str) for part in (*html.values(), *links)):
            size = result.pop("size", 0)
            if size <= MAX_RESULT:
                return result
            why = f"it comes to {size} bytes; at most {MAX_RESULT} are kept"
            return _failed(result["url"], why)
        case {"error": {"status": int(), "message": str()}}:
            return result
    return _failed(result["url"], "its result is not one")


def _explained(reader: Reader, result: Message) -> Message:
    """Adds what the transpiler said to the error of a module that it refused: the importing side is
    told the status only."""
    error = result.get("error")
    if error and error.get("status") == 406 and error.get("module"):
        said = reader.refusal(error["module"])
        if said:
            return {**result, "error": {**error, "message": said}}
    return result


def _failed(url: str, why: object) -> Message:
    """The result for a card of which nothing usable came back."""
    error = {
        "status": 500,
        "title": "Render Failed",
        "message": f"rendering this card failed as a whole: {why}",
        "causes": [],
        "card": url,
    }
    return {"type": "card", "url": url, "error": error}


_SILENT = {"status": 504, "title": "Build Failed", "message": "the module ran into its time limit"}


class ModuleBuilder:
    """Builds definitions of public modules (a `definitions.lookup.Builder`).

    It reads what the registry has *now*, and never a job's pins: a build that begins after a change
    must see that change, or the late work of an overtaken job would be stored as the newest.
    """

    def locate(self, module_url: str) -> Located | None:
        """Asks the registry anew each time, so that it can't say less than has been committed."""
        reader = Reader({})
        pin = reader.locate(module_url)
        modules = reader.modules([module_url]) if pin else []
        if pin is None or not modules:
            return None
        *dependencies, canonical = modules
        realms = sorted(reader.pins.keys() - {pin.realm_url})
        return Located(canonical, pin.realm_url, pin.generation, tuple(dependencies), tuple(realms))

    def build(self, located: Located) -> Built:
        """Imports the module in a sandbox and asks its cards what they are."""
        reader = Reader({located.realm_url: located.generation})
        reader.locate(BASE_MODULE)
        modules = reader.modules([located.module_url])
        dependencies = tuple(module for module in modules if module != located.module_url)
        results: list[Message] = []
        task = {"type": "definitions", "module": located.module_url, "modules": list(dependencies)}
        try:
            _run(task, reader, results.append)
        except SandboxDied as error:
            results = [{"error": {"status": 500, "title": "Build Failed", "message": str(error)}}]
        result: Message = results[0] if results else {"error": _SILENT}
        return Built(result.get("definitions"), result.get("error"), dependencies)
