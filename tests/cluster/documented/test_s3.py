"""Stores large content on S3, with real processes that are configured only by environment
variables.

The S3 server is moto, which is a test double.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import Answer, Cluster, cluster, wait_until
from tests.support.data.garbage import age
from tests.support.servers.proxy import Proxy, proxy
from tests.support.servers.s3 import BUCKET, KEYS, REGION, S3, s3

PUBLISHED = "http://ada.localhost:4201/"
LARGE = bytes(range(256)) * 1024
TEXT = "text/plain"
PAGE = (BASE_DIR / "docs/operations/s3.md").read_text()

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


@dataclass
class Fleet:
    """Two replicas, the S3 server, and the network between them."""

    cluster: Cluster
    s3: S3
    network: Proxy
    source: Realm

    def write(self, path: str, data: bytes) -> Answer:
        """Writes a file of the source realm through the first replica."""
        return self.cluster.replicas[0].request(
            "POST",
            self.source.url + path,
            accept="application/vnd.card+source",
            body=data,
            headers={**make.realm_login(self.source, "ada"), "Content-Type": TEXT},
        )

    def read(self, url: str) -> list[Answer]:
        """Returns each replica's answer to a request that bypasses the caches."""
        return [each.get(f"{url}?noCache", TEXT) for each in self.cluster.replicas]

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs a management command to its end."""
        command = [sys.executable, "manage.py", *arguments]
        # The tests' settings module would store the content in a folder and not on S3.
        environment = {**self.cluster.environment, "DJANGO_SETTINGS_MODULE": "settings"}
        return subprocess.run(
            command, cwd=BASE_DIR, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def storage(self) -> dict[str, str]:
        """Returns what `manage.py doctor` reports about the storage."""
        found = json.loads(self.manage("doctor", "--json").stdout)
        return next(each for each in found if each["about"] == "storage")


@pytest.fixture
def fleet(source: Realm, tmp_path: Path) -> Iterator[Fleet]:
    sync_base_realm()
    with s3(tmp_path) as server, proxy(("127.0.0.1", server.port)) as network:
        environment = {
            "REALM_BLOB_STORAGE": f"s3://{BUCKET}/prefix",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{network.port}",
            "AWS_DEFAULT_REGION": REGION,
            **KEYS,
        }
        assert set(re.findall(r"^    ([A-Z_0-9]+)=", PAGE, re.MULTILINE)) == set(environment)
        # With REALM_INDEX_SOURCES="1", a write would create a job for the source realm. No worker
        # runs here, so the job would wait, and garbage collection would keep the job's files.
        with cluster(tmp_path, 2, REALM_INDEX_SOURCES="0", **environment) as running:
            yield Fleet(running, server, network, source)


def test_large_content_is_shared_through_s3(fleet: Fleet) -> None:
    assert fleet.write("large.txt", LARGE).status == 204
    assert list(fleet.s3.objects().values()) == [len(LARGE)]
    assert all(name.startswith("prefix/") for name in fleet.s3.objects())
    make.publish(fleet.source, PUBLISHED)
    for url in (fleet.source.url, PUBLISHED):
        assert [each.body for each in fleet.read(f"{url}large.txt")] == [LARGE, LARGE]
    assert fleet.storage()["says"] == "this host can write and read content"
    assert list(fleet.s3.objects().values()) == [len(LARGE)], "the doctor leaves no object"

    assert fleet.write("unpublished.txt", LARGE + b"2").status == 204
    assert sorted(fleet.s3.objects().values()) == [len(LARGE), len(LARGE) + 1]
    make.remove(fleet.source, "unpublished.txt")
    age()
    done = fleet.manage("collect_garbage")
    assert done.returncode == 0, done.stderr
    assert list(fleet.s3.objects().values()) == [len(LARGE)], done.stdout


def test_an_outage_of_s3_is_reported_and_loses_no_acknowledged_write(fleet: Fleet) -> None:
    assert fleet.write("large.txt", LARGE).status == 204
    fleet.network.down()
    fleet.network.cut()
    refused = fleet.write("other.txt", LARGE + b"2")
    assert refused.status == 503
    assert "the storage of large content can't be reached" in refused.text
    for answer in fleet.read(f"{fleet.source.url}large.txt"):
        assert answer.status == 503
        assert "the storage of large content can't be reached" in answer.text
    assert fleet.write("small.txt", b"small").status == 204
    assert [each.body for each in fleet.read(f"{fleet.source.url}small.txt")] == [b"small"] * 2
    found = fleet.storage()
    assert found["severity"] == "problem"
    assert "this host can't write and read a file: " in found["says"]
    collecting = fleet.manage("collect_garbage")
    assert collecting.returncode == 1
    assert "the storage of large content can't be reached" in collecting.stderr
    assert "Traceback" not in collecting.stderr

    fleet.network.up()
    wait_until(
        lambda: [each.body for each in fleet.read(f"{fleet.source.url}large.txt")] == [LARGE] * 2,
        "the acknowledged file can be read again",
    )
    assert {each.status for each in fleet.read(f"{fleet.source.url}other.txt")} == {404}
    assert fleet.write("other.txt", LARGE + b"2").status == 204
