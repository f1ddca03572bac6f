"""Sending notifications: inside the transaction that makes them true, never beside it.

Postgres delivers a NOTIFY if and only if its transaction commits, and not before the change can
be read. The replica that made the change moves its own board at commit, so that it doesn't wait
for its sidecar to be told what it knows.
"""

from collections.abc import Iterable

from django.conf import settings
from django.db import connection, transaction

from notifications.board import Board, board_at
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    MODULE_CACHE_INVALIDATED,
    Notification,
    all_files_changed,
    board_keys,
)

_NOTIFY = (
    "SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) n(channel, payload)"
)


def local_board() -> Board:
    """The board of the replica that this process belongs to."""
    return board_at(settings.REALM_BOARD)


def emit(*notifications: Notification) -> None:
    """Sends to every replica when the caller's transaction commits; this replica knows at once.

    Raises TransactionManagementError outside a transaction: there a notification could be sent
    without its change, or a change without its notification.
    """
    notify_peers(*notifications)
    bump_at_commit(key for n in notifications for key in board_keys(n.channel, n.payload) or ())


def notify_peers(*notifications: Notification) -> None:
    """As `emit`, for a change that this replica's board needs no telling of."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError(
            "a notification is sent inside the transaction that it tells of"
        )
    sent = list(notifications)
    if settings.REALM_LEGACY_CHANNELS:
        sent += [
            Notification(MODULE_CACHE_INVALIDATED, n.payload)
            for n in notifications
            if n.channel == DEFINITION_CACHE_INVALIDATED
        ]
    with connection.cursor() as cursor:
        cursor.execute(_NOTIFY, [[n.channel for n in sent], [n.payload for n in sent]])


def bump_at_commit(keys: Iterable[str]) -> None:
    """Moves the local board for a change whose notification a trigger sends."""
    moved = list(keys)
    # What is committed is committed: where the board can't be moved, the sidecar's notification
    # does it, or nobody vouches for it.
    transaction.on_commit(lambda: local_board().bump(moved), robust=True)


def notify_all_file_changes(realm_url: str) -> None:
    """Tells the peers to drop every cached path of a realm that is being torn down."""
    notify_peers(all_files_changed(realm_url))
