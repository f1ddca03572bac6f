"""Finds out whether a database error means an unavailable database or a conflict of concurrent
changes. Also defines filters that keep the log of such errors short.

The functions look at an error's class and SQLSTATE code. They never look at the message, because
its language and wording depend on the database server.
"""

import logging
import time
from typing import LiteralString

import psycopg
from django.db import Error as DatabaseError
from django.db import IntegrityError, InterfaceError, OperationalError

#: The first characters of the SQLSTATE codes of an unusable database: failed connections, exhausted
#: resources, a shutdown by the administrator, and a standby server, which is read-only.
#: Source: the PostgreSQL manual, "PostgreSQL Error Codes".
_AWAY: tuple[LiteralString, ...] = ("08", "53", "57P", "25006")
#: The SQLSTATE codes of errors that concurrent changes can cause: a row exists already, a row that
#: another row refers to is missing or can't be deleted, or a row violates an exclusion constraint.
_CONFLICT: tuple[LiteralString, ...] = ("23001", "23503", "23505", "23P01")
_KINDS = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)


def is_away(error: BaseException | None) -> bool:
    """Returns whether an error means that the database can't be reached or refuses statements."""
    if not isinstance(error, DatabaseError | psycopg.Error):
        return False
    code = _code(error)
    # A failed or lost connection causes an error without a code.
    return isinstance(error, _KINDS) if code is None else code.startswith(_AWAY)


def is_conflict(error: BaseException) -> bool:
    """Returns whether an error means that a change has violated a constraint because of a
    concurrent change."""
    return isinstance(error, IntegrityError) and (_code(error) or "").startswith(_CONFLICT)


def _code(error: BaseException) -> str | None:
    for each in (error, error.__cause__):
        if isinstance(each, psycopg.Error):
            return each.sqlstate
    return None


class OneLineASecond(logging.Filter):
    """Limits a process's log records about an unavailable database to one line a second."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = -1.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether to print a record. Shortens a record about an unavailable database to one
        line."""
        if not any(is_away(error) for error in _errors(record)):
            return True
        now = time.monotonic()
        if now - self._printed < 1:
            return False
        self._printed = now
        lines = record.getMessage().splitlines() or [""]
        record.msg, record.args = f"the database is unavailable: {lines[0]}", None
        record.exc_info = record.exc_text = None
        return True


def _errors(record: logging.LogRecord) -> list[BaseException]:
    raised = [record.exc_info[1]] if isinstance(record.exc_info, tuple) else []
    args = record.args.values() if isinstance(record.args, dict) else record.args or ()
    return [each for each in (*raised, *args) if isinstance(each, BaseException)]


class AnsweredOnce(logging.Filter):
    """Drops Django's log records of 5xx responses that have no traceback. If a bug or a database
    error caused the response, `error_border.py` has already logged the cause. Other 5xx responses,
    for example while a realm is locked, need no log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info) or getattr(record, "status_code", 0) < 500
