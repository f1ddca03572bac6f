"""Fields that every log record carries: the replica, and what the current work is about.

A line of text shows only the message. As JSON (`REALM_LOG_FORMAT=json`) each record also has
`replica`, and, while a worker or a request handles a realm, `realm`, `generation` and `job`.
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
    """Adds fields to all records that are logged in the block, by this thread or task."""
    token = _current.set({**_current.get(), **fields})
    try:
        yield
    finally:
        _current.reset(token)


class AddFields(logging.Filter):
    """Adds the current fields to each record. A field in the logging call's `extra` wins."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass."""
        for name, value in {"replica": self._replica, **_current.get()}.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
