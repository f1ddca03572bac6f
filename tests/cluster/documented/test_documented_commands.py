"""Runs the commands that the docs list for operators, in a cluster of a replica, a sidecar and a
worker."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import ReindexJob
from settings.environment import BASE_DIR
from tests.support.cluster import Cluster, cluster
from tests.support.minutes import takes_minutes
from tests.support.runbooks.coverage_of_docs import ASKED, RUN

PUBLISHED = "http://ada.localhost:4201/"

pytestmark = [
    pytest.mark.cluster, pytest.mark.django_db(transaction=True), pytest.mark.timeout(900)
]  # fmt: skip


def run(running: Cluster, command: list[str]) -> str:
    """Runs a command with the environment variables of the replica's web service. Asserts that the
    command succeeds, and returns its output."""
    own = running.replicas[0].commands["web"].environment
    done = subprocess.run(
        command, cwd=BASE_DIR, env={**running.environment, **own}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command}: {said}"
    assert "Traceback" not in said, f"{command}: {said}"
    return said


@takes_minutes
def test_every_command_of_the_pages_for_operators_succeeds(source: Realm, tmp_path: Path) -> None:
    sync_base_realm()
    runs = list(dict.fromkeys(each for lines in RUN.values() for each in lines))
    with cluster(tmp_path, 1) as running:
        running.start_worker()
        running.wait_reported()
        for line in runs:
            job = ReindexJob.objects.filter(realm_url=PUBLISHED).first()
            words = line.format(source=source.url, site=PUBLISHED, job=job and job.pk)
            run(running, [sys.executable, "manage.py", *words.split()])
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed; all other commands have been run")
        here = {
            "10.0.0.12:8000": f"127.0.0.1:{running.replicas[0].port}",
            "tools.example.net": "ada.localhost:4201",
            "theme.css": "dot.png",
        }
        for line, expected in ASKED.items():
            for word, own in here.items():
                line = line.replace(word, own)
            output = subprocess.run(
                [*shlex.split(line), "--silent"], capture_output=True, timeout=30, check=True
            ).stdout
            assert expected.encode() in output
