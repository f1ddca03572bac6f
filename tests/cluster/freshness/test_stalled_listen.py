"""Tests a replica while its sidecar's LISTEN connection stays open but delivers no notifications.

The sidecar is the process that receives notifications of changes from Postgres. A hit is an answer
from a cache. The bound is the staleness bound: how long a replica may serve outdated content.
"""

import time
from pathlib import Path

import pytest
from django.conf import settings

from realms.models import Realm
from tests.faults.campaign import Plan, fleet
from tests.support import make
from tests.support.cluster import Replica, wait_until
from tests.support.web import SOURCE

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

BACK_TO_HITS_SECONDS = 3


def test_a_stalled_connection_keeps_the_bound_and_hits_resume_after_it(
    source: Realm, tmp_path: Path
) -> None:
    """When the connection has been stalled for the staleness bound (2 s), the replica reads the
    database for each request. After the stall the replica answers from its caches again, whether or
    not the sidecar needs a new connection."""
    url = f"{source.url}label.ts"
    make.write(source, label__ts=b"before")
    with fleet(Plan(0, "", 1), tmp_path) as (running, proxies):
        (replica,) = running.replicas
        # The sidecar replaces a connection that has been silent for 5 s. So the connection survives
        # the first stall, but not the second.
        for number, seconds in enumerate((2.5, 6.5)):
            _all_hit(replica, url)
            proxies[replica.name].stall()
            began = time.monotonic()
            new = f"number {number}".encode()
            make.write(source, label__ts=new)
            committed = time.monotonic()
            while time.monotonic() < began + seconds:
                asked = time.monotonic()
                answer = replica.get(url, SOURCE)
                if asked > committed + settings.REALM_STALENESS_BOUND:
                    assert answer.body == new
            proxies[replica.name].flow()
            ended = time.monotonic()
            _all_hit(replica, url)
            assert time.monotonic() - ended < BACK_TO_HITS_SECONDS
            assert {a.body for a in replica.each_worker(url, SOURCE).values()} == {new}


def _all_hit(replica: Replica, url: str) -> None:
    def hit() -> bool:
        answers = replica.each_worker(url, SOURCE).values()
        return {answer.cache for answer in answers} == {"hit"}

    wait_until(hit, "every web worker answers from its cache", 10)
