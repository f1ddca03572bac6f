"""Caches modules that this process has read from realms, and finds the imports of modules."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from definitions.extensions import stem
from notifications.texts import top_folder
from reindex.reading import realm_history
from reindex.reading.documents import Document
from reindex.reading.pins import Pin
from reindex.reading.references import (
    is_plain,
    joined,
    resolve_module,
)
from reindex.reading.replicas import (
    Response,
)

#: White space in JavaScript, which is Python's white space and the byte order mark.
_S = r"[\s\ufeff]*+"
#: Matches a static import, or a dynamic import with a literal specifier. A match that isn't an
#: import, such as a match in a comment, only adds an unnecessary dependency.
_IMPORT = re.compile(rf"""\b(?:from|import){_S}(?:\({_S})?(["'])([^"'\n]+)\1""")

#: Matches anything that could be an import, even imports that `_IMPORT` doesn't match: imports with
#: a comment inside, with a quote in the specifier, or with an expression instead of a literal.
_MAY_IMPORT = re.compile(
    rf"""\bfrom{_S}(?:["']|/[/*])|\bimport{_S}(?:["'(]|/[/*]|\.{_S}(?:source|defer)\b)"""
)

#: The end of a dynamic import's specifier: `)`, or `,` before the options.
_CLOSES = re.compile(rf"{_S}[,)]")


@dataclass(frozen=True)
class Module:
    """The module that a URL leads to. `file` is the URL of the module's file, or None if there is
    no file. `imports` has the URLs of the module's imports, and `complete` says whether these are
    all imports. `text` is the text of the file, transpiled if it is TypeScript. If the file
    can't be transpiled, `refusal` says why, and `text` is empty."""

    file: str | None
    imports: tuple[str, ...] = ()
    complete: bool = True
    text: str = ""
    refusal: str = ""


class _KnownModules(dict[tuple[Pin, str], Module]):
    """A cache of the modules that this process has read, by `Pin` and URL. A `Pin` names a realm
    and a generation. The modules of one generation never change, so no entry is ever outdated."""

    MAX_CHARACTERS = 32 * 1024 * 1024
    MAX_MODULES = 10_000

    def keep(self, pin: Pin, url: str, module: Module) -> None:
        """Caches a module. If the cache would have too many modules or too much text, empties the
        cache first."""
        self._characters += len(module.text)
        if self._characters > self.MAX_CHARACTERS or len(self) >= self.MAX_MODULES:
            forget_modules()
        self[pin, url] = module

    def carry_over(self, before: Pin, pin: Pin, differing: Iterable[str]) -> None:
        """Copies cached modules of the generation `before` to the generation `pin` of the same
        realm. `differing` has the paths that differ between the two generations. A module is not
        copied if these include its top folder, or its path with any extension."""
        stems = {stem(path) for path in differing}
        for (known_pin, url), module in list(self.items()):
            path = pin.path_of(url)
            if known_pin == before and stems.isdisjoint((stem(path), top_folder(path))):
                self.keep(pin, url, module)

    def clear(self) -> None:
        super().clear()
        self._characters = 0

    _characters = 0


known_modules = _KnownModules()


def forget_modules() -> None:
    """Empties this process's caches of modules and realm histories."""
    known_modules.clear()
    realm_history.forget()


def module_in(url: str, response: Response) -> Module:
    """Makes a Module from a replica's response to a request for `url`."""
    if response.status == 302:
        return Module(joined(url, response.headers["location"]))
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
    """Returns whether the specifier of the import at `start` is a single literal. The specifier of
    `import("./a" + b)` is not."""
    match = _IMPORT.match(text, start)
    if match is None:
        return False
    dynamic = match[0].startswith("import") and "(" in match[0].partition(match[1])[0]
    return not dynamic or bool(_CLOSES.match(text, match.end()))


def imports_of(url: str, code: bytes) -> list[str]:
    """Returns the public URLs that the module at `url` imports. `code` is the source of the module,
    or its transpiled JavaScript."""
    text = code.decode(errors="replace")
    imports = [resolve_module(match[2], url) for match in _IMPORT.finditer(text)]
    return [each for each in imports if each is not None]


def import_error(url: str, status: int, title: str, message: str) -> Document:
    error = {"status": status, "title": title, "message": message, "causes": [], "module": url}
    return {"error": error}
