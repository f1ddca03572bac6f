"""Creates the OpenTelemetry objects that make spans and send them to a collector.

A span is a step of a trace, with a start and a duration. A collector is a separate program that
receives spans. A process creates the objects when it first needs them.
"""

import atexit
import os
import socket
from functools import cache
from typing import Any

from django.conf import settings

#: A process sends its new spans every SEND_SECONDS.
SEND_SECONDS = 1.0
#: How long one send may take. A process sends its last spans before it ends, so a slow collector
#: could otherwise delay its end for a long time.
GIVE_UP_SECONDS = 2


def flush() -> None:
    """Sends the spans that this process hasn't sent yet. Runs before the process ends."""
    if provider.cache_info().currsize:
        provider().force_flush()


@cache
def propagator() -> Any:
    """Returns the object that converts the ID of a span to text and back. The text has the format
    `traceparent` of the standard W3C Trace Context."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


@cache
def provider() -> Any:
    """Returns the object that makes spans, and that sends them in a thread of its own. The first
    call creates the object and starts the thread. Before the first call the process doesn't have
    the thread, so it can fork safely."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": "realm-server",
            "service.instance.id": settings.REALM_REPLICA,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
    )
    # With `shutdown_on_exit`, the end of a process could wait half a minute for an unreachable
    # collector. `flush`, which runs instead, waits at most GIVE_UP_SECONDS for each batch of spans.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.REALM_TRACES_ENDPOINT, timeout=GIVE_UP_SECONDS)
    sending = BatchSpanProcessor(exporter, schedule_delay_millis=SEND_SECONDS * 1000)
    provider.add_span_processor(sending)
    atexit.register(flush)
    return provider
