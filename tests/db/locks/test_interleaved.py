"""Runs pairs of operations concurrently. A step is a statement that locks rows. A pair runs several
times, and in each run the second operation starts after a different step of the first operation.

If two operations deadlock, Postgres stops one of them with an error. So the tests only check that
both operations end without an error.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import connection

from realms.access.auth import Caller
from realms.access.permissions import change_permissions
from realms.models import Realm
from realms.publishing.publish import delete_realm, unpublish_realm
from reindex.models import IndexHead, ReindexJob
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.gates import Gate, in_thread
from tests.support.web import ORIGIN

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

ADA = Caller("ada")
OUTER = "http://ada.localhost:4201/"
INNER, INMOST = f"{OUTER}b/", f"{OUTER}b/c/"
FIRST, SECOND = "http://ada.localhost:4201/x/", "http://lin.localhost:4201/"
CHANGES = ("INSERT", "UPDATE", "DELETE")


@contextmanager
def stopped_after(number: int, gate: Gate) -> Iterator[list[int]]:
    """Counts the steps of this thread during the `with` block, and stops the thread at the gate
    after step `number`. Yields a list with one element, which is the number of steps so far."""
    seen = [0]

    def step(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        text = str(sql).strip()
        if text.startswith(CHANGES) or "FOR UPDATE" in text:
            seen[0] += 1
            if seen[0] == number:
                gate.hold()
        return result

    with connection.execute_wrapper(step):
        yield seen


def interleave(first: Callable[[], object], second: Callable[[], object], number: int) -> bool:
    """Runs the second operation after step `number` of the first operation. Returns False if the
    first operation has fewer steps."""
    gate = Gate()

    def run() -> int:
        with stopped_after(number, gate) as seen:
            first()
        return seen[0]

    def other() -> None:
        second()

    running = in_thread(run)
    wait_until(lambda: gate._arrived.is_set() or running.done(), "the first at its step")
    following = in_thread(other)
    wait_until(lambda: following.done() or _somebody_waits(), "the second done or waiting")
    gate.open()
    steps = running.result(20)
    following.result(20)
    return steps >= number


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock')"
        )
        return bool(cursor.fetchone()[0])


def settle() -> None:
    """Marks all reindex jobs as done. Gives each realm an index (its rendered pages) that depends
    on all realms, so that an operation on one realm also queues jobs for other realms."""
    ReindexJob.objects.update(status="done")
    urls = list(Realm.objects.values_list("url", flat=True))
    IndexHead.objects.all().delete()
    for url in urls:
        job = ReindexJob.objects.create(
            realm_url=url, generation=1, status="done", pins=dict.fromkeys(urls, 1)
        )
        IndexHead.objects.create(realm_url=url, job=job, generation=1, swapped_at=job.created_at)


PAIRS = ["publishes", "nested unpublishes", "deletes", "rights", "a write and a publish"]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_operations_end_at_whichever_step_the_second_starts(source: Realm, pair: str) -> None:
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, make.SITE)
    more = make.source(f"{ORIGIN}/ada/more/", source.owner, make.SITE)
    count = 0

    def acts() -> tuple[Callable[[], object], Callable[[], object]]:
        nonlocal source, other
        if pair == "publishes":
            return partial(make.publish, source, FIRST), partial(make.publish, other, SECOND)
        if pair == "nested unpublishes":
            for realm, url in ((more, OUTER), (source, INNER), (other, INMOST)):
                make.publish(realm, url)
            return partial(unpublish_realm, INMOST, ADA), partial(unpublish_realm, INNER, ADA)
        if pair == "deletes":
            source = make.source(f"{ORIGIN}/ada/s{count}/", more.owner, {})
            other = make.source(f"{ORIGIN}/ada/o{count}/", more.owner, {})
            for realm, url in ((source, SECOND), (other, FIRST), (other, SECOND), (source, OUTER)):
                make.publish(realm, url)
            return partial(delete_realm, source.url, ADA), partial(delete_realm, other.url, ADA)
        if pair == "rights":
            opened = {"*": ["read"] if count % 2 else []}
            return (
                partial(change_permissions, source, opened),
                partial(change_permissions, other, opened),
            )
        return (
            partial(make.write, source, post__tsx=str(count).encode(), a__json=b"{}"),
            partial(make.publish, other, SECOND),
        )

    while True:
        # Nested unpublishes and deletes take a long time to set up, so the test tries only every
        # third step.
        count += 3 if pair in ("nested unpublishes", "deletes") else 1
        first, second = acts()
        if pair == "publishes" and count == 1:
            first(), second()
        settle()
        if not interleave(first, second, count):
            break
    assert count > 3, "the first operation has fewer than 3 steps"
