"""Statements that a database session plans once and then runs by name.

Postgres takes longer to plan a large statement than to run it. Django sends every statement anew,
its parameters within its text. These go to the server apart from their parameters, and the
session keeps the plan under a name.

A session behind a pooler in transaction mode is another one in each transaction, so nothing may be
kept there. `settings` says whether DATABASE_URL is a pooler (`prepare_threshold`). A session is
also asked whether it is the one that was connected to, because another client's plan of the same
name would give wrong rows.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, LiteralString, cast
from weakref import WeakSet

import psycopg
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections
from django.db.utils import NotSupportedError

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]

#: The connections that were found to be the server's own.
_direct: WeakSet["psycopg.Connection[Any]"] = WeakSet()


def first_row(statement: LiteralString, parameters: Mapping[str, Any]) -> Row | None:
    """The first row of a statement, None if it has none. `parameters` are by name; where their
    types aren't clear from the statement, it has to cast them.

    Within a transaction the statement is planned anew: an error would end the transaction.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    # What Django does before it makes a cursor.
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    session = connection.connection
    watched = connection.execute_wrappers or connection.queries_logged
    if not connection.in_atomic_block and not watched and _keeps_plans(session):
        try:
            # Notes for Django that the connection has to be checked.
            with connection.wrap_database_errors:
                return psycopg.Cursor(session).execute(statement, parameters).fetchone()
        except (ProgrammingError, NotSupportedError) as error:
            # The plan is gone (DISCARD ALL), or a migration has changed a column's type.
            logger.warning("a session keeps no plans from now on: %s", error)
            session.prepare_threshold = None
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cast(Row | None, cursor.fetchone())


def array(texts: Iterable[str]) -> str:
    """Texts as Postgres writes an array of them: psycopg takes several times as long."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


def _keeps_plans(session: "psycopg.Connection[Any]") -> bool:
    """Whether a plan that this session keeps will be there at the next statement."""
    if session.prepare_threshold is None:
        return False
    if session not in _direct:
        # A pooler greets its clients itself, and names no process of the server.
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        if row != (session.info.backend_pid,):
            session.prepare_threshold = None
            return False
        _direct.add(session)
    return True
