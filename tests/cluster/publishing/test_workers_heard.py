"""Tests a real Celery worker. While the worker runs, it has a row in the table of workers, and the
jobs that it takes contain its name. The row is removed when the worker ends."""

import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from realms.publishing.bootstrap import sync_base_realm
from reindex.models import ReindexJob, Worker
from tests.support import make
from tests.support.cluster import cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

URL = "http://ada.localhost:4201/"
SECONDS = 60


def test_a_worker_has_a_row_from_its_start_to_its_end(owner: Any, tmp_path: Path) -> None:
    sync_base_realm()
    source = make.source("http://localhost:4201/ada/site/", owner, make.SITE)
    with cluster(tmp_path, 1) as running:
        running.wait_reported()
        worker = running.start_worker("w")
        wait_until(Worker.objects.exists, "the worker's row", SECONDS)
        row = Worker.objects.get()
        assert (row.pid, row.processes, row.host) == (worker.pid, 2, socket.gethostname())
        assert running.manage("publish_realm", source.url, URL).wait(SECONDS) == 0
        assert set(ReindexJob.objects.values_list("worker", flat=True)) == {row.name}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0
        assert not Worker.objects.exists()
