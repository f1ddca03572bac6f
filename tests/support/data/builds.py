"""Provides a fake builder of definitions, which describe what a module exports. Also reads the
notifications about invalidated definitions."""

import threading
from typing import Any

import psycopg
from django.db import connection

from definitions.entries import BuildResult, ModuleLocation

REALM = "http://localhost:4201/ada/site/"


class Builds:
    """A fake builder of definitions that counts its builds. A build sets the event `begun`. If a
    test has cleared the event `go_on`, the build then waits until the test sets it again."""

    def __init__(
        self,
        error: dict[str, Any] | None = None,
        depends: tuple[str, ...] = (),
        realms: tuple[str, ...] = (),
    ) -> None:
        self.count = 0
        self._realms = realms
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self._error, self._depends = error, depends

    def locate(self, module_url: str) -> ModuleLocation | None:
        if "missing" in module_url:
            return None
        return ModuleLocation(module_url, REALM, 1, self._depends, self._realms)

    def build(self, located: ModuleLocation) -> BuildResult:
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(20)
        found = None if self._error else {"Post": {"displayName": f"build {self.count}"}}
        return BuildResult(found, self._error, self._depends)


def announced(peer: "psycopg.Connection[Any]") -> list[Any]:
    """Returns the payloads of the notifications about invalidated definitions that a connection has
    received. To find the end, sends one more notification, and reads until that one arrives."""
    with connection.cursor() as cursor:
        cursor.execute("NOTIFY definition_cache_invalidated, 'the end'")
    told = []
    for note in peer.notifies(timeout=10):
        if note.payload == "the end":
            break
        told.append(note.payload)
    return told
