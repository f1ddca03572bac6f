"""Builds a module's definitions, by running the module in a sandbox and listing its card types."""

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

#: An error lists at most this many missing imports.
MAX_MISSING = 5

#: A process of a web service runs one build at a time.
_building = threading.Lock()


class ModuleBuilder:
    """Builds the definitions of modules in public realms (a `definitions.entries.Builder`). With an
    `authority`, also builds the definitions of modules in realms that the authority's user may
    read.

    A build reads the *current* generations of realms, never a job's pins. Otherwise a late build
    for a superseded job would store outdated definitions as the newest.
    """

    def __init__(self, authority: Authority | None = None, user: str = "") -> None:
        self._authority = authority
        self._access = Access(user=user)

    def locate(self, url: str) -> ModuleLocation | None:
        """Returns a module's realm, generation and imports, or None if no readable realm has the
        module. Asks the registry at each call, so all committed changes are seen."""
        reader = Reader({}, authority=self._authority, access=self._access)
        pin = reader.locate(url)
        modules = reader.modules([url]) if pin else []
        if pin is None or not modules:
            return None
        # The prerenderer always imports the card library, even if the module doesn't.
        reader.locate(BASE_MODULE)
        *imported, canonical = modules
        # If somebody creates a missing import, the module has to be built again.
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
        )


def _spelt(reader: Reader, urls: list[str]) -> list[str]:
    """Returns URLs with the escaping that notifications of file changes use. Imports may escape
    more characters than necessary."""
    pins = [(url, reader.locate(url)) for url in urls]
    return [url if pin is None else file_url(pin.realm_url, pin.path_of(url)) for url, pin in pins]


def _define(reader: Reader, module: str, dependencies: list[str], late: set[str]) -> Message:
    """Runs a module in a sandbox and returns its definitions or an error. Adds to `late` the
    imports that become known only during the build."""
    results: list[Message] = []
    realms = reader.realms_of([module]) | {BASE_REALM}
    sources = {url: reader.source(url) for url in sorted(reader.reached(module)[0])}
    named = {"module": module, "modules": dependencies, "sources": sources}

    def supply(needs: Message) -> Message:
        sources: dict[str, Message] = {}
        for url in needs["modules"]:
            reached = reader.reached(url)[0]
            # The import becomes known only during the build. A change of the imported module, or of
            # a module that it imports in turn, has to invalidate the definitions too.
            late.update(reached)
            if reader.realms_of([url]) <= realms:
                sources |= {each: reader.source(each) for each in sorted(reached)}
            else:
                sources[url] = refused(url, 403, "other realms' modules are imported by their URL")
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
        # The database adds up only signs with different job ids. A build has no job, so each build
        # uses a unique negative number as its job id. The ids of jobs are positive.
        signs, build = hangs.signs_of(wall, busy), -time.time_ns()
        hangs.remember_module(reader, module, result["error"], signs, build)
    return result


def _missing(module: str) -> Message:
    """Returns the error for an import of a module that is missing or not readable."""
    message = f"{module} does not exist, or is closed to some readers of the module that imports it"
    return {"status": 404, "title": "Module not found", "message": message, "module": module}
