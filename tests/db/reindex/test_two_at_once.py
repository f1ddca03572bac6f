"""Tests two concurrent operations on reindex jobs. The result must be the same as if the operations
ran one after the other."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from reindex.index import swap
from reindex.jobs import batches, leases, lifecycle, queue, sweeper, wanted
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob, WantedDefinitions
from tests.support.interleaving import Run, outcomes_at_once, outcomes_in_a_row

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

URL = "http://ada.localhost:4201/"
MODULE = f"{URL}post.tsx"
PAST = timedelta(hours=1)


def picture() -> dict[str, Any]:
    """Returns all values that the two operations can change. A fixed text replaces every timestamp,
    so that the values of two runs can be equal."""
    listed = {
        "jobs": ReindexJob.objects.order_by("pk").values_list(
            "generation", "status", "next_generation", "total", "seen", "rendered", "errors",
            "attempts", "error", "lease_until", "finished_at", "pins",
        ),
        "batches": ReindexBatch.objects.order_by("pk").values_list(
            "paths", "done", "attempts", "lease_until",
        ),
        "cards": IndexedCard.objects.order_by("job", "path").values_list("path", "html", "current"),
        "heads": IndexHead.objects.values_list("realm_url", "generation"),
        "definitions": WantedDefinitions.objects.values_list("attempts", "lease_until"),
    }  # fmt: skip
    return {name: [tuple(map(_plain, row)) for row in rows] for name, rows in listed.items()}


def _plain(value: Any) -> Any:
    return "a time" if hasattr(value, "year") else value


def empty() -> None:
    """Removes the rows that the previous run wrote."""
    with connection.cursor() as cursor:
        for table in (
            "indexedcard",
            "indexhead",
            "reindexbatch",
            "reindexjob",
            "wanteddefinitions",
        ):
            cursor.execute(f"DELETE FROM reindex_{table}")


def made_job(**more: Any) -> ReindexJob:
    """Makes a job that a worker began to plan. The worker's lease has expired."""
    past = timezone.now() - PAST
    given = {"lease_until": past, "lease_number": 1, "attempts": 1, "started_at": past, **more}
    return ReindexJob.objects.create(realm_url=URL, generation=1, pins={URL: 1}, **given)


def made_batches(*names: str, attempts: int = 1, **more: Any) -> list[ReindexBatch]:
    """Makes one job with a batch for each name. Each batch has one card and an expired lease."""
    job = made_job(**{"status": "rendering", "lease_until": None, **more})
    lease = {"lease_until": timezone.now() - PAST, "lease_number": 1, "attempts": attempts}
    return ReindexBatch.objects.bulk_create(
        ReindexBatch(job=job, paths=[f"{name}.json"], **lease) for name in names
    )


def twice(batch: ReindexBatch) -> list[ReindexBatch]:
    """Returns two copies of the batch, as if two workers had read it."""
    return [ReindexBatch.objects.select_related("job").get(pk=batch.pk), batch]


def plan(*names: str) -> lifecycle.Plan:
    return lifecycle.Plan([f"{name}.json" for name in names], {URL: 1})


def with_each(table: dict[str, Any], other: str) -> list[tuple[str, str]]:
    """Returns pairs of names of operations. Each operation in `table` is paired with itself and
    with `other`."""
    return [(one, one) for one in table] + [(one, other) for one in table if one != other]


def results(batch: ReindexBatch) -> list[dict[str, Any]]:
    names = [path.removesuffix(".json") for path in batch.paths]
    return [{"url": URL + name, "html": {"isolated": name}, "search": {}} for name in names]


def cancel_and_owe() -> None:
    with transaction.atomic():
        queue.enqueue_job(URL, 2)


def give_up() -> None:
    sweeper._give_up(timezone.now())


def try_again() -> None:
    sweeper._try_again(timezone.now())


def assert_same(prepare: Callable[[], tuple[Run, Run]], *, passes: bool = False) -> None:
    """Asserts that every interleaving of the two operations has the result of a sequential run. If
    `passes` is true, the second operation may skip rows that the first operation has locked. In
    this case, the result may also be that of the first operation alone."""

    def anew() -> tuple[Run, Run]:
        empty()
        return prepare()

    expected = outcomes_in_a_row(anew, picture)
    if passes:
        answer = anew()[0]()
        expected.append((picture(), answer, False))
    for stop, outcome in outcomes_at_once(anew, picture):
        assert outcome in expected, (
            f"the first operation stopped after {stop} statements or commits"
        )


# --- Planning a job ----------------------------------------------------------------------------

#: Operations on a queued job. `old` is the copy of the job that a worker with an expired lease
#: still has.
PLANNING: dict[str, Callable[[ReindexJob], Any]] = {
    "begin": lambda old: lifecycle.lease_job(old.pk) is not None,
    "planned": lambda old: len(lifecycle.create_batches(old, plan("a", "b"))),
    "swapped": lambda old: lifecycle.create_batches(old, plan()),
    "renew": leases.renew,
    "announce": lambda old: lifecycle.watch_realms(old, {URL: 1}, {}),
    "failed": lambda old: lifecycle.record_failure(old, "nobody there"),
    "postpone": lambda old: leases.postpone(old, "busy"),
    "replace": lambda old: lifecycle.replace_job(old, "closed"),
    "owe": lambda old: cancel_and_owe(),
    "cancel": lambda old: queue.cancel(URL),
    "give up": lambda old: give_up(),
}


@pytest.mark.parametrize(("one", "two"), with_each(PLANNING, "begin"))
def test_two_operations_on_planning_have_a_sequential_result(one: str, two: str) -> None:
    last = "give up" in (one, two)

    def prepare() -> tuple[Run, Run]:
        job = made_job(attempts=leases.MAX_ATTEMPTS if last else 1)
        return lambda: PLANNING[one](job), lambda: PLANNING[two](job)

    assert_same(prepare, passes=two == "begin")


@pytest.mark.parametrize("late", ["planned", "swapped", "renew", "announce", "failed", "replace"])
def test_a_planner_that_has_lost_its_lease_changes_nothing(late: str) -> None:
    lost = made_job()
    assert lifecycle.lease_job(lost.pk) is not None
    before = picture()
    assert not PLANNING[late](lost)
    assert picture() == before


# --- Rendering a batch -------------------------------------------------------------------------

RENDERING: dict[str, Callable[[ReindexBatch], Any]] = {
    "claim": lambda old: batches.lease_batch(old.pk) is not None,
    "renew": leases.renew,
    "release": lambda old: batches.release(old, "nobody there"),
    "postpone": lambda old: leases.postpone(old, "busy"),
    "put down": batches.end_lease_of_ended_job,
    "replace": lambda old: lifecycle.replace_job(old, "closed"),
    "finish": lambda old: batches.finish(old, results(old)),
    "finish in part": lambda old: batches.finish(old, [], [old.paths]),
    "owe": lambda old: cancel_and_owe(),
    "cancel": lambda old: queue.cancel(URL),
    "give up": lambda old: give_up(),
}


AT_THE_FINISH = [("finish", each) for each in ("claim", "renew", "release", "cancel", "owe")]


@pytest.mark.parametrize(("one", "two"), [*with_each(RENDERING, "claim"), *AT_THE_FINISH])
def test_two_operations_on_a_batch_have_a_sequential_result(one: str, two: str) -> None:
    last = "give up" in (one, two)

    def prepare() -> tuple[Run, Run]:
        (batch,) = made_batches("a", attempts=leases.MAX_ATTEMPTS if last else 1)
        old = twice(batch)
        return lambda: RENDERING[one](old[0]), lambda: RENDERING[two](old[1])

    assert_same(prepare, passes=two == "claim")


@pytest.mark.parametrize("late", ["renew", "release", "postpone", "put down", "replace", "finish"])
def test_a_worker_that_has_lost_its_lease_does_not_affect_the_holder(late: str) -> None:
    def prepare() -> tuple[Run, Run]:
        (lost,) = made_batches("a")
        held = batches.lease_batch(lost.pk)
        assert held is not None
        return lambda: RENDERING[late](lost), lambda: RENDERING["finish"](held)

    assert_same(prepare)
    empty()
    late_one, holder = prepare()
    before = picture()
    assert not late_one()
    assert picture() == before
    assert holder()


@pytest.mark.parametrize("late", ["renew", "release", "postpone", "replace", "finish"])
def test_a_batch_lease_that_a_database_crash_has_undone_is_lost(late: str) -> None:
    """The commit of a lease doesn't wait for the disk, so a crash of the database may undo the
    lease. The next worker that leases the row must not be confused with the worker that had the
    undone lease."""
    (batch,) = made_batches("a")
    before = ReindexBatch.objects.filter(pk=batch.pk).values().get()
    undone = batches.lease_batch(batch.pk)
    ReindexBatch.objects.filter(pk=batch.pk).update(**before)
    held = batches.lease_batch(batch.pk)
    assert undone is not None and held is not None
    assert not RENDERING[late](undone)
    assert RENDERING["finish"](held)


@pytest.mark.parametrize("late", ["planned", "renew", "announce", "failed", "postpone", "replace"])
def test_a_plan_lease_that_a_database_crash_has_undone_is_lost(late: str) -> None:
    job = made_job()
    before = ReindexJob.objects.filter(pk=job.pk).values().get()
    undone = lifecycle.lease_job(job.pk)
    ReindexJob.objects.filter(pk=job.pk).update(**before)
    held = lifecycle.lease_job(job.pk)
    assert undone is not None and held is not None
    now = picture()
    assert not PLANNING[late](undone)
    assert picture() == now
    assert PLANNING["planned"](held)


@pytest.mark.parametrize("late", ["renew", "release", "postpone", "replace", "finish"])
def test_a_worker_cannot_change_a_new_batch_that_reuses_its_key(late: str) -> None:
    """A crash of the database may undo the creation of a batch, and the increment of the sequence
    from which the batch got its primary key. The next new batch then gets the same key."""
    (lost,) = made_batches("a")
    undone = batches.lease_batch(lost.pk)
    assert undone is not None
    ReindexBatch.objects.filter(pk=lost.pk).delete()
    job = ReindexJob.objects.get()
    other = ReindexJob.objects.create(
        realm_url=f"{URL}other/", generation=1, status="rendering", pins={}
    )
    ReindexBatch.objects.create(pk=lost.pk, job=other, paths=["b.json"], lease_number=1)
    held = batches.lease_batch(lost.pk)
    assert held is not None and job.status == "rendering"
    assert not RENDERING[late](undone)
    again = ReindexBatch.objects.get(pk=lost.pk)
    assert (again.done, again.paths, again.lease_number) == (False, ["b.json"], held.lease_number)


def test_the_last_two_batches_of_a_job_swap_its_index_once() -> None:
    def prepare() -> tuple[Run, Run]:
        one, two = made_batches("a", "b")
        return lambda: batches.finish(one, results(one)), lambda: batches.finish(two, results(two))

    assert_same(prepare)


@pytest.mark.parametrize("two", ["swap", "owe", "cancel"])
def test_two_operations_on_a_swap_have_a_sequential_result(two: str) -> None:
    def swapped() -> str:
        with transaction.atomic():
            job = leases.locked_job(ReindexJob.objects.earliest("pk").pk)
            assert job is not None
            if job.is_live:
                swap.swap(job)
            return str(job.status)

    others: dict[str, Run] = {
        "swap": swapped,
        "owe": cancel_and_owe,
        "cancel": lambda: queue.cancel(URL),
    }

    def prepare() -> tuple[Run, Run]:
        made_job()
        return swapped, others[two]

    assert_same(prepare)


# --- Failed jobs and definitions ---------------------------------------------------------------

FAILED: dict[str, Callable[[ReindexBatch], Any]] = {
    "try again": lambda old: try_again(),
    "retry": lambda old: sweeper.retry(old.job_id),
    "claim": lambda old: batches.lease_batch(old.pk) is not None,
    "finish": lambda old: batches.finish(old, results(old)),
    "release": lambda old: batches.release(old, "nobody there"),
    "owe": lambda old: cancel_and_owe(),
    "cancel": lambda old: queue.cancel(URL),
}


@pytest.mark.parametrize(
    ("one", "two"), {**dict.fromkeys(with_each(FAILED, "try again")), ("owe", "retry"): None}
)
def test_two_operations_on_a_failed_job_have_a_sequential_result(one: str, two: str) -> None:
    def prepare() -> tuple[Run, Run]:
        (batch,) = made_batches("a", status="failed", finished_at=timezone.now() - PAST)
        old = twice(batch)
        return lambda: FAILED[one](old[0]), lambda: FAILED[two](old[1])

    assert_same(prepare)


WANTED: dict[str, Callable[[WantedDefinitions], Any]] = {
    "claim": lambda old: wanted.lease_definitions(MODULE) is not None,
    "built": wanted.remove_wanted,
    "want": lambda old: wanted.want_definitions([MODULE]),
    "want anew": lambda old: wanted.want_definitions([MODULE], anew=True),
}


@pytest.mark.parametrize(("one", "two"), with_each(WANTED, "claim"))
@pytest.mark.parametrize("attempts", [1, leases.MAX_ATTEMPTS])
def test_two_operations_on_definitions_have_a_sequential_result(
    one: str, two: str, attempts: int
) -> None:
    def prepare() -> tuple[Run, Run]:
        past = timezone.now() - PAST
        old = WantedDefinitions.objects.create(
            module_url=MODULE, due_at=past, lease_until=past, attempts=attempts
        )
        return lambda: WANTED[one](old), lambda: WANTED[two](old)

    # The operation `claim` skips locked rows. But `want_definitions` sends a message at its end, so
    # a worker looks for the module again.
    assert_same(prepare, passes=(one, two) == ("want anew", "claim"))
