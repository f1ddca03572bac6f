"""The life of a reindex job: owed, cut into batches, rendered, swapped in, retried, overtaken."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from django.core import signing
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone
from pytest_django import Settings

from notifications.locks import lock_key
from realms.access import auth, permissions
from realms.access.auth import Caller
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import delete_realm, publish_realm, unpublish_realm
from reindex import tasks
from reindex.index.shown import find_page, readiness
from reindex.jobs import batches, leases, lifecycle, planning, queue, sweeper
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob
from reindex.reading import pins, realm_history, replicas
from reindex.reading.pins import EVERYONE, ITSELF, PIN_HEADER, UNREADABLE_GENERATION, Access, Pin
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.gates import Gate, in_thread
from tests.support.hearing import connect
from tests.support.rendering import WORK, index_of, work_off
from tests.support.web import Web

URL = "http://ada.localhost:4201/"
API = "application/vnd.api+json"
Status = ReindexJob.Status
Sent = list[tuple[str, Any]]


def owe(generation: int, url: str = URL) -> ReindexJob:
    with transaction.atomic():
        return queue.enqueue_job(url, generation)


def plan(job: ReindexJob, *names: str) -> list[int]:
    paths = [f"{name}.json" for name in names]
    made = lifecycle.create_batches(job, lifecycle.Plan(paths, {URL: job.generation}))
    return [batch.pk for batch in made]


def results(*names: str, edition: str = "new") -> list[dict[str, Any]]:
    """What rendering these cards could have come to."""
    return [
        {"url": URL + name, "html": {"isolated": f"{edition} {name}"}, "search": {}, "ms": 1.5}
        for name in names
    ]


def taken(batch_id: int) -> ReindexBatch:
    """The batch, leased."""
    batch = batches.claim(batch_id)
    assert batch is not None
    return batch


def run_out(*batches: int) -> None:
    """Moves the end of leases into the past."""
    ReindexBatch.objects.filter(pk__in=batches).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )


def long_ago(job: ReindexJob) -> None:
    """Moves a job's last message, and its end, into the past."""
    past = timezone.now() - timedelta(hours=1)
    ReindexJob.objects.filter(pk=job.pk).update(sent_at=past)
    ReindexJob.objects.filter(pk=job.pk, finished_at__isnull=False).update(finished_at=past)


def status(job: ReindexJob) -> str:
    job.refresh_from_db()
    return job.status


# --- Owing -------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_is_owed_is_sent_after_the_commit_and_not_at_all_without_one(sent: Sent) -> None:
    with transaction.atomic():
        queue.enqueue_job(URL, 1)
        assert sent == []
    assert sent == [WORK]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        queue.enqueue_job(URL, 2)
        _ = 1 / 0
    assert list(ReindexJob.objects.values_list("generation", "status")) == [(1, Status.QUEUED)]
    assert len(sent) == 1


@pytest.mark.django_db(transaction=True)
def test_a_full_job_that_is_superseded_hands_that_on(sent: Sent) -> None:
    with transaction.atomic():
        queue.enqueue_job(URL, 1, full=True)
    assert owe(2).full
    assert not owe(1, "http://bo.localhost:4201/").full


@pytest.mark.django_db(transaction=True)
def test_a_requested_rerun_never_lowers_the_next_generation(sent: Sent) -> None:
    job = owe(3)
    ReindexJob.objects.filter(pk=job.pk).update(next_generation=7)
    lifecycle.request_rerun(job.pk)
    job.refresh_from_db()
    assert job.next_generation == 7


@pytest.mark.django_db(transaction=True)
def test_a_newer_job_supersedes_an_older_one_in_any_state(sent: Sent) -> None:
    other = owe(1, "http://bo.localhost:4201/")
    queued = owe(1)
    rendering = owe(2)
    batch = taken(plan(rendering, "a")[0])
    failed = owe(3)
    fail(failed)
    newest = owe(4)
    assert [status(job) for job in (queued, rendering, failed)] == [Status.SUPERSEDED] * 3
    assert status(newest) == status(other) == Status.QUEUED

    assert plan(queued, "a") == []
    assert not leases.renew(batch)
    assert not batches.finish(batch, results("a"))
    assert not IndexedCard.objects.exists()


# --- Batches -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_last_batch_swaps_the_index_and_no_batch_before_it(
    sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 2
    job = owe(1)
    first, second, third = plan(job, "a", "b", "c", "d", "e")
    assert plan(job, "a") == []  # a job is planned once
    assert ReindexBatch.objects.get(pk=third).paths == ["e.json"]
    assert batches.finish(taken(second), results("c", "d"))
    bad = {"url": f"{URL}b", "error": {"status": 500, "message": "no"}}
    assert batches.finish(taken(first), [*results("a"), bad])
    assert not IndexHead.objects.exists()
    assert find_page(URL, "a").generation is None
    assert batches.finish(taken(third), results("e"))
    assert status(job) == Status.DONE
    assert (job.total, job.rendered, job.errors) == (5, 5, 1)
    assert find_page(URL, "a").html == {"isolated": "new a"}
    assert find_page(URL, "b").error == {"status": 500, "message": "no"}
    assert find_page(URL, "nowhere") == type(find_page(URL, "a"))(1)


@pytest.mark.django_db(transaction=True)
def test_a_swap_removes_older_pages_and_an_older_index_never_returns(sent: Sent) -> None:
    old = owe(1)
    batches.finish(taken(plan(old, "a", "gone")[0]), results("a", "gone", edition="old"))
    new = owe(2)
    batches.finish(taken(plan(new, "a")[0]), results("a"))
    assert set(IndexedCard.objects.values_list("path", "job")) == {("a", new.pk)}

    # What no lock should let happen, happens: a job of an older generation is live.
    ReindexJob.objects.filter(pk=old.pk).update(status=Status.RENDERING)
    late = ReindexBatch.objects.create(job=old, paths=["a.json"])
    assert batches.finish(taken(late.pk), results("a", edition="old"))
    assert status(old) == Status.SUPERSEDED
    assert IndexHead.objects.get().job_id == new.pk
    assert find_page(URL, "a").html == {"isolated": "new a"}


@pytest.mark.django_db(transaction=True)
def test_a_realm_without_cards_has_an_index_at_once(sent: Sent) -> None:
    job = owe(3)
    assert plan(job) == []
    assert status(job) == Status.DONE
    assert readiness(URL, 3).ready


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_is_finished_twice_is_stored_once(sent: Sent) -> None:
    job = owe(1)
    slow, other = (taken(pk) for pk in plan_two(job))
    run_out(slow.pk)
    again = taken(slow.pk)
    assert batches.finish(again, results("a", edition="second"))
    assert not batches.finish(slow, results("a", edition="first"))
    assert batches.finish(other, results("b"))
    job.refresh_from_db()
    assert job.rendered == 2
    assert find_page(URL, "a").html == {"isolated": "second a"}


def plan_two(job: ReindexJob) -> list[int]:
    """Two batches of a card each."""
    with override_settings(REALM_BATCH_CARDS=1):
        return plan(job, "a", "b")


@pytest.mark.django_db
def test_the_planner_of_a_job_gets_the_lease_of_its_first_batch(sent: Sent) -> None:
    job = owe(1)
    with override_settings(REALM_BATCH_CARDS=1):
        first, second = lifecycle.create_batches(
            job, lifecycle.Plan(["a.json", "b.json"], {URL: 1}), lease_first=True
        )
    assert batches.claim(first.pk) is None
    assert batches.finish(first, results("a"))
    assert batches.claim(second.pk) is not None


@pytest.mark.django_db(transaction=True)
def test_of_many_who_claim_a_batch_one_gets_it(sent: Sent) -> None:
    (batch,) = plan(owe(1), "a")
    crowd = 8
    barrier = threading.Barrier(crowd)

    def claim() -> ReindexBatch | None:
        barrier.wait(10)
        return batches.claim(batch)

    claims = [in_thread(claim) for _ in range(crowd)]
    assert sum(claimed.result(10) is not None for claimed in claims) == 1


@pytest.mark.django_db(transaction=True)
def test_the_last_two_batches_finishing_together_swap_once(sent: Sent) -> None:
    job = owe(1)
    a, b = (taken(pk) for pk in plan_two(job))
    gate = Gate()

    def held() -> Iterator[dict[str, Any]]:
        gate.hold()
        yield from results("a")

    first = in_thread(batches.finish, a, held())
    gate.wait_for_arrival()
    second = in_thread(batches.finish, b, results("b"))
    # Without a lock the two would not see each other's work: a count is lost, or the swap.
    wait_until(lambda: second.done() or somebody_waits(), "the second at the lock of the first")
    gate.open()
    assert (first.result(10), second.result(10)) == (True, True)
    assert status(job) == Status.DONE
    assert job.rendered == 2
    assert IndexHead.objects.get().job_id == job.pk


def somebody_waits() -> bool:
    """Whether a client of the test's database waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE NOT l.granted AND a.datname = current_database()"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_held_as_long_as_it_is_renewed_and_no_longer(sent: Sent) -> None:
    (pk,) = plan(owe(1), "a")
    batch = taken(pk)
    assert batches.claim(pk) is None
    run_out(pk)
    assert leases.renew(batch)
    assert batches.claim(pk) is None
    run_out(pk)
    heir = taken(pk)
    assert heir.attempts == 2
    assert not leases.renew(batch)
    assert leases.renew(heir)
    batches.release(batch, "the late one gives up what it no longer has")
    assert batches.claim(pk) is None
    assert batches.finish(heir, results("a"))
    run_out(pk)
    assert batches.claim(pk) is None


# --- Failing, and trying again -----------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_released_batch_is_retried_until_the_job_fails_and_once_later(
    sent: Sent,
) -> None:
    job = owe(1)
    done, pk = plan_two(job)
    batches.finish(taken(done), results("a"))
    sent.clear()
    for attempt in range(1, leases.MAX_ATTEMPTS + 1):
        assert status(job) == Status.RENDERING
        batch = taken(pk)
        assert batch.attempts == attempt
        batches.release(batch, "replica b answered 503")
        assert batches.claim(pk) is None  # not in the same second
        run_out(pk)
    assert status(job) == Status.FAILED
    assert batches.claim(pk) is None
    state = readiness(URL, 1)
    assert (state.ready, state.missing) == (False, "prerender-html")
    assert state.error == "replica b answered 503"

    assert sweeper.sweep() == 0
    long_ago(job)
    assert sweeper.sweep() == 1
    assert sent == [WORK]
    assert status(job) == Status.RENDERING
    assert batches.finish(taken(pk), results("b"))
    assert status(job) == Status.DONE
    assert job.error == ""
    assert {card.path for card in IndexedCard.objects.all()} == {"a", "b"}


OTHER = "http://bo.localhost:4201/"


def fail(job: ReindexJob) -> None:
    for _ in range(leases.MAX_ATTEMPTS):
        ReindexJob.objects.filter(pk=job.pk).update(lease_until=None)
        leased = lifecycle.begin(job.pk)
        assert leased is not None
        lifecycle.record_failure(leased, "nobody there")
    assert status(job) == Status.FAILED


def shown(generation: int, reads: str) -> ReindexJob:
    """A finished job, whose index reads another realm."""
    job = owe(generation)
    batches.finish(taken(plan(job, "a")[0]), results("a"))
    ReindexJob.objects.filter(pk=job.pk).update(pins={URL: generation, reads: 1})
    return job


@pytest.mark.django_db(transaction=True)
def test_a_change_elsewhere_retries_the_failed_job_not_the_older_index(
    sent: Sent,
) -> None:
    """It had failed before it could say what it reads."""
    shown(1, OTHER)
    failed = owe(2)
    fail(failed)
    with transaction.atomic():
        queue.enqueue(changed=[OTHER])
    assert status(failed) == Status.SUPERSEDED
    live = ReindexJob.objects.live().get(realm_url=URL)
    assert live.generation == 2


@pytest.mark.django_db(transaction=True)
def test_a_failed_job_waits_for_a_later_one_and_then_begins_again(
    sent: Sent,
) -> None:
    """The later job's swap takes away what it had rendered; and nothing of this stops a sweep."""
    failed, lost = owe(2), owe(1, OTHER)
    done, other = plan_two(failed)
    batches.finish(taken(done), results("a"))
    for _ in range(leases.MAX_ATTEMPTS):
        batches.release(taken(other), "nobody there")
        run_out(other)
    assert status(failed) == Status.FAILED
    later = ReindexJob.objects.create(realm_url=URL, generation=1, sent_at=timezone.now())
    for job in (failed, lost):
        long_ago(job)
    sent.clear()
    assert sweeper.sweep() == 1
    assert sent == [WORK]
    assert status(failed) == Status.FAILED

    batches.finish(taken(plan(later, "a", "b")[0]), results("a", "b"))
    assert sweeper.sweep() == 1
    assert status(failed) == Status.QUEUED
    batches.finish(taken(plan(failed, "a", "b")[0]), results("a", "b"))
    assert status(failed) == Status.DONE
    cards = IndexedCard.objects.filter(realm_url=URL, current=True)
    assert {card.path for card in cards} == {"a", "b"}


@pytest.mark.django_db(transaction=True)
def test_a_job_that_nobody_can_plan_fails_and_is_taken_up_again_later(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", ["http://127.0.0.1:1"])
    job = owe(1)
    for _ in range(leases.MAX_ATTEMPTS):
        assert status(job) == Status.QUEUED
        assert work_off(sent) == 1
        ReindexJob.objects.update(sent_at=None, lease_until=None)
        sweeper.sweep()
    assert status(job) == Status.FAILED
    assert "127.0.0.1:1" in job.error
    assert sent == []
    long_ago(job)
    assert sweeper.sweep() == 1
    assert status(job) == Status.QUEUED
    assert sent == [WORK]


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_kills_its_workers_fails_the_job(
    sent: Sent,
) -> None:
    job = owe(1)
    (pk,) = plan(job, "a")
    for _ in range(leases.MAX_ATTEMPTS):
        long_ago(job)
        sweeper.sweep()
        assert sent.pop() == WORK
        taken(pk)
        run_out(pk)
    sweeper.sweep()
    assert status(job) == Status.FAILED
    assert job.error == "5 workers ended while they rendered the same batch"


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_planners_are_all_killed_fails(sent: Sent) -> None:
    job = owe(1)
    for _ in range(leases.MAX_ATTEMPTS):
        sweeper.sweep()
        assert lifecycle.begin(job.pk) is not None
        plan_run_out(job)
    sweeper.sweep()
    assert status(job) == Status.FAILED
    assert job.error == "5 workers ended while they planned it"


def plan_run_out(job: ReindexJob) -> None:
    past = timezone.now() - timedelta(seconds=1)
    ReindexJob.objects.filter(pk=job.pk).update(lease_until=past)


@pytest.mark.django_db(transaction=True)
def test_a_planner_renews_its_lease_and_makes_no_plan_once_it_has_lost_it(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0)
    job = owe(1)

    def slow(leased: ReindexJob, go_on: Any) -> lifecycle.Plan:
        plan_run_out(job)
        go_on()
        assert lifecycle.begin(job.pk) is None, "the lease was renewed"
        plan_run_out(job)
        assert lifecycle.begin(job.pk) is not None, "another takes it"
        go_on()
        raise AssertionError("unreachable")

    monkeypatch.setattr(planning, "plan", slow)
    assert tasks.work()
    assert (status(job), job.error) == (Status.QUEUED, "")


@pytest.mark.django_db(transaction=True)
def test_work_that_waits_for_a_writer_is_postponed_without_counting(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "WRITERS_SECONDS", 0.05)
    job = owe(1)

    def waits(leased: ReindexJob, go_on: Any) -> lifecycle.Plan:
        lifecycle.wait_for_writers(OTHER)
        return lifecycle.Plan([], {URL: 1})

    monkeypatch.setattr(planning, "plan", waits)
    with connect() as writer, writer.transaction():
        writer.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(OTHER)])
        for _ in range(leases.MAX_ATTEMPTS + 1):
            assert tasks.work()
            assert not tasks.work(), "it takes no other worker"
            plan_run_out(job)
        assert (status(job), job.attempts) == (Status.QUEUED, 0)
        assert job.error == f"{OTHER} is being written to for more than 0.05 s"
    assert tasks.work()
    assert (status(job), job.error) == (Status.DONE, "")


NOTES: dict[str, Callable[[ReindexJob], object]] = {
    "a generation": lambda job: tasks._pin(job.pk, OTHER, 1),
    "an address": lambda job: tasks._address(job, OTHER),
    "a realm that is not there": lambda job: tasks._note_missing_realm(job.pk, f"{OTHER}a"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", NOTES)
def test_a_note_that_a_writer_keeps_unchecked_has_the_job_followed(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(lifecycle, "WRITERS_SECONDS", 0.05)
    monkeypatch.setattr(tasks, "ask_address", lambda url: url)
    job = owe(1)
    with connect() as writer, writer.transaction():
        writer.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(OTHER)])
        with pytest.raises(lifecycle.WritersBusy):
            NOTES[what](job)
    job.refresh_from_db()
    assert job.next_generation == 1


@pytest.mark.django_db(transaction=True)
def test_the_sweeper_sends_what_is_owed_and_has_no_worker_and_nothing_else(sent: Sent) -> None:
    queued = owe(1, "http://a.localhost:4201/")
    rendering = owe(1)
    a, b = plan_two(rendering)
    taken(a)
    ended = owe(1, "http://b.localhost:4201/")
    lifecycle.create_batches(ended, lifecycle.Plan([], {}))
    sent.clear()
    assert sweeper.sweep() == 0  # their messages have just been sent
    for job in (queued, rendering, ended):
        long_ago(job)
    assert sweeper.sweep() == 2
    assert sent == [WORK] * 2
    assert sweeper.sweep() == 0
    long_ago(rendering)
    run_out(a)
    batches.finish(taken(b), results("b"))
    sent.clear()
    assert sweeper.sweep() == 1
    assert sent == [WORK]


# --- Taking down, and readiness ----------------------------------------------------------------


def test_an_unpublished_realm_has_no_pages_and_its_jobs_never_land(source: Any, sent: Sent) -> None:
    make.publish(source, URL)
    first = ReindexJob.objects.get()
    batches.finish(taken(plan(first, "index")[0]), results("index"))
    make.publish(source, URL)
    second = ReindexJob.objects.get(generation=2)
    batch = taken(plan(second, "index")[0])
    unpublish_realm(URL, Caller("ada"))
    assert status(second) == Status.CANCELLED
    assert not batches.finish(batch, results("index"))
    assert not IndexedCard.objects.exists()
    assert not IndexHead.objects.exists()
    assert sweeper.sweep() == 0

    again = publish_realm(source.url, URL, Caller("ada"))
    assert again.generation > 2
    assert find_page(URL, "index").generation is None


@pytest.mark.django_db(transaction=True)
def test_readiness_says_what_is_missing(sent: Sent) -> None:
    assert readiness(URL, 1).missing == "index"
    job = owe(1)
    assert readiness(URL, 1).missing == "index"
    (pk,) = plan(job, "a")
    assert readiness(URL, 1).missing == "prerender-html"
    batches.finish(taken(pk), results("a"))
    assert readiness(URL, 1).ready
    assert not readiness(URL, 2).ready
    owe(2)
    assert readiness(URL, 1).ready
    assert readiness(URL, 2).missing == "index"


# --- Pins and replicas -------------------------------------------------------------------------


@pytest.fixture
def unshunned() -> Iterator[None]:
    replicas._unhealthy.clear()
    yield
    replicas._unhealthy.clear()


@contextmanager
def fake_replica(status: int = 200, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A replica that gives every request one answer; its address, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("told", ["6", "8", None])
def test_an_answer_of_another_generation_is_refused(
    unshunned: None, monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    headers = {"X_Realm_Generation": told} if told else {}
    with fake_replica(200, **headers) as (address, asked):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", address.split(","))
        with pytest.raises(replicas.WrongGeneration, match=f"at generation {told}, asked for 7"):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
    assert len(asked) == 1


@pytest.mark.parametrize("status", [500, 502])
def test_a_replica_that_fails_is_left_out_for_a_while_and_another_is_asked(
    unshunned: None, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with fake_replica(status) as (broken, asked), fake_replica(X_Realm_Generation="7") as (good, _):
        monkeypatch.setattr(
            "django.conf.settings.REALM_RENDER_REPLICAS",
            f"{broken},{good},http://127.0.0.1:1".split(","),
        )
        for _ in range(24):
            assert replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access()).replica == good
        assert len(asked) == 1
        assert replicas.addresses()[0] == good

        monkeypatch.setattr(replicas, "SHUN_SECONDS", 0.0)
        replicas._unhealthy.clear()
        for _ in range(64):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
        assert len(asked) > 2  # it is given another chance


@pytest.mark.parametrize("status", [401, 429, 503])
def test_an_answer_that_says_nothing_of_the_file_is_not_a_missing_file(
    unshunned: None, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with fake_replica(status) as (address, _):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", address.split(","))
        with pytest.raises(replicas.ReplicaUnavailable, match=str(status)):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
        assert not replicas._unhealthy
    with fake_replica(404) as (address, _):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", address.split(","))
        assert replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access()).status == 404


def test_a_generation_that_is_gone_ends_the_pin_and_is_no_missing_file(
    unshunned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_replica(410) as (address, _):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", [address])
        with pytest.raises(replicas.PinEnded, match="generation 7"):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
        with pytest.raises(replicas.PinEnded, match="generation 7"):
            realm_history.files(Pin(URL, 7), Access())
        assert realm_history.manifest(Pin(URL, 7), Access(), since=3) is None


def pinned(web: Web, token: str, path: str = "index.json") -> int:
    """The status of a read with a pin."""
    url = f"http://localhost:4201/_at/{path}"
    return web.request("GET", url, accept="*/*", headers={PIN_HEADER: token}).status


def test_a_signed_pin_opens_one_realm_at_one_generation_for_an_hour(
    web: Web, source: Any, owner: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = "http://localhost:4201/ada/site/private/"
    other = make.source(inner, owner, {"x.json": b"{}"}, public=False)
    source.refresh_from_db()
    pin = Pin(source.url, source.generation)
    good = pins.sign(pin)
    assert pinned(web, good) == 200
    # It lies in another realm, of which the pin says nothing.
    assert pinned(web, good, "private/x.json") == 421
    assert pinned(web, pins.sign(Pin(other.url, other.generation), ITSELF), "x.json") == 200
    assert pinned(web, pins.sign(Pin(source.url, source.generation + 1))) == 404
    claims = signing.loads(good, salt="realms.pin")
    assert 3000 <= claims["expires"] - time.time() <= 3600
    for wrong in (
        signing.dumps({**claims, "expires": time.time() - 1}, salt="realms.pin"),
        signing.dumps({**claims, "generation": "x"}, salt="realms.pin"),
        signing.dumps({"realm": source.url}, salt="realms.pin"),
        signing.dumps([], salt="realms.pin"),
        signing.dumps(claims, salt="something else"),
        signing.dumps(claims, key="another key", salt="realms.pin"),
        jwt.encode(claims, settings.REALM_SECRET_SEED, algorithm="HS256"),
        make.login("ada")["Authorization"],
        good[:-2] + ("AA" if not good.endswith("AA") else "BB"),
        "x",
        "",
    ):
        assert pinned(web, wrong) == 401, wrong
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert pinned(web, good) == 401


def test_no_address_opens_a_realm_at_a_generation(web: Web, source: Any) -> None:
    token = pins.sign(Pin(source.url, source.generation))
    for path in (f"_at/{token}/index.json", f"_at/index.json?pin={token}", "_at/index.json"):
        assert web.get(f"http://localhost:4201/{path}", "*/*").status == 401


@pytest.mark.usefixtures("live")
def test_a_pin_ends_with_the_access_that_it_stands_for(web: Web, owner: Any) -> None:
    realm = make.source("http://localhost:4201/ada/site/", owner, {"x.json": b"{}"})
    bob = make.user("bob")
    permissions.change_permissions(realm, {"@bob:localhost": ["read"]})
    pin = Pin(realm.url, realm.generation)
    reader = auth.reader_key(Caller("bob", account_id=bob.pk, realm_id=realm.pk))
    everyones, own, bobs = (pins.sign(pin, each) for each in (EVERYONE, ITSELF, reader))

    def opened(*tokens: str) -> list[int]:
        return [pinned(web, token, "x.json") for token in tokens]

    assert opened(everyones, own, bobs) == [200, 200, 200]
    assert opened(everyones, own, bobs) == [200, 200, 200]
    permissions.change_permissions(realm, {"*": None})
    assert opened(everyones, own, bobs) == [403, 200, 200]
    permissions.change_permissions(realm, {"@bob:localhost": None})
    assert opened(everyones, own, bobs) == [403, 200, 403]
    permissions.change_permissions(realm, {"@bob:localhost": ["read"]})
    assert opened(everyones, own, bobs) == [403, 200, 200]
    bob.delete()
    assert opened(everyones, own, bobs) == [403, 200, 403]
    delete_realm(realm.url, Caller("ada"))
    assert opened(everyones, own, bobs) == [403, 403, 403]


# --- What a render reads -----------------------------------------------------------------------

SHARED = "http://localhost:4201/ada/shared/"
SECRET = "http://localhost:4201/ada/secret/"

NOTE = f"""\
import {{ Card, Embed, linksTo, string }} from "@realm/base";
import {{ label }} from "{SHARED}label.ts";
export class Note extends Card {{
  static fields = {{ title: string(), next: linksTo(() => Card) }};
  static embedded = ({{ card }}) => <i>{{card.title}} <Embed card={{card.next}} /></i>;
  static isolated = ({{ card }}) => <p>{{label}} {{card.title}} <Embed card={{card.next}} /></p>;
}}
"""


def note(title: str, next_: str = "", module: str = "./note") -> bytes:
    return make.card(module, "Note", {"next": next_} if next_ else None, title=title)


def words(html: str) -> str:
    """What a reader sees."""
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_a_render_reads_public_realms_and_no_private_ones(web: Web, owner: Any, sent: Sent) -> None:
    sync_base_realm()
    shared = make.source(SHARED, owner, {
        "label.ts": b'export const label = "shared";',
        "note.tsx": NOTE.encode(),
        "far.json": note("far"),
    })  # fmt: skip
    make.source(SECRET, owner, {
        "label.ts": b'export const label = "TOP SECRET";',
        "note.tsx": NOTE.encode(),
        "diary.json": note("TOP SECRET"),
    }, public=False)  # fmt: skip
    odd, odd_link = "fog horn, 100%41 (ä#?)", "./fog horn, 100%2541 (ä%23%3F)"
    files = {
        "note.tsx": NOTE.encode(),
        "spy.tsx": NOTE.replace(SHARED, SECRET).encode(),
        "realm.json": make.card("@realm/base", "RealmConfig", name="Notes"),
        "one.json": note("one", "./two"),
        "two.json": note("two", "./three.json"),
        "three.json": note("three", "./four"),
        "four.json": note("four", "./five"),
        "five.json": note("five"),
        "abroad.json": note("abroad", "/ada/shared/far"),
        "rooted.json": note("rooted", "./one", module="/ada/shared/note"),
        "spy.json": note("spy", module="./spy"),
        "thief.json": note("thief", module="/ada/secret/note"),
        "reader.json": note("reader", "/ada/secret/diary"),
        "lost.json": note("lost", "./nowhere"),
        f"{odd}.json": note("odd", "./one"),
        "to-odd.json": note("to-odd", odd_link),
        "notes.json": b'{"just": "data"}',
    }  # fmt: skip
    make.publish(make.source("http://localhost:4201/ada/notes/", owner, files), URL)
    work_off(sent)

    cards = index_of(URL)
    names = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    assert cards.keys() == names - {"realm", "notes"}
    assert {name for name, card in cards.items() if card.error} == {"spy", "thief"}
    shown = {name: words(card.html["isolated"]) for name, card in cards.items() if card.html}
    assert shown["one"] == "shared one two three four five"
    assert shown["abroad"] == "shared abroad far"
    assert shown["rooted"].startswith("shared rooted one two")
    assert shown["to-odd"].startswith("shared to-odd odd one")
    assert shown["reader"] == shown["lost"].replace("lost", "reader") == "shared reader"
    for name in ("spy", "thief"):
        assert (
            "is not in a realm of this server that everyone may read"
            in (cards[name].error["message"])
        )
    everything = json.dumps([vars(card) for card in cards.values()])
    assert "TOP SECRET" not in everything
    assert "/_at/" not in everything

    job = ReindexJob.objects.get(realm_url=URL)
    base = "http://localhost:4201/base/"
    assert job.pins == {URL: 1, SHARED: shared.generation, base: 2, SECRET: UNREADABLE_GENERATION}
    page = web.get(f"{URL}fog%20horn,%20100%2541%20(%C3%A4%23%3F)", "text/html")
    assert (page.status, "shared odd" in page.text) == (200, True)


def test_all_batches_of_a_job_read_another_realm_at_one_generation(
    web: Web, owner: Any, sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 1
    sync_base_realm()
    shared = make.source(SHARED, owner, {"label.ts": b'export const label = "first";'})
    files = {"note.tsx": NOTE.encode(), "a.json": note("a"), "b.json": note("b")}
    make.publish(make.source("http://localhost:4201/ada/notes/", owner, files), URL)
    plan_message = sent.pop(0)
    # Who plans renders the first batch.
    work_off([plan_message])
    [b] = sent
    make.write(shared, label__ts=b'export const label = "second";')
    work_off([b])
    cards = index_of(URL)
    assert {name: card.html["isolated"].split()[0] for name, card in cards.items()} == {
        "a": "<p>first",
        "b": "<p>first",
    }


def test_modules_are_imported_by_any_extension_that_typescript_gives_them(
    web: Web, owner: Any, sent: Sent
) -> None:
    sync_base_realm()
    note_module = NOTE.replace(f"{SHARED}label.ts", "./label.mts")
    source = make.source("http://localhost:4201/ada/notes/", owner, {
        "note.tsx": note_module.encode(),
        "label.mts": b'import { one } from "./one.mjs"; export const label: string = one;',
        "one.mjs": b'export const one = "one";',
        "old.tsx": note_module.replace("./label.mts", "./label.cts").encode(),
        "label.cts": b'export const label: string = "old";',
        "index.json": note("home"),
        "old.json": note("old", module="./old"),
    })  # fmt: skip
    make.publish(source, URL)
    work_off(sent)
    cards = index_of(URL)
    assert cards["index"].error is None and words(cards["index"].html["isolated"]) == "one home"
    assert "label.cts is a CommonJS module" in cards["old"].error["message"]
    answer = web.get(f"{source.url}label.mts")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert ": string" not in answer.text
    # One who imports it is followed, as with the usual extensions.
    make.write(source, one__mjs=b'export const one = "two";')
    make.publish(source, URL)
    work_off(sent)
    assert words(index_of(URL)["index"].html["isolated"]) == "two home"


@pytest.mark.parametrize("public", [True, False])
def test_what_is_written_by_the_sources_url_leads_to_what_is_published(
    public: bool, web: Web, owner: Any, sent: Sent
) -> None:
    sync_base_realm()
    at = "http://localhost:4201/ada/notes/"
    module = """\
import { Card, Embed, image, linksTo, Markdown, markdown } from "@realm/base";
export class Leaf extends Card {
  static fields = { body: markdown(), photo: image(), next: linksTo(() => Card) };
  static embedded = ({ card }) => <i>{card.body}</i>;
  static isolated = ({ card }) => (
    <div>
      <img class="own" src={card.photo} /><Markdown text={card.body} /><Embed card={card.next} />
    </div>
  );
}
"""
    text = f"[far]({at}two#top) ![dot]({at}dot.png) <{at}two?a=b>"
    text += f" [other]({SHARED}x) [out](http://x.org/)"
    home = make.card(f"{at}leaf", "Leaf", {"next": f"{at}two"}, body=text, photo=f"{at}dot.png")
    two = make.card("./leaf", "Leaf", body="published")
    files = {"leaf.tsx": module.encode(), "index.json": home, "two.json": two}
    source = make.source(at, owner, files, public=public)
    make.publish(source, URL)
    make.write(source, two__json=make.card("./leaf", "Leaf", body="draft"))
    work_off(sent)
    card = index_of(URL)["index"]
    assert card.error is None, card.error
    html = card.html["isolated"]
    for found in (
        f'"{URL}two#top"',
        f'src="{URL}dot.png" alt="dot"',
        f'"{URL}two?a=b"',
        f'class="own" src="{URL}dot.png"',
        f'"{SHARED}x"',
        '"http://x.org/"',
    ):
        assert found in html, (found, html)
    assert "<i>published</i>" in html and "draft" not in html
    assert at not in html.replace(f">{at}two?a=b<", "")
