"""The reporter stores about once a second which generations of realms this replica has provably
applied. The reporter is a thread of the replica's sidecar, `manage.py listen_file_changes`.

Each change of a realm raises the realm's generation, a number in the database. For each report, the
reporter first reads the committed generations of realms. Most reads include only the realms that
had notifications. Every WHOLE_SECONDS, one read includes all realms. Next, the reporter waits for a
ping that the listener sent to itself *after* the read. When this ping arrives, the read is proven:
this replica has applied every change that was committed before the read.

The reporter also detects two faults. If a generation has risen without a notification, the reporter
counts a missed change, and makes the realm's cached answers stale. If a generation has fallen, the
database has lost transactions, because a lagging standby has replaced the primary. In this case,
the reporter makes all cached answers stale.

The reporter stores times of the database's clock, because the clocks of hosts can differ.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Any

import urllib3
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection, transaction

from notifications import sql
from notifications.board import now_ns
from notifications.channels import realm_key
from notifications.listener import SECOND, Listener
from notifications.models import Replica, ReplicaGeneration

logger = logging.getLogger(__name__)

#: The pause between two reports.
REPORT_SECONDS = 1.0
#: How long a report waits for the ping that proves its read. If no ping arrives within this time,
#: the report stores no generations.
WATERMARK_SECONDS = 5.0
#: How often the reporter reads the generations of all realms.
WHOLE_SECONDS = 30.0
#: How long the reporter waits for the web service's response (`_web_answers`).
WEB_SECONDS = 2.0
#: Each reporter deletes the rows of replicas that have not reported for this long.
FORGOTTEN = timedelta(days=1)


class Reporter(threading.Thread):
    """Reports the state of a listener, in a thread of its own. The thread uses Django's connection
    and runs until `stop` is called."""

    def __init__(
        self,
        listener: Listener,
        address: str,
        committed: Callable[[Collection[str] | None], Mapping[str, int]],
        figures: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """`committed` takes realms' URLs, or None for all realms, and returns the committed
        generation of each realm. `figures` returns further values for the column `figures` of the
        replica's row."""
        super().__init__(name="listener-reporter", daemon=True)
        self._listener = listener
        self._address = address
        self._committed = committed
        self._figures = figures
        self._complained = False
        self._stopped = threading.Event()
        #: The generation that this replica has provably applied, by the realm's URL.
        self._seen: dict[str, int] = {}
        #: The realms to store in the next report: their generations in `_seen` are new or have
        #: changed, or their entries were removed. None means that the report stores all realms.
        self._unreported: set[str] | None = None
        #: When the reporter began the last proven read (`now_ns`).
        self._seen_at = 0
        #: When the reporter began the last proven read of all realms; None before the first.
        self._whole_at: int | None = None
        self._pool = urllib3.PoolManager(timeout=WEB_SECONDS, retries=False)

    def run(self) -> None:
        while not self._stopped.wait(REPORT_SECONDS):
            self.report()
        self.report()

    def stop(self) -> None:
        """Ends the thread after one last report."""
        self._stopped.set()

    def report(self) -> None:
        """Writes one report. Logs a database error instead of raising it. The reporter tries again
        after REPORT_SECONDS, and the listener decides when an outage has lasted too long."""
        try:
            close_old_connections()
            web_answers = self._web_answers()
            read_at = now_ns()
            urls = self._to_read(read_at)
            committed = self._committed(urls)
            proven = self._listener.wait_for_watermark(now_ns(), WATERMARK_SECONDS)
            if proven:
                self._compare(committed, read_at)
                self._note(committed, self._seen if urls is None else urls)
                self._seen_at = read_at
                if urls is None:
                    self._whole_at = read_at
            self._write(web_answers, proven=proven)
        except DatabaseError as error:
            logger.warning("the replica's report could not be written: %s", error)

    def _to_read(self, now: int) -> list[str] | None:
        """Returns the URLs of the realms that had notifications since the last proven read. Returns
        None, which means all realms, if the last proven read of all realms is WHOLE_SECONDS old, is
        older than the listener's current connection, or doesn't exist."""
        whole_at = self._whole_at
        if whole_at is None or whole_at < self._listener.listening_since:
            return None
        if now - whole_at >= WHOLE_SECONDS * SECOND:
            return None
        return [url for url, at in list(self._listener.heard.items()) if at >= self._seen_at]

    def _note(self, committed: Mapping[str, int], asked: Collection[str]) -> None:
        """Remembers the generations in `committed`. Forgets the realms of `asked` that `committed`
        lacks, because they no longer exist."""
        moved = {url for url, each in committed.items() if self._seen.get(url) != each}
        gone = {url for url in asked if url in self._seen and url not in committed}
        self._seen.update(committed)
        for url in gone:
            del self._seen[url]
        if self._unreported is not None:
            self._unreported |= moved | gone

    def _web_answers(self) -> bool:
        """Returns whether the web service responds to an OPTIONS request at the replica's address.
        The web service answers this request without the database, so the result doesn't depend on
        the database."""
        try:
            self._pool.request("OPTIONS", f"{self._address}/", redirect=False)
        except urllib3.exceptions.HTTPError:
            return False
        return True

    def _compare(self, committed: Mapping[str, int], read_at: int) -> None:
        listener = self._listener
        for url, generation in committed.items():
            before = self._seen.get(url, generation)
            if generation < before:
                listener.board.bump_epoch()
                logger.error(
                    "the generation of %s fell from %d to %d: the database has lost transactions",
                    url,
                    before,
                    generation,
                )
        if self._seen_at > listener.listening_since:
            for url, generation in committed.items():
                moved = self._seen.get(url, generation) != generation
                if moved and listener.heard.get(url, 0) < self._seen_at:
                    listener.counts.missed += 1
                    listener.board.bump([realm_key(url)])
                    logger.error("%s moved to generation %d unannounced", url, generation)
        for url in [u for u, at in list(listener.heard.items()) if at < read_at - 60 * SECOND]:
            listener.heard.pop(url, None)

    def _told(self) -> dict[str, Any]:
        """Returns the value of the `figures` column of the replica's row. If `_figures` fails, the
        value omits its figures, so that the row is written anyway."""
        lags = sorted(self._listener.lags)
        figures: Mapping[str, Any] = {}
        try:
            figures = self._figures()
        except Exception:
            if not self._complained:
                logger.exception("the report omits the figures of the web workers")
            self._complained = True
        return {
            "host": socket.gethostname(),
            "lag_p50_seconds": _quantile(lags, 0.5),
            "lag_p99_seconds": _quantile(lags, 0.99),
            **figures,
        }

    def _write(self, web_answers: bool, *, proven: bool) -> None:
        """Stores the listener's state. If the last read is `proven`, also stores the
        generations."""
        listener, counts = self._listener, self._listener.counts
        figures = self._told()
        with transaction.atomic():
            now = _database_time()
            Replica.objects.filter(reported_at__lt=now - FORGOTTEN).delete()
            replica, created = Replica.objects.update_or_create(
                name=listener.replica,
                defaults={
                    "address": self._address,
                    "state": listener.state.value,
                    "web_answers": web_answers,
                    "sidecar_pid": os.getpid(),
                    "watermark_at": _wall(listener.watermark, now),
                    "reported_at": now,
                    "notifications": counts.notifications,
                    "malformed": counts.malformed,
                    "reconnects": counts.reconnects,
                    "missed": counts.missed,
                    "figures": figures,
                },
            )
            if created:
                # A new row has no generations, so store all of them. Another replica's reporter may
                # have deleted the old row with its generations.
                self._unreported = None
            if proven:
                self._write_generations(replica, now)
        if proven:
            self._unreported = set()

    def _write_generations(self, replica: Replica, now: datetime) -> None:
        rows = replica.generations
        if self._unreported is None:
            changed: Collection[str] = self._seen
            rows.exclude(realm_url__in=list(changed)).delete()
        else:
            changed = self._unreported & self._seen.keys()
            if gone := self._unreported - changed:
                rows.filter(realm_url__in=list(gone)).delete()
        rows.bulk_create(
            [
                ReplicaGeneration(
                    replica=replica, realm_url=url, generation=self._seen[url], applied_at=now
                )
                for url in changed
            ],
            update_conflicts=True,
            unique_fields=["replica", "realm_url"],
            update_fields=["generation", "applied_at"],
        )


def _quantile(lags: Sequence[int], share: float) -> float | None:
    """Returns a quantile of the sorted `lags`, or None if `lags` is empty. The lags are in ns, the
    result is in seconds. A `share` of 0.99 means the 99th percentile."""
    return lags[ceil(share * len(lags)) - 1] / SECOND if lags else None


def _database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute(sql.DATABASE_TIME)
        (now,) = cursor.fetchone()
    assert isinstance(now, datetime)
    return now


def _wall(moment: int, now: datetime) -> datetime | None:
    return now - timedelta(microseconds=(now_ns() - moment) / 1000) if moment else None
