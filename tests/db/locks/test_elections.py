"""Tests elections. If several processes need the same work, one elected process does the work, and
the others wait for the result. The elected process holds a lease, a database row that it renews
during the work."""

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
    """Returns the text from which `lock_key` computes the key of an election. The process elected
    for this key transpiles the source with the hash `name`."""
    key = hashlib.sha256(f"{name}.ts".encode()).hexdigest()
    return f"transpile|{key}"


def wanted(name: str) -> "Future[str]":
    """Requests the JavaScript of the source with the hash `name`, in a new thread. The thread has
    its own database connection and shares no results with other threads, so it acts like another
    process."""
    return in_thread(transpiling.javascript, name, b"source", "a.ts")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Replaces the transpiler with a function that returns at once. Returns a list of the sources
    that this function has received."""
    made: list[bytes] = []

    def run(source: bytes, path: str) -> str:
        made.append(source)
        return f"javascript {len(made)}"

    transpiling.transpiler()
    monkeypatch.setattr(transpiling, "_run_deno", run)
    return made


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Records which threads begin to wait for an election. Returns a dict that maps the id of each
    of these threads to the id of the Postgres process that serves the thread's connection."""
    seen: dict[int, int] = {}
    wait = election.wait

    def noted() -> None:
        seen[threading.get_ident()] = connection.connection.info.backend_pid
        wait()

    monkeypatch.setattr(election, "wait", noted)
    return seen


def elect(*keys: int) -> None:
    """Writes a lease for each key. The leases say that another process is elected for the next
    hour."""
    until = timezone.now() + timedelta(hours=1)
    Election.objects.bulk_create(Election(key=key, holder=1, lease_until=until) for key in keys)


def hold(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Makes the first call of `_run_deno`, the transpiler, wait at a gate. Returns the gate."""
    gate = Gate()
    monkeypatch.setattr(transpiling, "_run_deno", gate.before(transpiling._run_deno))
    return gate


def test_waiters_continue_only_when_their_elected_process_commits(
    runs: list[bytes], waiting: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch)
    elected = wanted("a")
    gate.wait_for_arrival()
    others = [wanted("a") for _ in range(3)]
    wait_until(lambda: len(waiting) == 3, "three waiting")
    assert wanted("b").result(PATIENCE) == "javascript 1"
    assert not any(other.done() for other in others), "the end of b must not end the wait for a"
    gate.open()
    assert [each.result(PATIENCE) for each in (elected, *others)] == ["javascript 2"] * 4
    assert not Election.objects.exists()


def test_no_transaction_is_open_while_the_elected_process_works(
    runs: list[bytes], waiting: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an open transaction, vacuum can't remove old rows, and a pooler such as PgBouncer
    can't lend the database connection to another client."""
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


def test_the_elected_process_renews_its_lease_during_the_work(
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


def test_a_frozen_process_is_replaced_and_its_late_result_is_not_stored(
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


def test_a_lock_timeout_in_the_work_is_raised_and_the_work_runs_once(runs: list[bytes]) -> None:
    """A lock time-out in `work` doesn't mean that another process is elected, so `run_elected` must
    not call `work` again."""
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


def test_a_stored_result_is_returned_without_an_election(runs: list[bytes]) -> None:
    """A caller gets a stored result at once, even if another process is elected."""
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
def test_a_waiter_takes_over_when_the_elected_process_fails(
    runs: list[bytes],
    waiting: dict[int, int],
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[], None],
) -> None:
    """The elected process raises an error, and leaves neither a lease nor a result in the
    database."""
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


def test_a_waiter_does_the_work_itself_if_the_election_never_ends(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has waited for ELECTION_SECONDS does the work itself, and doesn't store the
    result."""
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


def test_a_waiter_whose_connection_is_terminated_does_not_affect_others(
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


def test_many_simultaneous_elections_all_end(
    runs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that holds a lease never waits for another lease, so a deadlock is impossible."""
    everybody, run = threading.Barrier(12, timeout=PATIENCE), transpiling._run_deno

    def run_beside_the_others(source: bytes, path: str) -> str:
        everybody.wait()
        return run(source, path)

    monkeypatch.setattr(transpiling, "_run_deno", run_beside_the_others)
    requests = [wanted(f"{number % 12}") for number in range(36)]
    assert all(request.result(PATIENCE) for request in requests)
    assert len(runs) == 12


def test_an_election_inside_a_transaction_is_refused(runs: list[bytes]) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError):
        transpiling.javascript("a", b"source", "a.ts")
    assert runs == []


class Builder:
    """A fake builder that returns definitions at once."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        return ModuleLocation(module_url, REALM, 1)

    def build(self, located: ModuleLocation) -> BuildResult:
        assert not Definition.objects.exists()
        return BuildResult({"Post": {}}, None, ())
