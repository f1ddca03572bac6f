"""Adds fields to every log record: the replica, and the realm and job of the current work.

Text logs don't show these fields. With `REALM_LOG_FORMAT=json` each record also has `replica`.
While a worker handles a realm, its records have `realm`, `generation` and `job` too.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NONE: Mapping[str, object] = MappingProxyType({})
_current: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=_NONE)


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Adds fields to all log records that the current thread or asyncio task makes in the `with`
    block."""
    token = _current.set({**_current.get(), **fields})
    try:
        yield
    finally:
        _current.reset(token)


class AddFields(logging.Filter):
    """A logging filter that adds the current fields to each log record. A field in the logging
    call's `extra` takes precedence."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds the fields to a record. Returns True, so that the record is logged."""
        for name, value in {"replica": self._replica, **_current.get()}.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
