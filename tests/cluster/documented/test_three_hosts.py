"""Follows docs/operations/three-hosts.md, with a network namespace for each host.

The tests need root, namespaces, and Debian's Postgres, RabbitMQ, Redis and nginx. If one of
these is missing, the tests are skipped. The tests start the four services on host 1. Together the
tests take three minutes on two quiet cores. The commands of the page take half of this time,
because they run once with Redis and once with RabbitMQ. Setting up RabbitMQ takes 20 s, and each of
about fifteen management commands takes several seconds.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.cluster import wait_until
from tests.support.runbooks.fleet_of_hosts import (
    OPERATIONS,
    ORIGIN,
    PAGE,
    REPLICAS,
    SITE,
    SOURCE,
    WORDS,
    Fleet,
    three_hosts,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.services,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("REALM_TEST_HOSTS"), reason="takes minutes: script/test --hosts runs it"
    ),
]
BOTH = {"web-2", "web-3"}
MIB = 1024 * 1024

over_rabbitmq = pytest.mark.parametrize("fleet", ["rabbitmq"], indirect=True)


@pytest.fixture(scope="module")
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Yields a fleet on which every command of the page has been run."""
    with three_hosts(tmp_path_factory.mktemp("hosts"), request.param) as made:
        made.runner.follow(PAGE)
        yield made


@pytest.mark.parametrize("fleet", ["redis", "rabbitmq"], indirect=True)
def test_a_publish_is_seen_from_both_replicas_through_the_balancer(fleet: Fleet) -> None:
    with fleet.visitors(SITE, "text/html") as visits:
        visits.wait_more(40)
    assert visits.failed() == []
    assert visits.replicas().keys() == BOTH
    assert "Cutler Street" in fleet.get(SITE, accept="text/html").text

    fleet.hosts["host2"].run(
        f"cp -r examples/tools /run/changed\n"
        f"sed -i 's/Cutler Street/Turner Street/' $(grep -rl 'Cutler Street' /run/changed)\n"
        f"echo '/* new */' >> /run/changed/theme.css\n"
        f"deploy/manage import_realm /run/changed {SOURCE}\n"
        f"deploy/manage publish_realm {SOURCE} {SITE}",
        cwd="/srv/realms/server",
    )
    # A replica may serve old answers for two seconds after a publish (REALM_STALENESS_BOUND).
    # `publish_realm` waits for the rendering and ends later than that. So every answer must be new.
    for _ in range(20):
        assert fleet.get(f"{SITE}theme.css").text.endswith("/* new */\n")
        page = fleet.get(SITE, accept="text/html").text
        assert "Turner Street" in page and "Cutler Street" not in page


@over_rabbitmq
def test_no_visitor_gets_an_error_when_a_service_is_killed_and_returns(fleet: Fleet) -> None:
    service = fleet.service("host3", "realms-web")
    with fleet.visitors(SITE, "text/html") as visits:
        visits.wait_more(40)
        service.hold()
        fleet.wait_listed("host3", False)
        noticed = visits.wait_more(100)
        assert visits.replicas(noticed).keys() == {"web-2"}
        service.release()
        fleet.wait_listed("host3", True)
        back = visits.wait_more(100)
        assert visits.replicas(back).keys() == BOTH
    # If the killed service had not begun to answer a request, nginx sends it to the other replica.
    assert visits.failed() == []


@over_rabbitmq
def test_a_replica_that_is_not_ready_gets_no_visitor(fleet: Fleet) -> None:
    host, service = fleet.hosts["host3"], fleet.service("host3", "realms-web")
    variables = host.read("/etc/realms/host.env")
    service.stop()
    host.write("/etc/realms/host.env", f"{variables}DATABASE_URL=postgresql://x@10.0.0.13:1/x\n")
    service.start()
    try:
        fleet.wait_answer(f"{ORIGIN}/_readiness", 503, at=REPLICAS["host3"])
        assert fleet.get(f"{ORIGIN}/_liveness", at=REPLICAS["host3"]).status == 200
        fleet.wait_listed("host3", False)
        with fleet.visitors(SITE, "text/html") as visits:
            visits.wait_more(100)
        assert visits.failed() == []
        assert visits.replicas().keys() == {"web-2"}
    finally:
        # The tests that follow use the same fleet.
        service.stop()
        host.write("/etc/realms/host.env", variables)
        service.start()
        fleet.wait_listed("host3", True)


@over_rabbitmq
def test_the_balancer_refuses_large_bodies_without_ejecting_a_replica(fleet: Fleet) -> None:
    author = fleet.author()
    log = "/var/log/nginx/error.log"
    before = fleet.hosts["host1"].read(log)
    kind = {"Content-Type": "application/octet-stream", **author}
    assert fleet.post(f"{SOURCE}large.bin", b"x" * 5 * MIB, headers=kind).status == 204
    operations = {**author, "Content-Type": "application/vnd.api+json"}
    empty = json.dumps({"atomic:operations": []}).encode().ljust(32 * MIB)
    done = fleet.post(
        f"{SOURCE}_atomic", empty, headers=operations, accept="application/vnd.api+json"
    )
    assert done.status == 201, done.text
    for url, size in (
        (f"{SOURCE}large.bin", 5 * MIB + 1),
        (f"{SOURCE}large.bin", 60 * MIB),
        (f"{SOURCE}_atomic", 32 * MIB + 1),
    ):
        refused = fleet.post(url, b" " * size, headers=kind)
        assert refused.status == 413
        assert refused.headers["content-type"] == "application/vnd.api+json"
        assert "balancer" in json.loads(refused.body)["errors"][0]["message"]
    assert "upstream" not in fleet.hosts["host1"].read(log).removeprefix(before)


@over_rabbitmq
def test_the_balancer_serves_the_admin_at_its_origin_and_no_pinned_reads(fleet: Fleet) -> None:
    login = "/_admin/login/"
    assert fleet.get(f"https://admin.example.com{login}").status == 200
    assert fleet.get(f"{ORIGIN}{login}").status == 404
    assert fleet.get("https://admin.example.com/ada/tools/theme.css").status == 404
    assert fleet.get(f"{ORIGIN}/_at/page.tsx").status == 404


@over_rabbitmq
def test_replicas_trust_the_balancer_about_https(fleet: Fleet) -> None:
    url = "https://admin.example.com/_admin/login/"
    form = fleet.get(url)
    (token,) = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', form.text)
    cookie = form.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("__Host-")
    login = {"username": "operator", "password": WORDS["OPERATOR_PASSWORD"]}
    body = urlencode({**login, "csrfmiddlewaretoken": token}).encode()
    sent = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    # Over https Django refuses a form without a Referer. The first request below has no Referer and
    # claims to use http. It must be refused, because it really came over https.
    said = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "10.0.0.11"}
    assert fleet.post(url, body, headers={**sent, **said}).status == 403
    assert fleet.post(url, body, headers={**sent, "Referer": url}).status == 302


# --- With concurrent uploads ------------------------------------------------------------------


@contextmanager
def uploads(fleet: Fleet) -> Iterator[list[str]]:
    """Uploads files in another thread during the block. Yields a list, to which the thread adds the
    hash of each accepted file. Each file is too large for a database row."""
    author = {"Content-Type": "application/octet-stream", **fleet.author()}
    accepted: list[str] = []
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            body = secrets.token_bytes(70_000)
            url = f"{SOURCE}uploads/{len(accepted) % 40}.bin"
            answer = fleet.ask("POST", url, body=body, headers=author)
            assert answer.status == 204, answer.text
            accepted.append(hashlib.sha256(body).hexdigest())

    with fleet.hosts["visitor"].threads(1) as pool:
        writing = pool.submit(write)
        try:
            yield accepted
        finally:
            ended.set()
        writing.result()


@over_rabbitmq
def test_no_visitor_or_author_gets_an_error_during_an_upgrade(fleet: Fleet) -> None:
    before = {name: fleet.service(name, "realms-web").pid for name in REPLICAS}
    # nginx doesn't repeat a write that a replica has begun. So a replica must finish its writes
    # before the upgrade stops it.
    with (
        fleet.visitors(SITE, "text/html") as visits,
        uploads(fleet) as accepted,
        ThreadPoolExecutor(1) as thread,
    ):
        verified = thread.submit(
            fleet.hosts["host2"].run,
            "status=0; deploy/manage verify_coherence --seconds 20 || status=$?;"
            "echo exit status $status",
            cwd="/srv/realms/server",
        )
        fleet.runner.follow(OPERATIONS / "upgrade.md")
        back = visits.wait_more(100)
    assert visits.failed() == []
    # Exit status 2 means that a replica gave `verify_coherence` no answer for three seconds (the
    # grace period). A replica that is being upgraded may give no answer for that long.
    said = verified.result()
    assert said.splitlines()[-1] in ("exit status 0", "exit status 2"), said
    assert accepted
    assert visits.replicas(back).keys() == BOTH
    after = {name: fleet.service(name, "realms-web").pid for name in REPLICAS}
    assert all(after[name] not in (None, before[name]) for name in REPLICAS)


def stored(folder: Path, sha256: str) -> bool:
    """Returns whether the blob storage in `folder` has complete content with this hash."""
    path = folder / sha256[:2] / sha256[2:4] / sha256
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


FILES = """
SELECT r.url, r.generation, v.path, v.sha256 FROM realms_realm r
LEFT JOIN LATERAL (
    SELECT * FROM realms_publication p WHERE p.realm_id = r.id ORDER BY generation DESC LIMIT 1
) p ON true
JOIN realms_fileversion v ON v.realm_id = coalesce(p.source_id, r.id)
    AND v.from_generation <= coalesce(p.source_generation, r.generation)
    AND coalesce(v.until_generation, 'infinity'::float)
        > coalesce(p.source_generation, r.generation)
"""
BLOBS = """
SELECT DISTINCT b.sha256 FROM realms_blob b JOIN realms_fileversion v ON v.sha256 = b.sha256
WHERE b.data IS NULL
"""


@over_rabbitmq
def test_a_restored_backup_has_every_file_and_every_page(fleet: Fleet) -> None:
    page = OPERATIONS / "backup.md"
    with uploads(fleet) as accepted:
        wait_until(lambda: len(accepted) >= 20, "twenty uploads")
        before = len(accepted)
        fleet.runner.follow(page, "## Back up")
        after = len(accepted)
        wait_until(lambda: len(accepted) >= after + 20, "twenty more uploads")
    assert after > before, "nothing was uploaded during the backup"
    # The blobs are deleted, as if host 1 had lost its disk. The restore makes a new database.
    for each in fleet.shared.iterdir():
        shutil.rmtree(each)
    fleet.runner.follow(page, "## Restore")

    blobs = {sha256 for (sha256,) in fleet.sql(BLOBS)}
    assert set(accepted[:before]) <= blobs
    assert not set(accepted[-10:]) & blobs, "uploads from after the backup"
    assert [sha256 for sha256 in blobs if not stored(fleet.shared, sha256)] == []
    fleet.wait_answer(f"{ORIGIN}/_readiness", 200, at=REPLICAS["host3"])
    files = fleet.sql(FILES)
    assert {url for url, *_ in files} == {SOURCE, SITE, f"{ORIGIN}/base/"}
    for at in REPLICAS.values():
        for url, generation, path, sha256 in files:
            answer = fleet.get(url + path, at=at, accept="application/vnd.card+source")
            assert answer.status == 200, url + path
            assert answer.headers["x-realm-generation"] == generation
            assert hashlib.sha256(answer.body).hexdigest() == sha256, url + path
        shown = fleet.get(SITE, at=at, accept="text/html")
        assert shown.status == 200 and "Street" in shown.text
    assert "0 with errors" in fleet.manage("reindex_realm", SITE, "--full")
