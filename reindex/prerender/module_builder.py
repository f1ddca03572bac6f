"""Builds a module's definitions, which describe the card types that the module exports. A build
runs the module in a sandbox, a Deno Worker without permissions."""

import threading
import time

from django.conf import settings

from definitions.entries import BuildResult, ModuleLocation
from reindex.prerender import hangs, host, sandbox
from reindex.prerender.cards import library, refused
from reindex.prerender.results import Message, checked_definitions, not_built
from reindex.prerender.sandbox import SandboxDied
from reindex.reading.pins import Access
from reindex.reading.places import Authority
from reindex.reading.reader import Reader
from reindex.reading.references import BASE_MODULE, BASE_REALM, file_url

#: A build is repeated only if it found at most this many imports with computed names. Each of them
#: needs a counter in the database.
MAX_COMPUTED = 50
#: The error of a build lists at most this many missing imports.
MAX_MISSING = 5

#: Each process runs at most one build at a time, even if it has several threads.
_building = threading.Lock()


class ModuleBuilder:
    """Builds the definitions of modules in public realms (a `definitions.entries.Builder`). With an
    `authority`, also builds the definitions of modules in private realms that one user may read.
    `user` is the key of this user.

    A build reads each realm at its current generation, and never at a generation that a job has
    pinned. With the generations of an old job, a late build would store outdated definitions as the
    newest.
    """

    def __init__(self, authority: Authority | None = None, user: str = "") -> None:
        self._authority = authority
        self._access = Access(user=user)

    def locate(self, url: str) -> ModuleLocation | None:
        """Returns a module's realm, its generation, and the module's imports. Returns None if no
        readable realm has the module. Each call asks the registry, the server's table of realms. So
        the result includes all changes that were committed before the call."""
        reader = Reader({}, authority=self._authority, access=self._access)
        pin = reader.locate(url)
        modules = reader.modules([url]) if pin else []
        if pin is None or not modules:
            return None
        # The prerenderer always imports the card library. So this line adds the library's realm to
        # `reader.pins`, even if the module doesn't import the library.
        reader.locate(BASE_MODULE)
        *imported, canonical = modules
        # Missing imports are dependencies too. If somebody creates a missing file, the definitions
        # have to be built again.
        dependencies = _spelt(reader, imported + reader.missing(url))
        realms = sorted(reader.pins.keys() - {pin.realm_url})
        return ModuleLocation(
            canonical,
            pin.realm_url,
            pin.generation,
            tuple(dependencies),
            tuple(realms),
            bool(reader.private),
        )

    def build(self, located: ModuleLocation) -> BuildResult:
        """Imports the module in a sandbox and returns the definitions of its cards."""
        reader = Reader(
            {located.realm_url: located.generation},
            authority=self._authority,
            access=self._access,
            private={located.realm_url} if located.private else set(),
        )
        modules = reader.modules([located.module_url])
        dependencies = [module for module in modules if module != located.module_url]
        known, late = hangs.known_modules(reader, modules), set[str]()
        with _building:
            result = (
                {"error": next(iter(known.values()))}
                if known
                else _define(reader, located.module_url, dependencies, late)
            )
        missing = reader.missing(located.module_url)
        error = result.get("error")
        if error:
            failed = list(error.get("dependencies", ()))
            failed += [_missing(module) for module in missing[:MAX_MISSING]]
            error = {**error, "dependencies": failed}
        return BuildResult(
            result.get("definitions"),
            error,
            tuple(_spelt(reader, sorted({*dependencies, *missing, *late}))),
            tuple(sorted(reader.pins.keys() - {located.realm_url})),
            bool(reader.private),
            worth_repeating=0 < len(late) <= MAX_COMPUTED and not any(map(reader.missing, late)),
        )


def _spelt(reader: Reader, urls: list[str]) -> list[str]:
    """Returns the URLs, escaped as in the notifications that announce changes of files. In the text
    of an import, more characters may be escaped."""
    pins = [(url, reader.locate(url)) for url in urls]
    return [url if pin is None else file_url(pin.realm_url, pin.path_of(url)) for url, pin in pins]


def _define(reader: Reader, module: str, dependencies: list[str], late: set[str]) -> Message:
    """Runs a module in a sandbox and returns its definitions or an error. `dependencies` are the
    imports that are known before the build. Adds to `late` the imports that become known only
    during the build."""
    results: list[Message] = []
    realms = reader.realms_of([module]) | {BASE_REALM}
    sources = {url: reader.source(url) for url in sorted(reader.reached(module)[0])}
    named = {"module": module, "modules": dependencies, "sources": sources}

    def supply(needs: Message) -> Message:
        sources: dict[str, Message] = {}
        for url in needs["modules"]:
            reached = reader.reached(url)[0]
            # A change of the module or of one of its imports has to invalidate the definitions.
            late.update(reached)
            if reader.realms_of([url]) <= realms:
                sources |= {each: reader.source(each) for each in sorted(reached)}
            else:
                sources[url] = refused(url, 403, "an import from another realm needs a literal URL")
        return {"documents": dict.fromkeys(needs["documents"]), "sources": sources}

    process = host.start(library(reader))
    watch = hangs.Stopwatch()
    watch.start(process.process.pid)
    laps: list[tuple[float, float]] = []

    def take(result: Message) -> None:
        laps.append(watch.lap())
        results.append(result)

    try:
        if sandbox.run({"type": "definitions", **named}, process, take, supply) is None:
            process.end()
    except SandboxDied as error:
        return not_built(500, error)
    if not results:
        return not_built(504, "the module exceeded its time limit")
    result = checked_definitions(results[0])
    wall, busy = laps[0]
    if "error" in result and wall >= settings.REALM_RENDER_SECONDS:
        # The database adds up only those signs of a hang that come from different jobs. A build has
        # no job, so it uses a unique negative number as its job id. The ids of jobs are positive.
        signs, build = hangs.signs_of(wall, busy), -time.time_ns()
        hangs.remember_module(reader, module, result["error"], signs, build)
    return result


def _missing(module: str) -> Message:
    """Returns the error for an import of a module that doesn't exist or isn't readable."""
    message = f"{module} does not exist, or is closed to some readers of the module that imports it"
    return {"status": 404, "title": "Module not found", "message": message, "module": module}
