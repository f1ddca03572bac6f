"""Tests publishing and rendering with services that already run: RabbitMQ, Redis and Postgres.

Each test uses unique names on these services and removes its data afterwards. Simultaneous runs
therefore don't disturb each other, and data that a killed run has left doesn't disturb later runs.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from kombu import Connection
from psycopg import sql

from realms.models import Realm
from settings.broker import QUEUE
from tests.support import make
from tests.support.cluster import Cluster, cluster, wait_until

PUBLISHED = "http://ada.localhost:4201/"
SOURCE = "http://localhost:4201/ada/site/"
AMQP = os.environ.get("REALM_TEST_AMQP", "amqp://guest:guest@127.0.0.1:5672//")
REDIS = os.environ.get("REALM_TEST_REDIS", "redis://127.0.0.1:6379/5")
POSTGRES = os.environ.get("REALM_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")

pytestmark = [pytest.mark.services, pytest.mark.cluster]


def _new_name() -> str:
    return f"realm_test_{uuid.uuid4().hex[:12]}"


# --- Brokers -----------------------------------------------------------------------------------


@contextmanager
def rabbitmq(prefix: str) -> Iterator[str]:
    try:
        with Connection(AMQP, connect_timeout=2) as connection:
            connection.connect()
    except OSError as error:
        pytest.skip(f"no RabbitMQ at {_shown(AMQP)} (REALM_TEST_AMQP): {error}")
    try:
        yield AMQP
    finally:
        with Connection(AMQP, connect_timeout=2) as connection:
            channel: Any = connection.default_channel
            channel.queue_delete(prefix + QUEUE)
            for exchange in (QUEUE, "celeryev", "celery.pidbox", "reply.celery.pidbox"):
                channel.exchange_delete(prefix + exchange)


@contextmanager
def redis(prefix: str) -> Iterator[str]:
    library = pytest.importorskip("redis")
    with library.Redis.from_url(REDIS, socket_connect_timeout=2) as connection:
        try:
            connection.ping()
        except library.RedisError as error:
            pytest.skip(f"no Redis at {_shown(REDIS)} (REALM_TEST_REDIS): {error}")
        try:
            yield REDIS
        finally:
            left = list(connection.scan_iter(f"*{prefix}*"))
            if left:
                connection.delete(*left)


@contextmanager
def fleet_behind(broker: Any, folder: Path, **environment: str) -> Iterator[Cluster]:
    """Creates the card library's realm, and runs one replica that uses a broker. Starts no
    worker."""
    from realms.publishing.bootstrap import sync_base_realm

    prefix = f"{_new_name()}."
    with broker(prefix) as url:
        sync_base_realm()
        told = {"CELERY_BROKER_URL": url, "REALM_QUEUE_PREFIX": prefix, **environment}
        with cluster(folder, 1, **told) as running:
            running.wait_reported()
            yield running


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("broker", [rabbitmq, redis])
def test_a_worker_renders_a_publish_that_it_learns_of_from_this_broker(
    broker: Any, source: Realm, tmp_path: Path
) -> None:
    # The sweeper, a task that sends lost messages again, doesn't run during the test.
    with fleet_behind(broker, tmp_path, REALM_SWEEP_SECONDS="3600") as running:
        running.start_worker()
        for edition in ("edition one", "edition two"):
            text = make.POST_MODULE.replace("edition one", edition)
            make.write(source, post__tsx=text.encode())
            _manage(running, "publish_realm", SOURCE, PUBLISHED, "--no-wait")
            _wait_for_page(running, edition)


# --- Postgres ----------------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[str]:
    """Creates an empty database on the Postgres server and yields its URL. Drops the database
    afterwards."""
    name = _new_name()
    try:
        server = psycopg.connect(POSTGRES, connect_timeout=2, autocommit=True)
    except psycopg.OperationalError as error:
        pytest.skip(f"no Postgres at {_shown(POSTGRES)} (REALM_TEST_POSTGRES): {error}")
    with server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(POSTGRES)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.django_db
def test_publishing_and_rendering_work_on_an_existing_postgres_server(
    database: str, tmp_path: Path
) -> None:
    site, blobs = tmp_path / "site", tmp_path / "blobs"
    site.mkdir()
    for path, data in make.SITE.items():
        (site / path).write_bytes(data)
    environment = {"DATABASE_URL": database, "REALM_BLOB_STORAGE": str(blobs)}
    fleet = Cluster(tmp_path, 2, environment)
    try:
        _manage(fleet, "migrate", "--verbosity", "0")
        with psycopg.connect(database) as connection:
            connection.execute(
                "INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active,"
                " first_name, last_name, email, date_joined)"
                " VALUES ('ada', '', false, false, true, '', '', '', now())"
            )
        _manage(fleet, "import_realm", str(site), SOURCE, "--public")
        fleet.start()
        fleet.start_worker()
        _manage(fleet, "publish_realm", SOURCE, PUBLISHED)
        _wait_for_page(fleet, "edition one")
        for replica in fleet.replicas:
            answers = replica.each_worker(f"{PUBLISHED}post.tsx")
            assert {answer.cache for answer in answers.values()} == {"hit"}
        text = make.POST_MODULE.replace("edition one", "edition two")
        (site / "post.tsx").write_text(text)
        _manage(fleet, "import_realm", str(site), SOURCE)
        _manage(fleet, "publish_realm", SOURCE, PUBLISHED)
        for replica in fleet.replicas:
            assert "edition two" in replica.get(f"{PUBLISHED}post.tsx").text
        _wait_for_page(fleet, "edition two")
    finally:
        fleet.stop()


# --- Pieces ------------------------------------------------------------------------------------


def _manage(fleet: Cluster, *arguments: str) -> None:
    process = fleet.manage(*arguments)
    assert process.wait(120) == 0, (fleet.folder / f"manage-{arguments[0]}.log").read_text()


def _wait_for_page(fleet: Cluster, text: str) -> None:
    def shown() -> bool:
        pages = [replica.get(PUBLISHED, "text/html").text for replica in fleet.replicas]
        return all(text in page for page in pages)

    wait_until(shown, f"pages with {text}", 60)


def _shown(url: str) -> str:
    """Returns a URL without its user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
