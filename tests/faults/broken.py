"""Switches off one mechanism of the project, to check that a fault campaign fails without the
mechanism.

The processes of a broken fleet use this module as their settings. The module contains the project's
settings, and switches off the mechanism that REALM_FAULTS_BREAK selects. Nothing in production
imports this module.
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
    """Keeps the board's epoch after a reconnection, so that cache entries with missed changes stay
    valid."""
    from notifications.board import Board

    Board.bump_epoch = lambda self: None  # type: ignore[method-assign]


def late_listen() -> None:
    """Increments the board's epoch before the LISTEN statements instead of after them."""
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
    """Ignores `X-Realm-Min-Generation`."""
    for module in ("realms.front", "realms.api.routes"):
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
    """Stores a definition even if the module was invalidated during the build."""

    def unmoved(counters: Any, *, hold: bool = False) -> Any:
        return dict.fromkeys(counters, 0)

    for module in ("definitions.lookup", "definitions.rows"):
        _replace(module, "read_counters", unmoved)


def unchecked_swap() -> None:
    """Lets a superseded reindex job swap in its index, even if the realm has a newer index."""
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
    """Switches off the sweeper. A reindex job never runs if its message is lost."""
    from reindex.jobs import sweeper

    sweeper.sweep = lambda: 0


def late_edge() -> None:
    """Makes nginx cache answers for up to twice the permitted time."""
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
    if hasattr(loaded, name):
        setattr(loaded, name, value)


_OFF: LiteralString = """
DO $$ DECLARE t record; BEGIN
    FOR t IN SELECT tgrelid::regclass AS owner, tgname FROM pg_trigger WHERE tgname LIKE '{}'
    LOOP EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', t.owner, t.tgname); END LOOP;
END $$
"""

#: How to switch off each mechanism, by name. Every process calls the function. The database
#: executes the SQL, if there is any.
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
    """In this process, switches off the mechanism that REALM_FAULTS_BREAK selects."""
    name = os.environ.get(VARIABLE, "")
    if name:
        BREAKS[name][0]()
