"""Creates OpenTelemetry's objects, which make and send spans, when the first span needs them."""

import atexit
import os
import socket
from functools import cache
from typing import Any

from django.conf import settings

#: How often a process sends its spans, and how long one send may take. A process sends its last
#: spans before it ends, so a slow collector delays the end of the process.
SEND_SECONDS = 1.0
GIVE_UP_SECONDS = 2


def flush() -> None:
    """Sends the remaining spans of this process. Called before the process ends."""
    if provider.cache_info().currsize:
        provider().force_flush()


@cache
def propagator() -> Any:
    """Returns the object that converts spans to text and back, by W3C Trace Context."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


@cache
def provider() -> Any:
    """Returns the object that makes spans and sends them in a thread of its own. The first call
    creates the object and the thread. A process that makes no spans never starts the thread, so the
    process can fork safely."""
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
    # While the collector is down, `shutdown_on_exit` would delay the end of every command by half a
    # minute.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.REALM_TRACES_ENDPOINT, timeout=GIVE_UP_SECONDS)
    sending = BatchSpanProcessor(exporter, schedule_delay_millis=SEND_SECONDS * 1000)
    provider.add_span_processor(sending)
    atexit.register(flush)
    return provider
