"""Reads notifications from Postgres, on a connection of the test that has run LISTEN."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
from django.db import connection
from psycopg import sql

from notifications.channels import INVALIDATION_CHANNELS

Heard: TypeAlias = tuple[str, str]

_END = "end_of_what_was_heard"
PATIENCE = 10.0


def connect() -> "psycopg.Connection[tuple[Any, ...]]":
    """Opens a connection to the test's database that isn't one of Django's. The connection is in
    autocommit mode."""
    own = connection.get_connection_params()
    kept = {key: own[key] for key in ("dbname", "user", "password", "host", "port") if key in own}
    return psycopg.connect(**kept, autocommit=True)


def notify(channel: str, payload: str) -> None:
    """Sends a notification on a new connection. Unlike `notifications.emit`, changes nothing on
    this process's own board, the file that says which cached values are stale."""
    with connect() as hand:
        hand.execute("SELECT pg_notify(%s, %s)", (channel, payload))


class Ear:
    """A connection that listens to every channel that invalidates caches."""

    def __init__(self, listening: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self._listening = listening
        for channel in (*INVALIDATION_CHANNELS, _END):
            listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def heard(self) -> list[Heard]:
        """Returns the notifications of transactions that committed since the last call, in order.

        To find the end, sends one more notification, and reads until that one arrives. Postgres
        delivers all earlier notifications before it.
        """
        end = uuid.uuid4().hex
        self._listening.execute("SELECT pg_notify(%s, %s)", (_END, end))
        heard: list[Heard] = []
        for each in self._listening.notifies(timeout=PATIENCE):
            if (each.channel, each.payload) == (_END, end):
                return heard
            heard.append((each.channel, each.payload))
        raise AssertionError(f"the notification that marks the end did not arrive after {heard}")


@contextmanager
def ear() -> Iterator[Ear]:
    """Opens an `Ear`, which listens until the end of the block."""
    with connect() as listening:
        yield Ear(listening)
