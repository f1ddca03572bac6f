"""Tests a worker that is isolated from the replicas, like a worker on another machine.

The worker runs from a copy of the checkout, with a separate data folder, and can't read the
replicas' folders. In the cases with `namespace`, the worker also runs in a separate network. From
that network, it reaches only the database, the broker and the replicas, each through a proxy.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.conf import settings
from django.db import connection

from realms.publishing.bootstrap import sync_base_realm
from reindex.models import IndexedCard, ReindexBatch, ReindexJob
from reindex.prerender.renderer import renderer
from settings.environment import BASE_DIR
from settings.processes import celery_worker
from tests.services.test_services import rabbitmq, redis
from tests.support import make
from tests.support.cluster import Cluster, wait_until
from tests.support.minutes import takes_minutes
from tests.support.servers.proxy import Proxy, proxy

URL = "http://ada.localhost:4201/"
LIBRARY = "http://localhost:4201/ada/library/"
NOBODY = 65534

pytestmark = [
    pytest.mark.services,
    pytest.mark.cluster,
    pytest.mark.django_db(transaction=True),
]

MODULE = f"""\
import {{ Card, linksTo, string }} from "@realm/base";
import {{ label }} from "{LIBRARY}label.ts";
import {{ suffix }} from "./deep/suffix";
export class Note extends Card {{
  static fields = {{ title: string(), text: string(), next: linksTo(() => Card) }};
  static isolated = ({{ card }}) => (
    <p>{{label}} {{card.title}}{{suffix}} {{card.text.length}} {{card.next?.cardTitle}}</p>
  );
}}
"""
#: The files with 70,000 times `x` are too large for a row of the database. So they are in the blob
#: storage, which the worker can't read.
SITE = {
    "realm.json": make.card("@realm/base", "RealmConfig", name="Notes"),
    "note.tsx": MODULE.encode(),
    "deep/suffix.ts": b'export const suffix = "!";',
    "index.json": make.card("./note", "Note", {"next": "./deep/one"}, title="index", text=""),
    "deep/one.json": make.card("../note", "Note", title="one", text="x" * 70_000),
    "wrong.json": make.card("./note", "Nothing", title="wrong"),
    "same.tsx": MODULE.replace("Note", "Same").encode() + b"\n//" + b"x" * 70_000,
    "two.json": make.card("./same", "Same", title="two", text=""),
}


@dataclass(frozen=True)
class Place:
    """An environment for the worker. The worker reaches the proxies at `address`. `within` is the
    start of a command line. A command that follows `within` runs in this environment."""

    address: str
    within: tuple[str, ...]

    def can(self, *command: str) -> bool:
        """Runs a command in the worker's environment, and returns whether the command succeeds."""
        done = subprocess.run([*self.within, *command], capture_output=True, check=False)
        return done.returncode == 0


def _need(*programs: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can drop capabilities and make network namespaces")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"the program `{program}` is not installed")


#: A command that follows these words runs as root without capabilities, so it can't read closed
#: folders of other users.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


@contextmanager
def folder() -> Iterator[Place]:
    """Yields a `Place` in the test's own network. Commands run there without capabilities."""
    _need("setpriv")
    yield Place("127.0.0.1", POWERLESS)


@contextmanager
def namespace() -> Iterator[Place]:
    """Makes a network namespace, and yields a `Place` in it. The namespace has only one link, to
    the network in which the test and the replicas run."""
    _need("setpriv", "ip")
    name = f"realm{uuid.uuid4().hex[:8]}"
    block = uuid.uuid4().int % 2**15 * 4
    # Both addresses are from a range that isn't routed on the internet. RFC 2544 reserves the range
    # for benchmarks of network devices.
    here, there = (
        f"198.{18 + block // 2**16}.{block // 256 % 256}.{block % 256 + i}" for i in (1, 2)
    )
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no network namespace can be made: {made.stderr.decode().strip()}")
    try:
        inside = ("ip", "netns", "exec", name)
        cable = ("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
        joined = subprocess.run([*cable, "netns", name], capture_output=True, check=False)
        if joined.returncode != 0:
            pytest.skip(f"no link to the namespace can be made: {joined.stderr.decode().strip()}")
        for command in (
            ("ip", "addr", "add", f"{here}/30", "dev", f"{name}a"),
            ("ip", "link", "set", f"{name}a", "up"),
            (*inside, "ip", "addr", "add", f"{there}/30", "dev", f"{name}b"),
            (*inside, "ip", "link", "set", f"{name}b", "up"),
            (*inside, "ip", "link", "set", "lo", "up"),
        ):
            subprocess.run(command, check=True)
        yield Place(here, (*inside, *POWERLESS))
    finally:
        # Deleting the namespace also deletes the link.
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Makes a copy of this checkout with a changed prerenderer (the program that renders cards). A
    job's `renderer`, a hash of the rendering code, then shows whether the copy rendered the job."""
    copy = tmp_path / "checkout"
    left = shutil.ignore_patterns(
        ".git", ".venv", ".data", "tests", "docs", "*_cache", "__pycache__"
    )
    shutil.copytree(BASE_DIR, copy, ignore=left, symlinks=True)
    with open(copy / "reindex/deno/host.ts", "a") as host:
        host.write("// elsewhere\n")
    return copy


@contextmanager
def closed(*folders: Path) -> Iterator[None]:
    """During the block, gives folders to the user `NOBODY` and denies access to all other users.
    The replicas run as root with all capabilities, so they can still read these folders."""
    before = [(each, each.stat()) for each in folders]
    try:
        for each in folders:
            os.chown(each, NOBODY, NOBODY)
            each.chmod(0o700)
        yield
    finally:
        for each, was in before:
            os.chown(each, was.st_uid, was.st_gid)
            each.chmod(was.st_mode & 0o7777)


@pytest.mark.parametrize(
    ("broker", "place"),
    [
        pytest.param(rabbitmq, namespace, marks=takes_minutes),
        (redis, folder),
        pytest.param(rabbitmq, folder, marks=takes_minutes),
        pytest.param(redis, namespace, marks=takes_minutes),
    ],
)
def test_a_remote_worker_makes_the_same_index_as_a_local_worker(
    place: Any, broker: Any, owner: Any, tmp_path: Path, checkout: Path
) -> None:
    sync_base_realm()
    make.source(LIBRARY, owner, {"label.ts": b'export const label = "from the library";'})
    source = make.source("http://localhost:4201/ada/site/", owner, SITE)
    here, own = tmp_path / "here", tmp_path / "own"
    here.mkdir()
    own.mkdir()
    blobs = Path(settings.STORAGES["blobs"]["OPTIONS"]["location"])
    prefix = f"realm_test_{uuid.uuid4().hex[:12]}."
    with ExitStack() as stack:
        there = stack.enter_context(place())
        url = stack.enter_context(broker(prefix))
        # The sweeper, a task that sends lost messages again, doesn't run during the test.
        environment = {
            "CELERY_BROKER_URL": url,
            "REALM_QUEUE_PREFIX": prefix,
            "REALM_SWEEP_SECONDS": "3600",
        }
        fleet = Cluster(here, 2, environment)
        stack.callback(fleet.stop)
        roads = [stack.enter_context(_road(replica, there)) for replica in fleet.replicas]
        fleet.start()
        fleet.wait_reported()
        stack.enter_context(closed(here, blobs))
        _assert_apart(there, fleet, here, blobs)

        broker_parts = urlsplit(url)
        database = stack.enter_context(proxy(at=there.address))
        messages = stack.enter_context(
            proxy((str(broker_parts.hostname), int(broker_parts.port or 0)), at=there.address)
        )
        login = broker_parts.netloc.rpartition("@")[0]
        at = f"{messages.host}:{messages.port}"
        worker = fleet.spawn(
            celery_worker("elsewhere"),
            cwd=checkout,
            within=there.within,
            DATABASE_URL=_database_url(database),
            CELERY_BROKER_URL=broker_parts._replace(
                netloc=f"{login}@{at}" if login else at
            ).geturl(),
            REALM_DATA_DIR=str(own),
            REALM_BOARD=str(own / "board"),
            REALM_BLOB_STORAGE=str(own / "blobs"),
            REALM_REPLICA_ADDRESS="http://127.0.0.1:1",
        )
        job = _published(fleet, source.url)
        assert job.renderer != renderer(), "the code of this checkout rendered the job"
        elsewhere = _index()
        read_from = set(ReindexBatch.objects.filter(job=job).values_list("replica", flat=True))
        assert read_from <= {f"http://{road.host}:{road.port}" for road in roads}
        _assert_read_over_http(roads)
        # The worker must not store files of the realms in its own blob storage.
        assert not [each for each in (own / "blobs").rglob("*") if each.is_file()]
        worker.terminate()
        worker.wait(60)

        fleet.start_worker("here")
        assert fleet.manage("reindex_realm", URL, "--full", "--allow-errors").wait(120) == 0
        again = ReindexJob.objects.filter(realm_url=URL, status="done").first()
        assert again is not None and again.pk != job.pk and again.renderer == renderer()
        assert _index() == elsewhere
    assert elsewhere.keys() == {"index", "deep/one", "wrong", "two"}
    assert [path for path, row in elsewhere.items() if row["error"]] == ["wrong"]
    assert "from the library index! 0" in elsewhere["index"]["html"]["isolated"]
    assert "one! 70000" in elsewhere["deep/one"]["html"]["isolated"]


def _road(replica: Any, there: Place) -> Any:
    """Returns a context manager that runs a proxy in front of a replica. The replica then tells
    workers the proxy's address instead of its own."""

    @contextmanager
    def opened() -> Iterator[Proxy]:
        with proxy(("127.0.0.1", replica.port), at=there.address, keep=True) as road:
            address = {"REALM_REPLICA_ADDRESS": f"http://{road.host}:{road.port}"}
            for role, command in replica.commands.items():
                told = {**command.environment, **address}
                replica.commands[role] = dataclasses.replace(command, environment=told)
            yield road

    return opened()


def _assert_apart(there: Place, fleet: Cluster, *folders: Path) -> None:
    """Checks that the worker can't read `folders`. If the worker has a network namespace, also
    checks that it can't reach the replica and the services without a proxy."""
    for each in folders:
        assert any(each.iterdir())
        assert not there.can("ls", str(each)), each
    if "netns" in there.within:
        for port in (fleet.replicas[0].port, 5432, 5672, 6379):
            ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
            assert not there.can(sys.executable, "-c", ask), port


def _database_url(road: Proxy) -> str:
    own = connection.get_connection_params()
    login = ":".join(quote(own[key]) for key in ("user", "password") if own.get(key))
    return f"postgresql://{login}@{road.host}:{road.port}/{own['dbname']}"


def _published(fleet: Cluster, source_url: str) -> ReindexJob:
    answer = fleet.replicas[0].request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept="application/vnd.api+json",
        body=json.dumps({"sourceRealmURL": source_url, "publishedRealmURL": URL}),
        headers=make.login("ada"),
    )
    assert answer.status == 202, answer.text
    job = wait_until(
        ReindexJob.objects.filter(realm_url=URL, status="done").first, "the job done", 90
    )
    assert isinstance(job, ReindexJob)
    return job


def _assert_read_over_http(roads: list[Proxy]) -> None:
    """Checks that the worker requested every file over HTTP. The worker requests several cards at
    once, in a list of paths, and each module by its URL."""
    said = b"\n".join(bytes(each) for road in roads for each in road.heard).decode(errors="replace")
    for path in SITE:
        if path.endswith(".json"):
            assert f'"{path}"' in said, path
        else:
            stem = path.rsplit(".", 1)[0]
            assert re.search(rf"GET /_at/{re.escape(stem)}(\.tsx?)? ", said), path
    assert re.search(r"GET /_at/label(\.ts)? ", said)
    assert re.search(r"GET /_at/mod\.ts ", said)


def _index() -> dict[str, dict[str, Any]]:
    """Returns the published realm's index rows by path. Leaves out columns that differ between
    jobs, such as the render time."""
    fields = ("html", "search", "error", "made_from", "cacheable", "html_generation")
    rows = IndexedCard.objects.filter(realm_url=URL, current=True)
    return {row["path"]: row for row in rows.values("path", *fields)}
