"""Provides a replica that serves a file with a number, and makes sidecars ping often.

A sidecar is the process of a replica that receives notifications of changes from Postgres. A ping
is a notification that a sidecar's listener sends to itself. A ping that comes back proves that no
earlier notification is missing.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from notifications import listener as listener_module
from realms.models import Realm
from tests.support.clients.counting import count
from tests.support.cluster import Cluster, Replica


@pytest.fixture
def replica(source: Realm, tmp_path: Path) -> Iterator[Replica]:
    """Yields a replica without starting its processes. The file count.ts of the realm `source` has
    the number 1."""
    from realms.publishing.bootstrap import sync_base_realm

    sync_base_realm()
    count(source, 1)
    fleet = Cluster(tmp_path, 1, {})
    try:
        yield fleet.replicas[0]
    finally:
        fleet.stop()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes listeners send pings five times as often as in production."""
    monkeypatch.setattr(listener_module, "PING_SECONDS", 0.1)
