"""Implements the checks of `manage.py doctor`. Each failure says what the operator should do.

The checks examine the host on which the command runs. Run the command on each host, because a
database, a storage or a replica may be reachable from one host and not from another. The checks
create the board file if there is none, and may start the embedded Postgres. They leave no other
lasting change.

A replica is a web service and its sidecar, the process `manage.py listen_file_changes`. The sidecar
tells the web service about changes through the board, a file that both map into memory.
"""

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import urllib3
from celery import current_app
from deno import find_deno_bin
from django.conf import settings
from django.core import checks
from django.core.files.base import File
from django.core.files.storage import storages
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

from notifications.board import Board, BoardError, now_ns
from notifications.listener import listen_connection
from notifications.models import Replica
from notifications.sql import NOTIFY
from realms.coherence import conditions
from realms.coherence.conditions import Severity
from realms.coherence.generations import REMEMBERED, bound
from realms.coherence.replica_client import plainly
from realms.content.blobs import blob_name
from realms.housekeeping.readiness import not_ready
from realms.models import Blob
from reindex.jobs.presence import HEARD_LATELY
from reindex.models import ReindexJob, Worker

SECONDS = 5
#: How far this host's clock may differ from the clock of the database or of a replica. No cached
#: answer depends on these clocks. Tokens and leases expire by these clocks, but last much longer
#: than this difference.
MOST_CLOCK_SECONDS = 2.0
LEAST_FREE_BYTES = 1024**3


@dataclass(frozen=True)
class Finding:
    """The result of one check. `todo` says what the operator should do, and is empty if the result
    is fine."""

    about: str
    severity: Severity
    says: str
    todo: str = ""


def examine() -> Iterator[Finding]:
    """Runs all checks in order. If the database doesn't answer, skips the checks that query it."""
    yield from _settings()
    yield from _guarded("board", _board)
    yield from _guarded("renderer", _deno)
    yield from _guarded("disk", _disk)
    yield from _guarded("broker", _broker)
    if (yield from _database()):
        for about, check in (
            ("migrations", _migrations),
            ("listening", _listening),
            ("storage", _storage),
            ("replicas", _replicas),
            ("workers", _workers),
            ("work", _work),
        ):
            yield from _guarded(about, check)


def _guarded(about: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yields the findings of a check. An unexpected error of the check becomes a finding."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001  the other checks must still run
        says = f"could not be checked: {type(error).__name__}: {error}".splitlines()[0]
        yield _problem(about, says, "Read the message, which most likely states the cause.")


def _fine(about: str, says: str) -> Finding:
    return Finding(about, Severity.FINE, says)


def _warning(about: str, says: str, todo: str) -> Finding:
    return Finding(about, Severity.WARNING, says, todo)


def _problem(about: str, says: str, todo: str) -> Finding:
    return Finding(about, Severity.PROBLEM, says, todo)


# --- This host ---------------------------------------------------------------------------------


def _settings() -> Iterator[Finding]:
    found = [
        each
        for each in checks.run_checks(include_deployment_checks=True)
        if (each.id or "").startswith("realms.")
    ]
    for each in found:
        severity = Severity.PROBLEM if each.level >= checks.ERROR else Severity.WARNING
        yield Finding("settings", severity, str(each.msg), str(each.hint or ""))
    if not found:
        yield _fine("settings", "all settings are safe")


def _board() -> Iterator[Finding]:
    try:
        board = Board(settings.REALM_BOARD)
    except BoardError as error:
        yield _problem("board", str(error), "Set REALM_BOARD to a file in an existing folder.")
        return
    left = (board.live_until - now_ns()) / 1e9
    if left > 0:
        yield _fine("board", f"{board.path} is live")
    else:
        yield _warning(
            "board",
            f"{board.path} is not live: the web service of this host bypasses its caches",
            "Start listen_file_changes with the REALM_BOARD of the web service. A host without a "
            "web service needs no board.",
        )


def _deno() -> Iterator[Finding]:
    said = subprocess.run(
        [find_deno_bin(), "--version"], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    code = Path(settings.TYPESCRIPT_DIR) / "reindex" / "deno"
    packages = json.loads((code / "import_map.json").read_text())["imports"]
    missing = [name for name, path in packages.items() if not (code / path).exists()]
    if missing:
        yield _problem(
            "renderer",
            f"the npm packages {', '.join(missing)} are not installed, so no card can be rendered",
            "Run script/bootstrap, or install the wheel again.",
        )
    else:
        yield _fine("renderer", said.stdout.splitlines()[0])


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(settings.DATA_DIR).free
    said = f"{free / 1024**3:,.1f} GiB are free at {settings.DATA_DIR}"
    if free < LEAST_FREE_BYTES:
        yield _problem("disk", said, "Free disk space, or set REALM_DATA_DIR to another disk.")
    else:
        yield _fine("disk", said)


def _broker() -> Iterator[Finding]:
    url = settings.CELERY_BROKER_URL
    # Show only a part of the URL, because the URL may contain a password.
    where = urlsplit(url).hostname or urlsplit(url).scheme
    try:
        with current_app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=SECONDS)
    except Exception as error:  # noqa: BLE001  a broker's client may raise anything
        yield _problem(
            "broker",
            f"{where} does not answer: {error}",
            "Start the broker, or correct CELERY_BROKER_URL. Without the broker, this host can't "
            "tell workers about new jobs, so a new job waits until a worker next looks for jobs.",
        )
    else:
        yield _fine("broker", f"{where} answers")


# --- The database ------------------------------------------------------------------------------


def _database() -> Generator[Finding, None, bool]:
    """Checks that the database answers and is no standby server, and checks its clock. Returns
    whether the database answers."""
    kind = "" if settings.DATABASE_URL else " (the embedded one)"
    try:
        before = time.time()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), pg_is_in_recovery(), clock_timestamp()"
            )
            row = cursor.fetchone()
        took = time.time() - before
    except DatabaseError as error:
        yield _problem(
            "database",
            f"no answer: {str(error).splitlines()[0]}",
            "Start Postgres, or correct DATABASE_URL. Without a database, requests get a 503.",
        )
        return False
    assert row is not None
    version, standby, now = row
    if standby:
        todo = "Point DATABASE_URL to the primary."
        yield _problem("database", "it is a standby server, which is read-only", todo)
    yield _fine("database", f"Postgres {version}{kind} answers in {took * 1000:.0f} ms")
    off = abs(now.timestamp() - (before + took / 2))
    yield from _clock("the database", off)
    return True


def _clock(whose: str, off: float) -> Iterator[Finding]:
    said = f"the clock of {whose} differs from this host's by {off:.1f} s"
    if off > MOST_CLOCK_SECONDS:
        yield _warning(
            "clocks",
            said,
            "Run an NTP client on both hosts, because each host compares the times in tokens and "
            "reports with its own clock.",
        )
    else:
        yield _fine("clocks", said)


def _migrations() -> Iterator[Finding]:
    missing = not_ready()
    for each in missing:
        said, _, todo = each.partition(": ")
        yield _problem("migrations", said, todo)
    if not missing:
        yield _fine("migrations", "all migrations are applied; the card library is installed")


def _listening() -> Iterator[Finding]:
    """Checks LISTEN_DATABASE_URL. Listens on a new connection, as a sidecar does. This connection
    must receive a notification that Django's connection sends."""
    channel = f"realm_doctor_{secrets.token_hex(8)}"
    try:
        with listen_connection() as listening:
            listening.execute(f"LISTEN {channel}".encode())
            with connection.cursor() as cursor:
                cursor.execute(NOTIFY, [channel, ""])
            heard = next(listening.notifies(timeout=SECONDS, stop_after=1), None)
    except psycopg.Error as error:
        heard, why = None, str(error).splitlines()[0]
    else:
        why = "the listener's connection received no notification"
    if heard is None:
        yield _problem(
            "listening",
            f"LISTEN does not work: {why}",
            "LISTEN_DATABASE_URL must connect to the primary server of DATABASE_URL without a "
            "pooler.",
        )
    else:
        yield _fine("listening", "the listener's connection receives notifications")


def _storage() -> Iterator[Finding]:
    storage, name = storages["blobs"], f"doctor-{secrets.token_hex(8)}"
    todo = "Let this host read and write REALM_BLOB_STORAGE; all hosts must share it."
    try:
        saved = storage.save(name, File(BytesIO(b"doctor")))
        with storage.open(saved) as file:
            same = file.read() == b"doctor"
        storage.delete(saved)
    except Exception as error:  # noqa: BLE001  each kind of storage has its own errors
        yield _problem("storage", f"this host can't write and read a file: {error}", todo)
        return
    newest = Blob.objects.filter(data__isnull=True).order_by("-stored_at").first()
    if not same or (newest is not None and not storage.exists(blob_name(newest.sha256))):
        yield _problem("storage", "this host does not find content that another host wrote", todo)
    else:
        yield _fine("storage", "this host can write and read content")


# --- Replicas, workers and jobs ----------------------------------------------------------------


def _replicas() -> Iterator[Finding]:
    now = timezone.now()
    known = Replica.objects.filter(reported_at__gt=now - REMEMBERED)
    if not known:
        yield _problem(
            "replicas",
            "no sidecar has reported for a day",
            "Start a web service and listen_file_changes on each web host.",
        )
    for replica in known:
        found = conditions.of_replica(replica, now, bound())
        yield Finding("replicas", found.severity, found.means, found.todo)
        yield from _reachable(replica)


def _reachable(replica: Replica) -> Iterator[Finding]:
    """Checks that this host can reach a replica, that the replica is ready, and that its clock is
    right. Workers and web services on this host may read files from any replica."""
    todo = (
        f"Let this host reach {replica.address}. If that address is wrong, correct "
        f"REALM_REPLICA_ADDRESS on {replica.name}."
    )
    pool = urllib3.PoolManager(timeout=SECONDS, retries=False)
    try:
        answer = pool.request("GET", f"{replica.address}/_readiness", redirect=False)
    except urllib3.exceptions.HTTPError as error:
        yield _problem("replicas", f"this host can't reach {replica.name}: {plainly(error)}", todo)
        return
    if answer.status == 503:
        missing = "; ".join(answer.json().get("missing", ()))
        todo = f"Run manage.py doctor on {replica.name}."
        yield _problem("replicas", f"{replica.name} is not ready: {missing}", todo)
    elif answer.status != 200:
        yield _problem("replicas", f"{replica.address} answered {answer.status}", todo)
    else:
        yield _fine("replicas", f"this host can reach {replica.name}, which is ready")
    date = answer.headers.get("Date")
    if date:
        # The Date header has whole seconds, so the difference may be up to one second too large.
        off = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
        yield from _clock(replica.name, max(off - 1, 0))


def _workers() -> Iterator[Finding]:
    now = timezone.now()
    running = [each for each in Worker.objects.all() if now - each.heard_at < HEARD_LATELY]
    if running:
        names = ", ".join(f"{each.name} ({each.processes} processes)" for each in running)
        yield _fine("workers", f"running: {names}")
    else:
        yield _problem(
            "workers",
            "no worker is running",
            "Start a worker: celery -A settings.celery:app worker. Until a worker runs, visitors "
            "of a changed realm see the pages from before the change.",
        )


def _work() -> Iterator[Finding]:
    failed = ReindexJob.objects.filter(status=ReindexJob.Status.FAILED).count()
    if failed:
        are = "job has" if failed == 1 else "jobs have"
        yield _warning("work", f"{failed} {are} failed", "Run manage.py jobs to see the reasons.")
    waiting = ReindexJob.objects.filter(status=ReindexJob.Status.QUEUED, started_at__isnull=True)
    oldest = waiting.order_by("created_at").first()
    waits = timezone.now() - oldest.created_at if oldest else timedelta()
    if waits > conditions.WAITS_FOR_WORKER:
        yield _problem(
            "work",
            f"a job has waited for {conditions.duration(waits)} for a worker",
            "Start Celery workers, or add more.",
        )
    elif not failed:
        yield _fine("work", "no job has waited long for a worker, and no job has failed")
