"""Caches the modules that cards load when they are rendered, and finds the modules' imports."""

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

#: White space in JavaScript: Python's white space and the byte order mark.
_S = r"[\s\ufeff]*+"
#: Static imports, and dynamic imports of a literal, in transpiled code. A match that isn't an
#: import does no harm.
_IMPORT = re.compile(rf"""\b(?:from|import){_S}(?:\({_S})?(["'])([^"'\n]+)\1""")

#: Anything that could be an import. If only this pattern matches and `_IMPORT` doesn't, the import
#: has a comment in it, a quote in the specifier, or an expression instead of a literal.
_MAY_IMPORT = re.compile(
    rf"""\bfrom{_S}(?:["']|/[/*])|\bimport{_S}(?:["'(]|/[/*]|\.{_S}(?:source|defer)\b)"""
)

#: The end of a dynamic import's specifier: `)`, or `,` before the options.
_CLOSES = re.compile(rf"{_S}[,)]")


@dataclass(frozen=True)
class Module:
    """What a module's URL leads to. `file` is the URL of the module's file, or None if there is no
    file. `complete` says whether `imports` has all imports. `refusal` says why the server refused
    to send the text."""

    file: str | None
    imports: tuple[str, ...] = ()
    complete: bool = True
    text: str = ""
    refusal: str = ""


class _KnownModules(dict[tuple[Pin, str], Module]):
    """A cache of the modules that this process has read. The modules of one generation never
    change."""

    MAX_CHARACTERS = 32 * 1024 * 1024
    MAX_MODULES = 10_000

    def keep(self, pin: Pin, url: str, module: Module) -> None:
        """Caches a module. Empties the cache first if it has too many modules or too much text."""
        self._characters += len(module.text)
        if self._characters > self.MAX_CHARACTERS or len(self) >= self.MAX_MODULES:
            forget_modules()
        self[pin, url] = module

    def carry_over(self, before: Pin, pin: Pin, differing: Iterable[str]) -> None:
        """Caches the modules of the generation `before` for the generation `pin` of the same realm,
        without the modules that may depend on the paths in `differing`."""
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
    """Makes a Module from a realm's response to a request for `url`."""
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
    """Returns whether the specifier of the import at `start` is only a literal, unlike in
    `import("./a" + b)`."""
    match = _IMPORT.match(text, start)
    if match is None:
        return False
    dynamic = match[0].startswith("import") and "(" in match[0].partition(match[1])[0]
    return not dynamic or bool(_CLOSES.match(text, match.end()))


def imports_of(url: str, code: bytes) -> list[str]:
    """Returns the public URLs that the module at `url` imports. `code` may be transpiled or not."""
    text = code.decode(errors="replace")
    imports = [resolve_module(match[2], url) for match in _IMPORT.finditer(text)]
    return [each for each in imports if each is not None]


def import_error(url: str, status: int, title: str, message: str) -> Document:
    error = {"status": status, "title": title, "message": message, "causes": [], "module": url}
    return {"error": error}
