"""Adds fields to log records. Logs show these fields only with `REALM_LOG_FORMAT=json`.

Each record has `replica`, the value of the setting REALM_REPLICA. While a worker plans or renders a
job, the worker's records also have `realm`, `generation` and `job`. While a worker builds the
definitions of a module, the worker's records also have `module`.
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
    """A logging filter that adds `replica` and the fields of `log_fields` to each log record. If
    the logging call has set such a field with `extra`, the filter keeps that value."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds the fields to a record. Returns True, so that the record is logged."""
        for name, value in {"replica": self._replica, **_current.get()}.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
