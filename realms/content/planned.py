"""Runs prepared statements. A database session plans a prepared statement once and then runs it by
name.

Postgres takes longer to plan a large statement than to run it. Django's cursors put the parameters
into the statement's text, so Postgres plans each statement anew. `first_row` sends the text and the
parameters separately, so the session can keep the plan.

Behind a pooler in transaction mode, each transaction may use another session of the server, so
plans can't be kept: a session could run a plan that another client prepared under the same name,
and return wrong rows. For a pooler, the settings set `prepare_threshold` to None. `_keeps_plans`
also detects a pooler that the settings don't mention.
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

#: The connections that are known to reach the server directly, without a pooler.
_direct: WeakSet["psycopg.Connection[Any]"] = WeakSet()


def first_row(statement: LiteralString, parameters: Mapping[str, Any]) -> Row | None:
    """Returns the first row of a statement's result, or None if the result is empty. `parameters`
    are named. The statement must cast each parameter whose type Postgres can't infer.

    Within a transaction, this function doesn't use a kept plan, because an invalid plan would abort
    the transaction.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    # Django does the same before it makes a cursor.
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    session = connection.connection
    watched = connection.execute_wrappers or connection.queries_logged
    if not connection.in_atomic_block and not watched and _keeps_plans(session):
        try:
            # If an error occurs, `wrap_database_errors` makes Django check the connection before
            # its next use.
            with connection.wrap_database_errors:
                return psycopg.Cursor(session).execute(statement, parameters).fetchone()
        except (ProgrammingError, NotSupportedError) as error:
            # DISCARD ALL has removed the plan, or a migration has changed a column's type.
            logger.warning("this database session stops keeping plans: %s", error)
            session.prepare_threshold = None
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cast(Row | None, cursor.fetchone())


def array(texts: Iterable[str]) -> str:
    """Returns texts as a Postgres array literal, several times faster than psycopg does."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


def _keeps_plans(session: "psycopg.Connection[Any]") -> bool:
    """Returns whether the database session keeps its plans for later statements."""
    if session.prepare_threshold is None:
        return False
    if session not in _direct:
        # A pooler answers the handshake itself, so `backend_pid` isn't the pid of a server process.
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        if row != (session.info.backend_pid,):
            session.prepare_threshold = None
            return False
        _direct.add(session)
    return True
