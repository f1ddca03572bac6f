"""What the database announces, heard by a real LISTEN connection of the test's own."""

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
    """A connection to the test's database that Django knows nothing of, in autocommit mode."""
    own = connection.get_connection_params()
    kept = {key: own[key] for key in ("dbname", "user", "password", "host", "port") if key in own}
    return psycopg.connect(**kept, autocommit=True)


def notify(channel: str, payload: str) -> None:
    """A NOTIFY typed by hand: this replica's board isn't told by anybody else."""
    with connect() as hand:
        hand.execute("SELECT pg_notify(%s, %s)", (channel, payload))


class Ear:
    """Listens to every channel that invalidates."""

    def __init__(self, listening: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self._listening = listening
        for channel in (*INVALIDATION_CHANNELS, _END):
            listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def heard(self) -> list[Heard]:
        """Everything announced by transactions that committed since the last time, in order.

        It sends a notification of its own: what hasn't come before that one doesn't come.
        """
        end = uuid.uuid4().hex
        self._listening.execute("SELECT pg_notify(%s, %s)", (_END, end))
        heard: list[Heard] = []
        for each in self._listening.notifies(timeout=PATIENCE):
            if (each.channel, each.payload) == (_END, end):
                return heard
            heard.append((each.channel, each.payload))
        raise AssertionError(f"the end was not heard after {heard}")


@contextmanager
def ear() -> Iterator[Ear]:
    """An ear that listens from now on."""
    with connect() as listening:
        yield Ear(listening)
