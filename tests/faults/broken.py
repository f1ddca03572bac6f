"""Switches off one mechanism of the project, to check that a fault campaign fails without the
mechanism.

If a campaign has the option `--break`, the processes of its fleet use this module as their
settings. The module contains the project's settings, and switches off the mechanism that
REALM_FAULTS_BREAK selects. Nothing in production imports this module.

The functions below use these words. The sidecar of a replica receives notifications of changes, and
records the changes on the board, which is a file in shared memory. The stamp of a cache entry shows
whether the entry is older than such a change. The epoch is a number on the board, and a new epoch
makes all older stamps outdated. Cache entries are used only while the board is live.
docs/how-to/break-it.md says what a campaign finds without each mechanism.
"""

import os
from collections.abc import Callable
from typing import Any, LiteralString

from settings import *  # noqa: F403
from settings import INSTALLED_APPS as _OWN

INSTALLED_APPS = [*_OWN, "tests.faults.broken_app.BrokenConfig"]

VARIABLE = "REALM_FAULTS_BREAK"


def no_stamp() -> None:
    """Takes a cache entry's stamp after the entry is loaded instead of before."""
    from notifications.stamped_cache import StampedCache

    def load(self: Any, key: Any, slots: Any, load: Callable[[], Any], _: Any = None) -> Any:
        value = load()
        self.put(key, value, slots, self._board.stamp(slots))
        return value

    StampedCache.load = load  # type: ignore[assignment,method-assign]


def no_watermark() -> None:
    """Treats a board as live even if its sidecar has stopped."""
    from notifications.board import Board

    Board.live = lambda self: True  # type: ignore[method-assign]


def no_epoch() -> None:
    """Keeps the board's epoch when the sidecar connects to the database again. So cache entries
    stay valid even if the sidecar has missed changes of their data."""
    from notifications.board import Board

    Board.bump_epoch = lambda self: None  # type: ignore[method-assign]


def late_listen() -> None:
    """Begins the board's new epoch before the LISTEN statements instead of after them."""
    import time

    from notifications.listener import Listener

    proper = Listener.begin

    def listen(self: Any, connection: Any, writer: Any) -> None:
        self.board.bump_epoch()
        # The LISTEN statements can take this long on a busy database.
        time.sleep(0.3)
        bump, self.board.bump_epoch = self.board.bump_epoch, lambda: None
        try:
            proper(self, connection, writer)
        finally:
            self.board.bump_epoch = bump

    Listener.begin = listen  # type: ignore[method-assign]


def pin_ignored() -> None:
    """Ignores the request header `X-Realm-Min-Generation`, which names the oldest generation that
    the client accepts."""
    for module in ("realms.serving.asked", "realms.api.routes", "realms.api.card_views"):
        _replace(module, "min_generation", lambda value: 0)


def early_notify() -> None:
    """Sends a transaction's notifications on another connection, before the transaction commits."""
    from django.db import connections

    from notifications import emit

    def notify_peers(*notifications: Any) -> None:
        other = connections["default"].copy("early")
        try:
            with other.cursor() as cursor:
                for each in notifications:
                    cursor.execute("SELECT pg_notify(%s, %s)", [each.channel, each.payload])
        finally:
            other.close()

    emit.notify_peers = notify_peers
    emit.bump_at_commit = lambda keys: emit.local_board().bump(list(keys))
    for module in ("realms.publishing.effects", "realms.admin.registry"):
        _replace(module, "bump_at_commit", emit.bump_at_commit)


def no_definition_guard() -> None:
    """Stores a definition, which says what a module exports, even if the module changes while the
    definition is built."""

    def unmoved(counters: Any, *, hold: bool = False) -> Any:
        return dict.fromkeys(counters, 0)

    for module in ("definitions.lookup", "definitions.rows"):
        _replace(module, "read_counters", unmoved)


def unchecked_swap() -> None:
    """Lets a superseded reindex job show its pages to visitors, even if they already see pages of a
    newer job."""
    from reindex.index import swap
    from reindex.jobs import queue

    queue._end_live = lambda realm_url, status: 0
    swap.swap = _swap_anyway


def _swap_anyway(job: Any) -> None:
    from django.utils import timezone

    from notifications.channels import index_swapped
    from notifications.emit import emit
    from reindex.models import IndexedCard, IndexHead, ReindexJob

    IndexHead.objects.update_or_create(
        realm_url=job.realm_url,
        defaults={"job": job, "generation": job.generation, "swapped_at": timezone.now()},
    )
    IndexedCard.objects.filter(realm_url=job.realm_url).exclude(job=job).delete()
    IndexedCard.objects.filter(job=job).update(current=True)
    job.status, job.finished_at = ReindexJob.Status.DONE, timezone.now()
    job.save()
    emit(index_swapped(job.realm_url))


def no_outbox() -> None:
    """Switches off the sweeper, the task that sends lost messages again. If the message of a
    reindex job is lost, the job never runs."""
    from reindex.jobs import sweeper

    sweeper.sweep = lambda: 0


def late_edge() -> None:
    """Makes nginx keep answers in its cache for up to twice the permitted time."""
    from tests.support.servers import edge

    proper, (second, _) = edge.rendered, edge.ONE_SECOND
    slots = "\n".join(f'    "~^(\\d+)[{n}{n + 1}]\\." "$1-{n}";' for n in range(0, 10, 2))

    def rendered(*given: Any) -> str:
        text = proper(*given)
        assert second in text
        return text.replace(second, slots.strip())

    edge.rendered = rendered  # type: ignore[assignment]


def _replace(module: str, name: str, value: object) -> None:
    from importlib import import_module

    loaded = import_module(module)
    if not hasattr(loaded, name):
        raise AttributeError(f"{module} has no {name} to replace")
    setattr(loaded, name, value)


_OFF: LiteralString = """
DO $$ DECLARE t record; BEGIN
    FOR t IN SELECT tgrelid::regclass AS owner, tgname FROM pg_trigger WHERE tgname LIKE '{}'
    LOOP EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', t.owner, t.tgname); END LOOP;
END $$
"""

#: Maps the name of each mechanism to a function and an SQL text. Every process of the fleet calls
#: the function. The SQL, if it isn't empty, is executed once in the database.
BREAKS: dict[str, tuple[Callable[[], None], str]] = {
    "no-stamp": (no_stamp, ""),
    "no-watermark": (no_watermark, ""),
    "no-epoch": (no_epoch, ""),
    "late-listen": (late_listen, ""),
    "pin-ignored": (pin_ignored, ""),
    "early-notify": (early_notify, _OFF.format("pgtrigger_announce%")),
    "no-definition-guard": (no_definition_guard, _OFF.format("pgtrigger_refuse_late_build%")),
    "unchecked-swap": (unchecked_swap, "DROP INDEX IF EXISTS one_live_job_per_realm"),
    "no-outbox": (no_outbox, ""),
    "late-edge": (late_edge, ""),
}


def switch_off() -> None:
    """Switches off the mechanism that REALM_FAULTS_BREAK selects, in this process. Does nothing if
    the variable is empty or missing."""
    name = os.environ.get(VARIABLE, "")
    if name:
        BREAKS[name][0]()
