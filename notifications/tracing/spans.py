"""Traces from a publish to its landed pages, if REALM_TRACES_ENDPOINT names a collector.

Without it every function here returns at once, and OpenTelemetry is not even imported. A trace
begins at a publish, a rollback or a removal; `span` adds to the trace that the caller is in, and
does nothing outside of one, so other writes and all reads are never traced. The id of a trace goes
from process to process as text (W3C's traceparent): in the job row, and in a notification.

A collector that is away costs spans, and nothing else: a thread sends them (`sending.py`), and they
are dropped if that fails.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from notifications.tracing.sending import flush as flush
from notifications.tracing.sending import propagator, provider

Attributes = str | int | float | bool


def tracing() -> bool:
    """Whether traces are sent."""
    return bool(settings.REALM_TRACES_ENDPOINT)


def prepare() -> None:
    """Imports and begins what the first span would, if traces are sent. For processes in which a
    first span must not take long."""
    if tracing():
        _tracer()


def trace(name: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """A span that begins a trace, or is part of the current one."""
    return _span(name, None, attributes) if tracing() else nullcontext()


def span(name: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """A span of the current trace; nothing if there is none."""
    return _span(name, None, attributes) if current() else nullcontext()


def resumed(name: str, parent: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """A span of the trace that `parent` names; nothing if it names none."""
    return _span(name, parent, attributes) if tracing() and parent else nullcontext()


def past(
    name: str, parent: str, began: datetime, ended: datetime | None = None, **attributes: Attributes
) -> None:
    """Adds a span that is over to the trace that `parent` names; without `ended`, a moment."""
    if not tracing() or not parent:
        return
    made = _tracer().start_span(
        name, context=_context(parent), start_time=_ns(began), attributes=attributes
    )
    made.end(_ns(max(ended or began, began)))


def moment(name: str, parent: str, **attributes: Attributes) -> None:
    """Adds what happens now to the trace that `parent` names."""
    past(name, parent, datetime.now(UTC), None, **attributes)


def current() -> str:
    """The current span as text; empty if there is none."""
    if not tracing():
        return ""
    carrier: dict[str, str] = {}
    propagator().inject(carrier)
    return carrier.get("traceparent", "")


@contextmanager
def _span(name: str, parent: str | None, attributes: dict[str, Attributes]) -> Iterator[None]:
    context = _context(parent) if parent else None
    with _tracer().start_as_current_span(name, context=context, attributes=attributes):
        yield


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6) * 1000


def _context(parent: str) -> Any:
    return propagator().extract({"traceparent": parent})


def _tracer() -> Any:
    return provider().get_tracer("realm-server")
