"""Notifies all replicas of a change, inside the transaction that makes the change.

Postgres delivers a notification after the transaction has committed and the change is visible. If
the transaction is rolled back, Postgres delivers nothing.

Each replica has a board, a page of shared memory with numbered slots (`board.py`). If a slot moves,
which means that it gets a new random number, the cached values that depend on the slot are stale.
The replica's sidecar, `manage.py listen_file_changes`, moves slots when notifications arrive. The
process that makes a change doesn't wait for the notification, but moves the slots of its local
board itself when the transaction commits.
"""

from collections.abc import Iterable

from django.conf import settings
from django.db import connection, transaction

from notifications import sql
from notifications.board import Board, board_at
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    MODULE_CACHE_INVALIDATED,
    Notification,
    all_files_changed,
    board_keys,
)


def local_board() -> Board:
    """Returns the local board, which is the board at the path in the setting REALM_BOARD. A
    replica's web workers and sidecar share this board. A command or a Celery worker that belongs to
    no replica has a board of its own. No sidecar makes that board live, so the process reads from
    the database instead of its caches."""
    return board_at(settings.REALM_BOARD)


def emit(*notifications: Notification) -> None:
    """When the caller's transaction commits, notifies every replica. At the same time, moves the
    slots of the local board that the notifications concern.

    Raises TransactionManagementError outside a transaction, because the change and its notification
    must be atomic.
    """
    notify_peers(*notifications)
    bump_at_commit(key for n in notifications for key in board_keys(n.channel, n.payload) or ())


def notify_peers(*notifications: Notification) -> None:
    """Notifies every replica, including this one, when the caller's transaction commits. Unlike
    `emit`, this function doesn't move slots of the local board. This replica's sidecar moves them
    when it receives the notifications."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError(
            "a notification must be sent inside the transaction of its change"
        )
    sent = list(notifications)
    if settings.REALM_LEGACY_CHANNELS:
        sent += [
            Notification(MODULE_CACHE_INVALIDATED, n.payload)
            for n in notifications
            if n.channel == DEFINITION_CACHE_INVALIDATED
        ]
    with connection.cursor() as cursor:
        cursor.execute(sql.NOTIFY_ALL, [[n.channel for n in sent], [n.payload for n in sent]])


def bump_at_commit(keys: Iterable[str]) -> None:
    """Moves the slots of the board keys `keys` on the local board when the caller's transaction
    commits. Callers use this function instead of `emit` if a database trigger notifies the replicas
    of the change."""
    moved = list(keys)
    # The change is already committed when the callback runs. So the callback must not raise an
    # error: with `robust=True`, Django only logs the error. In this case, the sidecar moves the
    # slots when it receives the notification. If the sidecar receives no notifications, the board
    # expires, and the replica stops using cached values.
    transaction.on_commit(lambda: local_board().bump(moved), robust=True)


def notify_all_file_changes(realm_url: str) -> None:
    """Notifies every replica, including this one, that all files of a realm have changed."""
    notify_peers(all_files_changed(realm_url))
