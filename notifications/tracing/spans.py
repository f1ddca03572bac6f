"""Traces each publish until its pages are live, if REALM_TRACES_ENDPOINT is set to a collector's
address.

A trace consists of spans. A span is a step, such as the wait for a lock, with a start and a
duration. A collector is a separate program that receives spans. If REALM_TRACES_ENDPOINT is empty,
all functions of this module return at once and don't import OpenTelemetry.

Only a publish, a rollback or a removal of a realm begins a trace (`trace`). `span` adds a span only
to a trace that has begun. So reads, and writes of files, are not traced.

A trace continues in other processes, which get the ID of a span as text. Workers find the text in
the row of the job that renders the realm's pages. Each replica's sidecar, the process that receives
notifications, gets the text in a notification on the channel `realm_traces`.

If the collector is down, spans are lost, but no publish fails or waits. A separate thread sends the
spans (`sending.py`), and drops the spans that it can't send.
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
    """If tracing is on, imports OpenTelemetry and creates its objects. A process that doesn't call
    this function imports OpenTelemetry when it makes its first span, which delays this span."""
    if tracing():
        _tracer()


def trace(name: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """Opens a span in the current trace, or in a new trace if there is no current trace."""
    return _span(name, None, attributes) if tracing() else nullcontext()


def span(name: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """Opens a span in the current trace. Does nothing if there is no current trace."""
    return _span(name, None, attributes) if current() else nullcontext()


def resumed(name: str, parent: str, **attributes: Attributes) -> AbstractContextManager[None]:
    """Opens a span in the trace that `parent` identifies. `parent` is a text that `current` has
    returned, usually in another process. Does nothing if `parent` is empty."""
    return _span(name, parent, attributes) if tracing() and parent else nullcontext()


def past(
    name: str, parent: str, began: datetime, ended: datetime | None = None, **attributes: Attributes
) -> None:
    """Adds a span from `began` to `ended` to the trace that `parent` identifies. If `ended` is None
    or earlier than `began`, the span's duration is 0."""
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
    """Returns a text that identifies the current span, in the format `traceparent` of the standard
    W3C Trace Context. The text is empty if there is no current span."""
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
