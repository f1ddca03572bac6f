"""One process of the fleet does the work that all want: who is elected, who waits, and for how
long."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from definitions.lookup import Built, DefinitionLookup, Located, _election
from definitions.models import Definition
from notifications import election
from realms import transpile
from realms.locks import lock_key
from realms.models import TranspiledModule
from tests.cluster import wait_until
from tests.gates import PATIENCE, Gate, in_thread
from tests.hearing import connect
from tests.web import waiting_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nothing_transpiled"),
]

REALM = "http://localhost:4201/ada/site/"
MODULE = f"{REALM}post.tsx"


def key_of(name: str) -> str:
    """The URL-like name whose lock elects who transpiles a source that has this name as hash."""
    key = hashlib.sha256(f"{name}.ts".encode()).hexdigest()
    return f"transpile|{key}"


def wanted(name: str) -> "Future[str]":
    """Another process's wish for the JavaScript of a source: no cache is shared with it."""
    return in_thread(transpile.javascript, name, b"source", "a.ts")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every start of the transpiler, which answers at once."""
    made: list[bytes] = []

    def run(source: bytes, path: str) -> str:
        made.append(source)
        return f"javascript {len(made)}"

    transpile.transpiler()
    monkeypatch.setattr(transpile, "_run_deno", run)
    return made


def hold(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds the first transpile before its work."""
    gate = Gate()
    monkeypatch.setattr(transpile, "_run_deno", gate.before(transpile._run_deno))
    return gate


def test_those_who_wait_go_on_at_the_commit_of_the_elected_one_and_at_no_other(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    waiting = [wanted("a") for _ in range(3)]
    wait_until(lambda: waiting_for(key_of("a")) == 3, "three waiting")
    assert wanted("b").result(PATIENCE) == "javascript 1"
    assert waiting_for(key_of("a")) == 3, "another one's end is none of their business"
    gate.open()
    assert [each.result(PATIENCE) for each in (elected, *waiting)] == ["javascript 2"] * 4


def test_what_is_there_is_answered_whoever_has_been_elected(runs: list[bytes]) -> None:
    """A row that is found needs no election, so nobody can hold it up."""
    wanted("a").result(PATIENCE)
    lookup = DefinitionLookup(Builder())
    assert lookup.lookup_module(MODULE) is not None
    with connect() as other, other.transaction():
        for number in (lock_key(key_of("a")), _election(MODULE)):
            other.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        assert wanted("a").result(PATIENCE) == "javascript 1"
        assert in_thread(lookup.lookup_module, MODULE).result(PATIENCE) is not None
    assert len(runs) == 1


def _lose_connection() -> None:
    connection.connection.close()


def _fail() -> None:
    raise DatabaseError("disk full")


@pytest.mark.parametrize("end", [_lose_connection, _fail])
def test_when_the_elected_one_ends_without_a_result_one_who_waits_takes_its_place(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch, end: Callable[[], None]
) -> None:
    """The elected one has an error and leaves neither a lock nor half a row."""
    gate, save = Gate(), TranspiledModule.save
    first = iter([True])

    def save_or_end(row: TranspiledModule, *args: Any, **more: Any) -> None:
        if next(first, False):
            gate.hold()
            end()
        save(row, *args, **more)

    monkeypatch.setattr(TranspiledModule, "save", save_or_end)
    elected = wanted("a")
    gate.wait_for_arrival()
    waiting = [wanted("a") for _ in range(2)]
    wait_until(lambda: waiting_for(key_of("a")) == 2, "two waiting")
    gate.open()
    with pytest.raises(Exception, match=r"disk full|closed"):
        elected.result(PATIENCE)
    assert [each.result(PATIENCE) for each in waiting] == ["javascript 2"] * 2
    assert len(runs) == 2


def test_one_who_is_elected_and_freezes_holds_nobody_up_for_ever(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has waited long enough does the work alone, and leaves storing to the elected one."""
    monkeypatch.setattr(election, "ELECTION_SECONDS", 0.1)
    lookup = DefinitionLookup(Builder())
    with connect() as frozen, frozen.transaction():
        for number in (lock_key(key_of("a")), _election(MODULE)):
            frozen.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        assert wanted("a").result(PATIENCE) == "javascript 1"
        entry = in_thread(lookup.lookup_module, MODULE).result(PATIENCE)
        assert entry is not None
        assert entry.definitions == {"Post": {}}
        assert not TranspiledModule.objects.exists()
        assert not Definition.objects.exists()
    assert wanted("a").result(PATIENCE) == "javascript 2"
    assert TranspiledModule.objects.count() == 1
    assert lookup.lookup_module(MODULE) is not None
    assert Definition.objects.count() == 1


def test_one_who_waits_and_is_ended_leaves_the_others_as_they_were(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits stands in the database's own queue, and leaves it with its connection."""
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    ended, other = wanted("a"), wanted("a")
    wait_until(lambda: waiting_for(key_of("a")) == 2, "two waiting")
    with connect() as hand:
        hand.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"
            " AND locktype = 'advisory' ORDER BY waitstart LIMIT 1"
        )
    wait_until(lambda: waiting_for(key_of("a")) == 1, "one waiting")
    gate.open()
    outcomes = [_outcome(each) for each in (elected, ended, other)]
    assert outcomes[0] == "javascript 1"
    assert sorted(outcomes[1:]) == ["OperationalError", "javascript 1"]


def _outcome(future: "Future[str]") -> str:
    try:
        return future.result(PATIENCE)
    except DatabaseError as error:
        return type(error).__name__


def test_many_elections_at_once_all_come_to_an_end(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds one connection and one lock, so that none waits for what another has."""
    everybody, run = threading.Barrier(12, timeout=PATIENCE), transpile._run_deno

    def run_beside_the_others(source: bytes, path: str) -> str:
        everybody.wait()
        return run(source, path)

    monkeypatch.setattr(transpile, "_run_deno", run_beside_the_others)
    requests = [wanted(f"{number % 12}") for number in range(36)]
    assert all(request.result(PATIENCE) for request in requests)
    assert len(runs) == 12


def test_a_row_that_can_not_be_stored_is_told_and_costs_the_rest_of_a_transaction_nothing(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure inside an election undoes that election, and not what its caller had done."""

    def refused(row: TranspiledModule, *args: Any, **more: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")

    with transaction.atomic():
        TranspiledModule.objects.create(sha256="before", transpiler="x", body="x")
        with monkeypatch.context() as patch:
            patch.setattr(TranspiledModule, "save", refused)
            with pytest.raises(DatabaseError, match="division by zero"):
                transpile.javascript("a", b"source", "a.ts")
        assert transpile.javascript("a", b"source", "a.ts") == "javascript 2"
    assert TranspiledModule.objects.count() == 2


class Builder:
    """Builds definitions at once."""

    def locate(self, module_url: str) -> Located | None:
        return Located(module_url, REALM, 1)

    def build(self, located: Located) -> Built:
        assert not Definition.objects.exists()
        return Built({"Post": {}}, None, ())
