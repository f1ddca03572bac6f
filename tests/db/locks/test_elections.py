"""One process of the fleet does the work that several want: who is elected, who waits, and for how
long."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.utils import timezone

from definitions.entries import BuildResult, ModuleLocation
from definitions.lookup import DefinitionLookup, _election
from definitions.models import Definition
from notifications import election
from notifications.models import Election
from realms.content.locks import lock_key
from realms.models import TranspiledModule
from realms.serving import transpiling
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate, in_thread
from tests.support.listening.hearing import connect

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
    return in_thread(transpiling.javascript, name, b"source", "a.ts")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every start of the transpiler, which answers at once."""
    made: list[bytes] = []

    def run(source: bytes, path: str) -> str:
        made.append(source)
        return f"javascript {len(made)}"

    transpiling.transpiler()
    monkeypatch.setattr(transpiling, "_run_deno", run)
    return made


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Who has waited for an election: the process of each one's connection, by thread."""
    seen: dict[int, int] = {}
    wait = election.wait

    def noted() -> None:
        seen[threading.get_ident()] = connection.connection.info.backend_pid
        wait()

    monkeypatch.setattr(election, "wait", noted)
    return seen


def elect(*keys: int) -> None:
    """Has another process elected for an hour."""
    until = timezone.now() + timedelta(hours=1)
    Election.objects.bulk_create(Election(key=key, holder=1, lease_until=until) for key in keys)


def hold(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds the first transpile before its work."""
    gate = Gate()
    monkeypatch.setattr(transpiling, "_run_deno", gate.before(transpiling._run_deno))
    return gate


def test_waiters_go_on_at_the_commit_of_the_elected_process_only(
    runs: list[bytes], waiting: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    others = [wanted("a") for _ in range(3)]
    wait_until(lambda: len(waiting) == 3, "three waiting")
    assert wanted("b").result(PATIENCE) == "javascript 1"
    assert not any(other.done() for other in others), "another one's end is not their business"
    gate.open()
    assert [each.result(PATIENCE) for each in (elected, *others)] == ["javascript 2"] * 4
    assert not Election.objects.exists()


def test_no_transaction_is_open_while_the_elected_process_works(
    runs: list[bytes], waiting: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open one would keep the database from cleaning up, and a pooler's connection from all."""
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    other = wanted("a")
    wait_until(lambda: waiting, "one waiting")
    with connect() as hand:
        (opened,) = hand.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND xact_start < now() - interval '1 ms' AND pid <> pg_backend_pid()"
            " AND (state = 'idle in transaction' OR wait_event_type = 'Lock')"
        ).fetchone() or [None]
    assert opened == 0
    gate.open()
    assert elected.result(PATIENCE) == other.result(PATIENCE)


def test_a_lease_is_renewed_as_long_as_the_work_takes(
    runs: list[bytes], waiting: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election, "RENEW_SECONDS", 0.05)
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    first = Election.objects.get()
    wait_until(lambda: Election.objects.get().lease_until > first.lease_until, "renewed")
    assert Election.objects.get().holder == first.holder
    gate.open()
    assert elected.result(PATIENCE) == "javascript 1"


def test_one_who_freezes_is_replaced_and_storing_later_changes_nothing(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(election, "RENEW_SECONDS", 60)
    gate = hold(monkeypatch)
    frozen = wanted("a")
    gate.wait_for_arrival()
    assert wanted("a").result(PATIENCE) == "javascript 1"
    gate.open()
    assert frozen.result(PATIENCE) == "javascript 2"
    assert TranspiledModule.objects.get().body == "javascript 1"


def test_a_lock_that_the_work_could_not_get_is_an_error_of_the_work(runs: list[bytes]) -> None:
    """It doesn't have the work done once more, outside of the election."""
    done: list[bool] = []

    def work(elected: bool) -> None:
        done.append(elected)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '10ms'")
            cursor.execute("SELECT pg_advisory_xact_lock(7)")

    with connect() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(7)")
        with pytest.raises(OperationalError, match="lock timeout"):
            election.run_elected(1, work)
    assert done == [True]
    assert not Election.objects.exists()


def test_what_is_there_is_answered_whoever_has_been_elected(runs: list[bytes]) -> None:
    """A row that is found needs no election, so nobody can hold it up."""
    wanted("a").result(PATIENCE)
    lookup = DefinitionLookup(Builder())
    assert lookup.lookup_module(MODULE) is not None
    elect(lock_key(key_of("a")), _election(MODULE))
    assert wanted("a").result(PATIENCE) == "javascript 1"
    assert in_thread(lookup.lookup_module, MODULE).result(PATIENCE) is not None
    assert len(runs) == 1


def _lose_connection() -> None:
    connection.connection.close()


def _fail() -> None:
    raise DatabaseError("disk full")


@pytest.mark.parametrize("end", [_lose_connection, _fail])
def test_a_waiter_takes_over_when_the_elected_process_ends_empty(
    runs: list[bytes],
    waiting: dict[int, int],
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[], None],
) -> None:
    """The elected one has an error and leaves neither a lease nor half a row."""
    gate, store = Gate(), TranspiledModule.objects.bulk_create
    first = iter([True])

    def store_or_end(*args: Any, **more: Any) -> Any:
        if next(first, False):
            gate.hold()
            end()
        return store(*args, **more)

    monkeypatch.setattr(TranspiledModule.objects, "bulk_create", store_or_end)
    elected = wanted("a")
    gate.wait_for_arrival()
    others = [wanted("a") for _ in range(2)]
    wait_until(lambda: len(waiting) == 2, "two waiting")
    gate.open()
    with pytest.raises(Exception, match=r"disk full|closed"):
        elected.result(PATIENCE)
    assert [each.result(PATIENCE) for each in others] == ["javascript 2"] * 2
    assert len(runs) == 2


def test_one_whose_work_has_no_end_holds_nobody_up_for_ever(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has waited long enough does the work alone, and leaves storing to the elected one."""
    monkeypatch.setattr(election, "ELECTION_SECONDS", 0.1)
    lookup = DefinitionLookup(Builder())
    elect(lock_key(key_of("a")), _election(MODULE))
    assert wanted("a").result(PATIENCE) == "javascript 1"
    entry = in_thread(lookup.lookup_module, MODULE).result(PATIENCE)
    assert entry is not None
    assert entry.definitions == {"Post": {}}
    assert not TranspiledModule.objects.exists()
    assert not Definition.objects.exists()
    Election.objects.all().delete()
    assert wanted("a").result(PATIENCE) == "javascript 2"
    assert TranspiledModule.objects.count() == 1
    assert lookup.lookup_module(MODULE) is not None
    assert Definition.objects.count() == 1


def test_one_who_waits_and_is_ended_leaves_the_others_as_they_were(
    runs: list[bytes], waiting: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    ended, other = wanted("a"), wanted("a")
    wait_until(lambda: len(waiting) == 2, "two waiting")
    with connect() as hand:
        hand.execute("SELECT pg_terminate_backend(%s)", [next(iter(waiting.values()))])
    wait_until(lambda: ended.done() or other.done(), "one ended")
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
    """Each holds one lease, so that none waits for what another has."""
    everybody, run = threading.Barrier(12, timeout=PATIENCE), transpiling._run_deno

    def run_beside_the_others(source: bytes, path: str) -> str:
        everybody.wait()
        return run(source, path)

    monkeypatch.setattr(transpiling, "_run_deno", run_beside_the_others)
    requests = [wanted(f"{number % 12}") for number in range(36)]
    assert all(request.result(PATIENCE) for request in requests)
    assert len(runs) == 12


def test_an_election_is_refused_inside_a_transaction_that_would_hide_it(runs: list[bytes]) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError):
        transpiling.javascript("a", b"source", "a.ts")
    assert runs == []


class Builder:
    """Builds definitions at once."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        return ModuleLocation(module_url, REALM, 1)

    def build(self, located: ModuleLocation) -> BuildResult:
        assert not Definition.objects.exists()
        return BuildResult({"Post": {}}, None, ())
