"""Traces each publish until its pages are live, if REALM_TRACES_ENDPOINT is set to a collector's
address.

Without that setting, all functions of this module return at once and don't import OpenTelemetry.
Only a publish, a rollback or a removal of a realm begins a trace. `span` adds a span to the
caller's current trace, if there is one. So reads, and writes of files, are not traced. Processes
pass the trace's ID as text (W3C's traceparent) in the job's row and in a notification.

If the collector is down, only spans are lost. A thread sends the spans (`sending.py`), and drops
the spans that it can't send.
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
    """Returns whether traces are sent."""
    return bool(settings.REALM_TRACES_ENDPOINT)


def prepare() -> None:
    """Imports and creates OpenTelemetry's objects if tracing is on. Without this call, a process's
    first span takes longer."""
    if tracing():
        _tracer()


def trace(name: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """Opens a span in the current trace. Begins a new trace if there is none."""
    return _span(name, None, attributes) if tracing() else nullcontext()


def span(name: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """Opens a span in the current trace, if there is one."""
    return _span(name, None, attributes) if current() else nullcontext()


def resumed(name: str, parent: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """Opens a span in the trace that `parent` identifies. Does nothing if `parent` is empty."""
    return _span(name, parent, attributes) if tracing() and parent else nullcontext()


def past(
    name: str, parent: str, began: datetime, ended: datetime | None = None, **attributes: Attributes
) -> None:
    """Adds a span from `began` to `ended` to the trace that `parent` identifies. Without `ended`,
    the span's duration is 0."""
    if not tracing() or not parent:
        return
    made = _tracer().start_span(
        name, context=_context(parent), start_time=_ns(began), attributes=attributes
    )
    made.end(_ns(max(ended or began, began)))


def moment(name: str, parent: str, **attributes: Attributes) -> None:
    """Adds a span of duration 0 at the current time to the trace that `parent` identifies."""
    past(name, parent, datetime.now(UTC), None, **attributes)


def current() -> str:
    """Returns the current span as W3C traceparent text; an empty text if there is no span."""
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
