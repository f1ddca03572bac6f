"""What a database error means: the database is away, a constraint was broken, or we made a mistake.

Whoever has to tell them apart asks here; the error's kind decides, never its message.
"""

import logging
import time
from typing import LiteralString

import psycopg
from django.db import Error as DatabaseError
from django.db import IntegrityError, InterfaceError, OperationalError

#: Errors that say that nothing is reached: of connections, of resources, of an administrator who
#: stops the server, and of a server that only follows another.
#: Source: the PostgreSQL manual, "PostgreSQL Error Codes".
_AWAY: tuple[LiteralString, ...] = ("08", "53", "57P", "25006")
#: A row that is there already, one that is missing, and ranges that overlap: two have met.
_CONFLICT: tuple[LiteralString, ...] = ("23001", "23503", "23505", "23P01")
_KINDS = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)


def is_away(error: BaseException | None) -> bool:
    """Whether the database can't be reached, or takes no more work."""
    if not isinstance(error, DatabaseError | psycopg.Error):
        return False
    code = _code(error)
    # A connection that can't be made, or has ended, has no code.
    return isinstance(error, _KINDS) if code is None else code.startswith(_AWAY)


def is_conflict(error: BaseException) -> bool:
    """Whether a constraint was broken that two who change the same thing at once can break."""
    return isinstance(error, IntegrityError) and (_code(error) or "").startswith(_CONFLICT)


def _code(error: BaseException) -> str | None:
    for each in (error, error.__cause__):
        if isinstance(each, psycopg.Error):
            return each.sqlstate
    return None


class OneLineASecond(logging.Filter):
    """Of what a process has to say about a database that is away, prints one line a second."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = -1.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to print a record; one about a database that is away has one line."""
        if not any(is_away(error) for error in _errors(record)):
            return True
        now = time.monotonic()
        if now - self._printed < 1:
            return False
        self._printed = now
        lines = record.getMessage().splitlines() or [""]
        record.msg, record.args = f"the database is away: {lines[0]}", None
        record.exc_info = record.exc_text = None
        return True


def _errors(record: logging.LogRecord) -> list[BaseException]:
    found = [record.exc_info[1]] if isinstance(record.exc_info, tuple) else []
    args = record.args.values() if isinstance(record.args, dict) else record.args or ()
    return [each for each in (*found, *args) if isinstance(each, BaseException)]


class AnsweredOnce(logging.Filter):
    """Leaves out that a request was answered with an error whose cause the log has already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to print a record."""
        return bool(record.exc_info) or getattr(record, "status_code", 0) < 500
