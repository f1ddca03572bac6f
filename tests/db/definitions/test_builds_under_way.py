"""Tests callers that look up a module's definitions, which describe the module's exports, while the
definitions are being built. The callers wait for the result of this build, unless the module has
been invalidated since the build began."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from definitions.entries import BuildResult, ModuleLocation
from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from notifications import election
from tests.support.cluster import wait_until
from tests.support.data.builds import Builds

REALM = "http://localhost:4201/ada/site/"
POST = f"{REALM}post.tsx"

pytestmark = pytest.mark.django_db(transaction=True)

LIBRARY = "http://localhost:4201/bo/library/"
LABEL = f"{LIBRARY}label.ts"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Returns a set that collects the ids of threads that wait for another caller's build."""
    seen: set[int] = set()
    wait = election.wait

    def noted() -> None:
        seen.add(threading.get_ident())
        wait()

    monkeypatch.setattr(election, "wait", noted)
    return seen


INVALIDATIONS: dict[str, Callable[[], object]] = {
    "the module": lambda: DefinitionLookup().invalidate(POST),
    "what it imports": lambda: DefinitionLookup().invalidate(LABEL),
    "its realm": lambda: DefinitionLookup().clear_realm_definitions(REALM),
    "a realm it imports from": lambda: DefinitionLookup().clear_realm_definitions(LIBRARY),
    "everything": lambda: DefinitionLookup().clear_all_definitions(),
}


@pytest.mark.parametrize("what", INVALIDATIONS)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_caller_after_an_invalidation_gets_no_earlier_build(
    what: str, processes: int, in_thread: Any, waiting: set[int]
) -> None:
    """A caller that came before the invalidation gets the result of the running build. A caller
    that comes later, in the same or another process, gets the result of a new build."""
    builds = Builds(depends=(LABEL,), realms=(LIBRARY,))
    builds.go_on.clear()
    # Each process has its own lookup, which doesn't know of the builds of other lookups. So a
    # second lookup stands for a second process.
    first = DefinitionLookup(builds)
    second = first if processes == 1 else DefinitionLookup(builds)
    early: list[Any] = []
    late: list[Any] = []
    in_thread(lambda: early.append(first.lookup_module(POST)))
    assert builds.begun.wait(20)
    INVALIDATIONS[what]()
    thread = in_thread(lambda: late.append(second.lookup_module(POST)))
    wait_until(lambda: waiting, "the later caller waiting to be elected")
    builds.go_on.set()
    thread.join(20)
    assert late[0].definitions == {"Post": {"displayName": "build 2"}}
    wait_until(lambda: early, "the earlier caller's result")
    assert early[0].definitions == {"Post": {"displayName": "build 1"}}
    assert Definition.objects.get().definitions == late[0].definitions
    assert builds.count == 2


def test_waiters_share_one_build_after_the_module_gets_new_imports(
    in_thread: Any, waiting: set[int]
) -> None:
    """While the callers wait, the module gets another import and is invalidated."""

    class Growing(Builds):
        grown = False

        def locate(self, module_url: str) -> ModuleLocation | None:
            located = super().locate(module_url)
            assert located is not None
            return replace(located, dependencies=(LABEL,) if self.grown else ())

        def build(self, located: ModuleLocation) -> BuildResult:
            return replace(super().build(located), dependencies=located.dependencies)

    builds = Growing()
    builds.go_on.clear()
    found: list[Any] = []

    def look() -> None:
        found.append(DefinitionLookup(builds).lookup_module(POST))

    threads = [in_thread(look)]
    assert builds.begun.wait(20)
    threads += [in_thread(look) for _ in range(6)]
    wait_until(lambda: len(waiting) == 6, "six callers waiting")
    builds.grown = True
    DefinitionLookup().invalidate(POST)
    builds.go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(found) == 7
    assert builds.count == 2
    assert Definition.objects.get().dependencies == [LABEL]


def test_waiters_share_the_second_build_of_a_module_with_a_computed_import(
    in_thread: Any, waiting: set[int]
) -> None:
    class Computing(Builds):
        def build(self, located: ModuleLocation) -> BuildResult:
            return replace(super().build(located), dependencies=(LABEL,), worth_repeating=True)

    builds = Computing()
    builds.go_on.clear()
    found: list[Any] = []
    threads = [in_thread(lambda: found.append(DefinitionLookup(builds).lookup_module(POST)))]
    assert builds.begun.wait(20)
    threads += [
        in_thread(lambda: found.append(DefinitionLookup(builds).lookup_module(POST)))
        for _ in range(6)
    ]
    wait_until(lambda: len(waiting) == 6, "six callers waiting")
    builds.go_on.set()
    for thread in threads:
        thread.join(20)
    assert {each.definitions["Post"]["displayName"] for each in found} == {"build 2"}
    assert (len(found), builds.count) == (7, 2)
    assert Definition.objects.get().dependencies == [LABEL]


def test_a_module_whose_imports_keep_changing_is_still_answered() -> None:
    class Restless(Builds):
        def locate(self, module_url: str) -> ModuleLocation | None:
            located = super().locate(module_url)
            assert located is not None
            self.looks = getattr(self, "looks", 0) + 1
            return replace(located, dependencies=(f"{REALM}{self.looks}.ts",))

    builds = Restless()
    entry = DefinitionLookup(builds).lookup_module(POST)
    assert entry is not None
    assert entry.definitions == {"Post": {"displayName": "build 1"}}
    assert not Definition.objects.exists()
